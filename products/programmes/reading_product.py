"""A product of a programme, read from its file: match, ways out, plans, and what a schema can't check about them."""

from fractions import Fraction

from products.programmes.model import (
    RESERVED_WAYS,
    AfterTerm,
    Benefit,
    Cession,
    Contribution,
    Destination,
    Eligibility,
    Match,
    MatchYears,
    Plan,
    Product,
    Returns,
    Reward,
    Share,
    Term,
    Tier,
    VestingStep,
    WindowRule,
    Withdrawal,
)
from products.programmes.reading import Node
from products.programmes.reading_contribution import read_contribution


def read_product(node: Node, currency: str) -> Product:
    """The product; faults go to the node's context."""
    eligibility = _read_eligibility(node.child("eligibility"))
    contribution_node = node.child("contribution")
    if contribution_node is None:
        raise AssertionError("the schema requires a contribution")
    contribution = read_contribution(contribution_node)
    _check_ages(contribution_node, contribution, eligibility)
    match = node.child("match")
    term, returns, cession = node.child("term"), node.child("returns"), node.child("cession")
    node.unique("plans", "code")
    node.unique("rewards", "code")
    node.unique("withdrawals", "code")
    plans = {plan.get("code") for plan in node.children("plans")}
    return Product(
        code=node.text("code"),
        name=node.text("name"),
        kind=node.text("kind"),
        currency=currency,
        custody=node.get("custody"),
        destination=_read_destination(node),
        priority=node.get("priority"),
        several=node.get("several", False),
        term=None if term is None else Term(term.get("years"), term.get("starts")),
        eligibility=eligibility,
        contribution=contribution,
        match=None if match is None else _read_match(match, contribution),
        rewards=tuple(_read_reward(reward, plans) for reward in node.children("rewards")),
        withdrawals=tuple(_read_withdrawal(way) for way in node.children("withdrawals")),
        returns=None if returns is None else _read_returns(returns),
        plans=tuple(_read_plan(plan) for plan in node.children("plans")),
        cession=None if cession is None else _read_cession(cession),
    )


def _read_destination(node: Node) -> Destination:
    if node.get("custody") == "passed_through":
        return Destination("agency", node.text("agency"))
    if node.get("fund") == "pool":
        return Destination("pool", node.text("pool"))
    return Destination("savers", "savers")


def _read_eligibility(node: Node | None) -> Eligibility:
    if node is None:
        return Eligibility(None, None, None, None, ())
    age = node.child("age")
    joined_from, joined_to = node.days("joined")
    if age is not None:
        age.ordered("from", "to")
    return Eligibility(
        age_from=age.get("from") if age else None,
        age_to=age.get("to") if age else None,
        joined_from=joined_from,
        joined_to=joined_to,
        when=node.conditions("when", at_enrolment=True),
    )


def _check_ages(node: Node, contribution: Contribution, eligibility: Eligibility) -> None:
    """A table by age at entry must have a row for everybody who may enrol."""
    if contribution.by != "entry_age" or not contribution.rows:
        return
    if eligibility.age_from is None or eligibility.age_from < contribution.rows[0].since:
        node.fault("table", "members may enrol younger than its first row")
    last = contribution.rows[-1].upto
    if last is not None and (eligibility.age_to is None or eligibility.age_to > last):
        node.fault("table", "members may enrol older than its last row")


def _read_match(node: Node, contribution: Contribution) -> Match:
    years, window = node.child("years"), node.window("window") or WindowRule("calendar_year")
    if years is not None and years.get("counted") == "windows" and not window.kind.endswith("_year"):
        years.fault("counted", "only windows of whole years can be counted as years")
    if node.get("granted") == "end_of_window" and window.kind == "enrolment":
        node.fault("granted", "a window of the whole enrolment doesn't end")
    if node.get("into") == "member_bank_account" and "vesting" in node:
        node.fault("vesting", "what goes to the member's bank account is the member's at once")
    base = node.get("match_base")
    if base == "due" and (contribution.period is None or contribution.rule == "remainder"):
        node.fault("match_base", "“due” needs an instalment: basis per_period, and no remainder")
    joined_from, joined_to = node.days("joined")
    paid_from, paid_to = node.days("paid")
    node.unique("tiers", "code")
    tiers = tuple(
        Tier(
            code=tier.text("code"),
            when=tier.conditions("when"),
            rate=tier.percent("rate") or Fraction(0),
            threshold=tier.money("threshold") or 0,
            cap=tier.money("cap"),
        )
        for tier in node.children("tiers")
    )
    return Match(
        window=window,
        base=base,
        years=None if years is None else MatchYears(years.get("count"), years.get("counted")),
        joined_from=joined_from,
        joined_to=joined_to,
        paid_from=paid_from,
        paid_to=paid_to,
        tiers=tiers,
        shares=_read_shares(node),
        granted=node.get("granted", "on_settlement"),
        into=node.get("into", "product"),
        vesting=_read_vesting(node),
        forfeit_to=node.get("forfeit_to", "sponsor"),
    )


