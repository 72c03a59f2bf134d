"""The parts of the programme schema (`$defs`)."""

from products.programmes.schema_words import CODE, SLUG, Schema, array, one_of, record, ref, text, when, whole

_CONDITIONS = array("Conditions that must all hold. None: everybody.", ref("condition"), least=0)

DEFS: dict[str, Schema] = {
    "money": {
        "type": "string",
        "pattern": r"^(0|[1-9][0-9]{0,14})(\.[0-9]{1,4})?$",
        "description": 'An amount in major units of the programme\'s currency, in quotes: `"15000"`, `"2002.50"`. '
        "No more decimals than the currency has (ISO 4217: RWF none, INR two, KWD three).",
    },
    "percent": {
        "type": "string",
        "pattern": r"^((0|[1-9][0-9]{0,4})(\.[0-9]{1,6})?|[0-9]{1,9}/[1-9][0-9]{0,8})$",
        "description": 'In quotes: a decimal is per cent (`"5"`, `"21.33"`), a fraction is the ratio itself (`"1/3"` '
        "is one third). Kept exact.",
    },
    "date": {
        "type": "string",
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        "description": "A local date in the programme's time zone: `2026-01-31`.",
    },
    "month_day": {
        "type": "string",
        "pattern": r"^[0-9]{2}-[0-9]{2}$",
        "description": "A month and day that every year has: `04-01`.",
    },
    "slug": {
        "type": "string",
        "pattern": SLUG,
        "maxLength": 60,
        "description": "Lower-case letters, digits and hyphens: `gov-rw`.",
    },
    "code": {
        "type": "string",
        "pattern": CODE,
        "maxLength": 60,
        "description": "Lower-case letters, digits, hyphens and underscores: `savings`.",
    },
    "country": {"type": "string", "pattern": "^[A-Z]{2}$", "description": "ISO 3166-1 alpha-2: `RW`."},
    "scalar": {
        "type": ["string", "integer", "boolean"],
        "maxLength": 200,
        "description": "A value of the fact's type; money and dates as text.",
    },
    "window": record(
        "How time is cut. Dates are local to the programme; the last day belongs to the window.",
        {
            "kind": one_of(
                "`membership_year` runs from the day of joining; `enrolment` never ends (once per enrolment).",
                "day",
                "month",
                "quarter",
                "calendar_year",
                "financial_year",
                "membership_year",
                "enrolment",
            ),
            "starts": ref("month_day", "The first day of a financial year."),
            "years": whole("Length of a membership window, in years.", 1, 50, default=1),
        },
        ("kind",),
        allOf=[
            when("kind", "financial_year", needs=("starts",), bars=("years",)),
            *(
                when("kind", kind, bars=("starts", "years"))
                for kind in ("day", "month", "quarter", "calendar_year", "enrolment")
            ),
            when("kind", "membership_year", bars=("starts",)),
        ],
    ),
    "condition": record(
        "Something that must be true on the day: of a declared fact (`fact`), or of what the rules know themselves "
        "(`subject`). All comparisons given must hold; a fact that isn't known makes the condition false.",
        {
            "fact": ref("code", "The name of a declared fact."),
            "subject": one_of(
                "`age` (complete years, at enrolment only), `entry_age`, `joined_on`, `contributed_on`, "
                "`membership_years` (complete years since joining).",
                "age",
                "entry_age",
                "joined_on",
                "contributed_on",
                "membership_years",
            ),
            "is": ref("scalar"),
            "in": array("One of these.", ref("scalar")),
            "at_least": ref("scalar"),
            "at_most": ref("scalar"),
            "below": ref("scalar"),
            "above": ref("scalar"),
        },
        oneOf=[{"required": ["fact"]}, {"required": ["subject"]}],
        minProperties=2,
    ),
    "fact": record(
        "A fact about a member on which rules of this programme depend.",
        {
            "type": one_of(
                "`money` is in the programme's currency.", "integer", "money", "text", "boolean", "date"
            ),
            "evidence": one_of(
                "The least evidence that is accepted.", "self_declared", "document", "institution"
            ),
            "weaker": one_of(
                "What has less evidence than that: the rules ignore it until better evidence is recorded, or it counts "
                "meanwhile.",
                "counts",
                "ignored",
                default="ignored",
            ),
            "description": text("What it means, for the people who record it."),
            "values": array("The only values allowed.", ref("scalar")),
            "minimum": ref("scalar", "The least value, of integers and money."),
            "maximum": ref("scalar", "The greatest value, of integers and money."),
        },
        ("type", "evidence", "description"),
    ),
    "level": record(
        "What a level of verification lets a member do. A level has what the ones below it have, unless it says more.",
        {
            "level": one_of(
                "How well it is known who the member is: not at all, by a code sent to the phone, by a document that was "
                "seen, by an institution's word.",
                "none",
                "phone",
                "document",
                "institution",
            ),
            "contributions_per_month": ref("money", "The most that may be contributed in a calendar month."),
            "payouts_per_month": ref("money", "The most that may be paid out in a calendar month."),
        },
        ("level",),
    ),
    "sponsor": record(
        "Who pays for a match.",
        {
            "slug": ref("slug"),
            "name": text("Its name.", longest=200),
            "kind": one_of("What it is.", "government", "donor"),
            "funding": one_of(
                "`prefunded`: pays in first; `arrears`: pays what was claimed from it.",
                "prefunded",
                "arrears",
            ),
            "budget": record(
                "The budget proposed. What a sponsor has really paid in is in the books.",
                {
                    "amount": ref("money"),
                    "per": one_of(
                        "What it is for.",
                        "programme",
                        "calendar_year",
                        "financial_year",
                        default="programme",
                    ),
                },
                ("amount",),
            ),
        },
        ("slug", "name", "kind", "funding"),
    ),
    "choice": record(
        "What the member may choose, instead of a given amount or percent: of the same kind as the rule.",
        {
            "minimum": {"type": "string", "description": "The least choice."},
            "maximum": {"type": "string", "description": "The greatest choice; percentages need one."},
            "step": {"type": "string", "description": "A choice is a whole number of steps."},
            "suggested": {"type": "string", "description": "Taken when the member doesn't choose."},
        },
        ("minimum",),
    ),
    "row": record(
        "One line of a table: both ends belong to it; without `to` it goes on.",
        {
            "from": ref("scalar"),
            "to": ref("scalar"),
            "amount": ref("money"),
            "percent": ref("percent"),
        },
        ("from",),
        oneOf=[{"required": ["amount"]}, {"required": ["percent"]}],
    ),
    "contribution": record(
        "How much the product asks for.",
        {
            "rule": one_of(
                "`fixed`: an amount; `percent`: a part of what is received or of a fact; `table`: by age or a fact; "
                "`remainder`: what was collected and nothing before it wanted.",
                "fixed",
                "percent",
                "table",
                "remainder",
            ),
            "basis": one_of(
                "Asked anew at each remittance, or once per period, however many remittances it has.",
                "per_remittance",
                "per_period",
            ),
            "period": ref("window", "The period, when the basis is `per_period`."),
            "amount": ref("money", "Of a `fixed` rule."),
            "percent": ref("percent", "Of a `percent` rule."),
            "choice": ref("choice"),
            "of": ref("code", "What a percentage is taken of: `received`, or a declared fact of type money."),
            "by": ref(
                "code", "What a table is read by: `entry_age`, `age`, or a declared integer or money fact."
            ),
            "table": array("The table, ascending and without gaps.", ref("row")),
            "at_least": ref("money", "What is asked is raised to this."),
            "minimum": ref("money", "The smallest amount that is taken; see `below_minimum`."),
            "maximum": ref("money", "The most that is asked, per remittance or per period."),
            "step": ref("money", "Amounts are whole numbers of steps, rounded down."),
            "below_minimum": one_of(
                "What becomes of less than the minimum: `skip`, nothing is taken; `accumulate`, it is taken and adds up.",
                "skip",
                "accumulate",
                default="skip",
            ),
            "payable": record(
                "Months' instalments that may be paid at any time of their year, and some of them later.",
                {
                    "late_months": array(
                        "Months whose instalments may be paid in the next year.",
                        whole("A month.", 1, 12),
                        most=12,
                    ),
                    "late_until": ref("month_day", "Until this day of the next year."),
                },
                dependentRequired={"late_months": ["late_until"], "late_until": ["late_months"]},
            ),
        },
        ("rule", "basis"),
        allOf=[
            when("rule", "fixed", bars=("percent", "of", "by", "table")),
            when("rule", "percent", needs=("of",), bars=("amount", "by", "table")),
            when("rule", "table", needs=("by", "table"), bars=("amount", "percent", "choice")),
            when("rule", "remainder", bars=("amount", "percent", "choice", "of", "by", "table", "at_least")),
            when("basis", "per_period", needs=("period",)),
            when("basis", "per_remittance", bars=("period", "payable")),
        ],
    ),
    "tier": record(
        "A line of the match. The first tier whose conditions hold on the day of a contribution takes it.",
        {
            "code": ref("code"),
            "when": _CONDITIONS,
            "rate": ref("percent", "The match, of what was contributed under this tier."),
            "threshold": ref(
                "money", "Matched only if the window's contributions, all together, reach this."
            ),
            "cap": ref("money", "The most in a window."),
        },
        ("code", "rate"),
    ),
    "match": record(
        "What sponsors add to a member's contributions.",
        {
            "window": ref("window", "Contributions are counted together in these windows."),
            "match_base": one_of("Matched is what was due, or all that was paid.", "due", "paid"),
            "years": record(
                "For how long a member is matched.",
                {
                    "count": whole("How many.", 1, 100),
                    "counted": one_of(
                        "Years from the day of joining, or windows, that of joining being the first.",
                        "membership_years",
                        "windows",
                    ),
                },
                ("count", "counted"),
            ),
            "joined": ref("dates", "Only for those who joined in these days."),
            "paid": ref("dates", "Only for what is contributed in these days."),
            "tiers": array("The tiers.", ref("tier"), most=50),
            "sponsors": array(
                "Who pays; the shares add up to one.",
                record(
                    "A sponsor's part.",
                    {"sponsor": ref("slug"), "share": ref("percent")},
                    ("sponsor", "share"),
                ),
                most=20,
            ),
            "granted": one_of(
                "When it is paid: as soon as the partner has paid the contributions in, or once the window is over.",
                "on_settlement",
                "end_of_window",
                default="on_settlement",
            ),
            "into": one_of(
                "Where it is paid: kept with the savings, under their ways out, or payable to the member's own account "
                "as soon as it is granted.",
                "product",
                "member_bank_account",
                default="product",
            ),
            "vesting": array(
                "When it becomes the member's own; without it, at once.",
                record(
                    "From this age, or after so many years of membership, this part of all of it is the member's; of two, "
                    "either is enough.",
                    {
                        "vested": ref("percent"),
                        "after_years": whole("Complete years of membership.", 0, 100),
                        "from_age": whole("Complete years of age.", 0, 120),
                    },
                    ("vested",),
                    anyOf=[{"required": ["after_years"]}, {"required": ["from_age"]}],
                ),
            ),
            "forfeit_to": one_of(
                "Who gets what is lost.", "sponsor", "savers", "pool", "administrator", default="sponsor"
            ),
        },
        ("window", "match_base", "tiers", "sponsors"),
    ),
    "dates": record(
        "From one day to another, both included; one end may be open.",
        {"from": ref("date"), "to": ref("date")},
        minProperties=1,
    ),
    "reward": record(
        "Cover that a saved total earns.",
        {
            "code": ref("code"),
            "when": _CONDITIONS,
            "window": ref("window"),
            "threshold": ref("money", "The window's contributions reach this."),
            "plan": ref("code", "A plan of this product."),
            "lasts": one_of("When the cover runs.", "next_window", "this_window"),
        },
        ("code", "window", "threshold", "plan", "lasts"),
    ),
    "withdrawal": record(
        "A way out. All conditions given must hold.",
        {
            "code": ref("code"),
            "from_age": whole("From this age.", 0, 120),
            "before_age": whole("Before this age.", 0, 120),
            "after_years": whole("After so many complete years of membership.", 0, 100),
            "before_years": whole("Before so many complete years of membership.", 0, 100),
            "event": one_of("Only when this happened.", "disability", "death", "return"),
            "proven_by": ref(
                "code",
                "The declared boolean fact that proves the event, of evidence `document` or `institution`. Without it, a "
                "claim does.",
            ),
            "balance_at_least": ref(
                "money",
                "With at least this balance: settled savings and vested match, with what was taken since the age and "
                "years of this way were reached.",
            ),
            "balance_below": ref("money", "With less than this balance, likewise."),
            "saved_each_year": ref("money", "Having saved this in each of these years."),
            "lump_sum": ref(
                "percent",
                "The part that may be taken at once, of what there was before anything was taken by this way.",
            ),
            "rest_over_years": whole(
                "The rest is paid monthly over so many years from the first withdrawal on.", 1, 60
            ),
            "interest": one_of(
                "Interest that is paid on the own share.", "fund", "savings_bank", "higher_of_both"
            ),
            "match": one_of(
                "What becomes of the match: `paid`, vested match leaves in the same part; `forfeited`, what has not "
                "vested is lost besides, in proportion to the savings that leave.",
                "paid",
                "forfeited",
                default="paid",
            ),
        },
        ("code", "lump_sum"),
        dependentRequired={"proven_by": ["event"]},
    ),
    "benefit": record(
        "What a plan pays. Without an amount or a limit: in kind, as the insurer provides it.",
        {
            "code": ref("code"),
            "kind": one_of(
                "For what.",
                "pension",
                "death",
                "critical_illness",
                "accident_care",
                "health_care",
                "disability",
                "maternity",
                "repatriation",
            ),
            "amount": ref("money"),
            "every": one_of("The amount is paid each month or year; otherwise once.", "month", "year"),
            "limit_per_year": ref("money", "Costs are paid up to this, a year."),
            "from_age": whole("From this age.", 0, 120),
            "survivor": record(
                "What goes on after the member's death.",
                {"who": one_of("To whom.", "spouse", "family"), "share": ref("percent")},
                ("who", "share"),
            ),
            "when": _CONDITIONS,
        },
        ("code", "kind"),
    ),
    "plan": record(
        "Cover that contributions buy.",
        {
            "code": ref("code"),
            "name": text("Its name.", longest=200),
            "kind": one_of(
                "Its branch of social insurance.",
                "pension",
                "health",
                "accident",
                "disability",
                "maternity",
                "life",
                "repatriation",
                "welfare",
            ),
            "term": ref("window", "What one contribution, or one period's, covers."),
            "tail": record(
                "How long cover runs on after the date that a fact gives.",
                {"months": whole("Months.", 1, 60), "after": ref("code", "A declared fact of type date.")},
                ("months", "after"),
            ),
            "waiting_days": whole("Days before cover starts.", 0, 3650, default=0),
            "benefits": array("The benefits.", ref("benefit")),
        },
        ("code", "name", "kind", "benefits"),
    ),
    "product": record(
        "What a member may hold.",
        {
            "code": ref("code"),
            "name": text("Its name.", longest=200),
            "kind": one_of("What it is.", "savings", "pension", "insurance", "welfare", "bond", "project"),
            "custody": one_of(
                "`held`: in Mizan's books; `passed_through`: collected for an agency.",
                "held",
                "passed_through",
            ),
            "fund": one_of("Where a held product's money lies.", "savers", "pool"),
            "pool": ref("slug", "The pool, when the fund is one."),
            "agency": ref("slug", "The agency, when passed through."),
            "priority": whole("The place in the waterfall: lower is served first.", 1, 1000),
            "several": {
                "type": "boolean",
                "default": False,
                "description": "Whether a member may hold several at once.",
            },
            "term": record(
                "How long one enrolment runs.",
                {
                    "years": whole("Years.", 1, 100),
                    "starts": one_of("From when.", "enrolment", "first_contribution"),
                },
                ("years", "starts"),
            ),
            "eligibility": record(
                "Who may enrol, judged on the day of joining.",
                {
                    "age": record(
                        "Complete years of age, both ends included.",
                        {"from": whole("From.", 0, 120), "to": whole("To.", 0, 120)},
                        minProperties=1,
                    ),
                    "joined": ref("dates"),
                    "when": _CONDITIONS,
                },
            ),
            "contribution": ref("contribution"),
            "match": ref("match"),
            "rewards": array("What a saved total earns besides.", ref("reward")),
            "withdrawals": array("The ways out; the first that fits applies.", ref("withdrawal")),
            "returns": record(
                "How investment income reaches members.",
                {
                    "declared": one_of("When the rate is known.", "yearly"),
                    "counted": one_of(
                        "By months a payment was in, that of payment included, or by days.",
                        "months_in",
                        "days_in",
                    ),
                    "credited": one_of("How.", "compounded", "paid_out", "member_chooses"),
                    "after_term": array(
                        "Reduced rates after the term, one after the other; then none.",
                        record(
                            "For some years, a part of the declared rate.",
                            {"years": whole("Years.", 1, 50), "rate_share": ref("percent")},
                            ("years", "rate_share"),
                        ),
                    ),
                },
                ("declared", "counted", "credited"),
            ),
            "plans": array("The cover it gives.", ref("plan")),
            "cession": record(
                "The part of a pool's risk that a regional pool carries.",
                {
                    "to": ref("slug", "The regional pool."),
                    "kind": one_of("The kind of treaty.", "quota_share", "excess_of_loss"),
                    "share": ref("percent", "Of a quota share."),
                    "retention": ref("money", "Of an excess of loss: what the pool bears itself."),
                    "limit": ref("money", "Of an excess of loss: up to here."),
                },
                ("to", "kind"),
                allOf=[
                    when("kind", "quota_share", needs=("share",), bars=("retention", "limit")),
                    when("kind", "excess_of_loss", needs=("retention",), bars=("share",)),
                ],
            ),
        },
        ("code", "name", "kind", "custody", "priority", "contribution"),
        allOf=[
            when("custody", "held", needs=("fund",), bars=("agency",)),
            when("custody", "passed_through", needs=("agency",), bars=("fund", "pool", "match", "cession")),
            when("fund", "pool", needs=("pool",)),
            when("fund", "savers", bars=("pool", "cession")),
        ],
    ),
}