def _read_shares(node: Node) -> tuple[Share, ...]:
    node.unique("sponsors", "sponsor")
    shares = tuple(Share(part.text("sponsor"), part.share("share")) for part in node.children("sponsors"))
    known = node.context.sponsors
    for part in node.children("sponsors"):
        if known is not None and part.get("sponsor") not in known:
            part.fault("sponsor", f"the programme has no sponsor “{part.get('sponsor')}”")
        if part.share("share") == 0:
            part.fault("share", "a sponsor's share is more than nothing")
    if sum(share.share for share in shares) != 1:
        node.fault("sponsors", "the shares don't add up to 100 %")
    return shares


def _read_vesting(node: Node) -> tuple[VestingStep, ...]:
    steps: list[VestingStep] = []
    for line in node.children("vesting"):
        step = VestingStep(line.share("vested"), line.get("after_years"), line.get("from_age"))
        if steps and step.vested <= steps[-1].vested:
            line.fault("vested", "not more than the step before")
        steps.append(step)
    return tuple(steps)


def _read_reward(node: Node, plans: set[object]) -> Reward:
    if node.get("plan") not in plans:
        node.fault("plan", f"the product has no plan “{node.get('plan')}”")
    return Reward(
        code=node.text("code"),
        when=node.conditions("when"),
        window=node.window("window") or WindowRule("calendar_year"),
        threshold=node.money("threshold") or 0,
        plan=node.text("plan"),
        lasts=node.get("lasts"),
    )


def _read_withdrawal(node: Node) -> Withdrawal:
    for lesser, greater in (
        ("from_age", "before_age"),
        ("after_years", "before_years"),
        ("balance_at_least", "balance_below"),
    ):
        node.ordered(lesser, greater)
    if "saved_each_year" in node and "after_years" not in node:
        node.fault("saved_each_year", "needs “after_years”: in each of which years?")
    if node.get("code") in RESERVED_WAYS:
        node.fault("code", "this code is Mizan's own")
    _check_proof(node)
    lump_sum = node.share("lump_sum")
    if lump_sum == 1 and "rest_over_years" in node:
        node.fault("rest_over_years", "there is no rest")
    return Withdrawal(
        code=node.text("code"),
        from_age=node.get("from_age"),
        before_age=node.get("before_age"),
        after_years=node.get("after_years"),
        before_years=node.get("before_years"),
        event=node.get("event"),
        proven_by=node.get("proven_by"),
        balance_at_least=node.money("balance_at_least"),
        balance_below=node.money("balance_below"),
        saved_each_year=node.money("saved_each_year"),
        lump_sum=lump_sum,
        rest_over_years=node.get("rest_over_years"),
        interest=node.get("interest"),
        match=node.get("match", "paid"),
    )


def _check_proof(node: Node) -> None:
    """What proves an event is a yes or no that somebody else than the member vouches for."""
    name = node.get("proven_by")
    if name is None or name in node.context.doubtful:
        return
    fact = node.context.facts.get(name)
    if fact is None:
        node.fault("proven_by", f"the programme declares no fact “{name}”")
    elif fact.type != "boolean":
        node.fault("proven_by", f"“{name}” is of type {fact.type}, not boolean")
    elif fact.evidence == "self_declared" or fact.weaker == "counts":
        node.fault("proven_by", f"“{name}” counts on the member's word alone")


def _read_returns(node: Node) -> Returns:
    after = tuple(
        AfterTerm(line.get("years"), line.share("rate_share")) for line in node.children("after_term")
    )
    return Returns(node.get("declared"), node.get("counted"), node.get("credited"), after)


def _read_plan(node: Node) -> Plan:
    node.unique("benefits", "code")
    tail = node.child("tail")
    if tail is not None:
        fact = tail.text("after")
        declared = node.context.facts.get(fact)
        if declared is None and fact not in node.context.doubtful:
            tail.fault("after", f"the programme declares no fact “{fact}”")
        elif declared is not None and declared.type != "date":
            tail.fault("after", f"“{fact}” is of type {declared.type}, not date")
    return Plan(
        code=node.text("code"),
        name=node.text("name"),
        kind=node.text("kind"),
        term=node.window("term"),
        tail_months=tail.get("months") if tail else 0,
        tail_after=tail.get("after") if tail else None,
        waiting_days=node.get("waiting_days", 0),
        benefits=tuple(_read_benefit(benefit) for benefit in node.children("benefits")),
    )


def _read_benefit(node: Node) -> Benefit:
    survivor = node.child("survivor")
    if "every" in node and "amount" not in node:
        node.fault("every", "there is no amount")
    return Benefit(
        code=node.text("code"),
        kind=node.text("kind"),
        amount=node.money("amount"),
        every=node.get("every"),
        limit_per_year=node.money("limit_per_year"),
        from_age=node.get("from_age"),
        survivor=survivor.get("who") if survivor else None,
        survivor_share=survivor.share("share") if survivor else None,
        when=node.conditions("when"),
    )


def _read_cession(node: Node) -> Cession:
    node.ordered("retention", "limit")
    return Cession(
        to=node.text("to"),
        kind=node.get("kind"),
        share=node.percent("share", most=1),
        retention=node.money("retention"),
        limit=node.money("limit"),
    )
