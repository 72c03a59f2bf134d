"""What can become of a delivery: every state, and every reason, with what it means and what to do about it.

One table for the answers of the API, the reference page and the tests. A reason is a stable code; its states are those
in which it is given.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

State = Literal[
    "queued",
    "posted",
    "duplicate",
    "reversed",
    "unallocated",
    "parked",
    "quarantined",
    "ignored",
    "conflict",
    "replayed",
]

STATES: Final[Mapping[State, str]] = {
    "queued": "It is stored and waits for a worker: usually well under a second.",
    "posted": "The remittance is allocated and in the books.",
    "duplicate": "The same was taken before. Nothing was done again.",
    "reversed": "The remittance is taken back.",
    "unallocated": "The money is in the books, and no member's yet: mostly as nobody is registered under the key that the event names.",
    "parked": "Understood, and waiting for something that `reason` names. Nothing is posted.",
    "quarantined": "It can't be taken as it is; `reason` says why. Nothing is posted, and nothing behind it waits.",
    "ignored": "Its type means nothing to Mizan. It is kept.",
    "conflict": "Its `webhook-id` was accepted before with another event. It is kept as evidence.",
    "replayed": "In a delivery's history: it was queued again, by whom `detail` says. Its standing state is then `queued`.",
}
"""What each state of a delivery means, in the order in which a reader meets them."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a delivery is in a state: a stable code, the states it is given in, what it means and what to do."""

    code: str
    states: tuple[State, ...]
    meaning: str
    remedy: str


REASONS: Final[Mapping[str, Reason]] = {
    reason.code: reason
    for reason in (
        # the event under the rules
        Reason(
            "currency_not_served",
            ("quarantined",),
            "No programme that the partner has joined is in the currency received, or `collected` is in another currency than it.",
            "Correct the currency, or have the partner join the programme; then replay the delivery.",
        ),
        Reason(
            "corridor_not_served",
            ("quarantined",),
            "The programme does not serve this corridor: origin and destination country.",
            "Correct the countries in a new delivery, or replay this one once a version of the programme that is in force on that day serves the corridor.",
        ),
        Reason(
            "time_in_the_future",
            ("quarantined",),
            "`completed_at` is more than a day ahead of our clock.",
            "Correct the time in a new delivery, or replay this one once the time has come.",
        ),
        Reason(
            "time_too_long_ago",
            ("quarantined",),
            "`completed_at` is more than five years ago.",
            "Correct the time in a new delivery.",
        ),
        Reason(
            "collected_exceeds_received",
            ("quarantined",),
            "More was collected than is received.",
            "Correct the amounts in a new delivery.",
        ),
        Reason(
            "collected_missing",
            ("quarantined",),
            "The partner's terms say that it tells what it collected (`as_reported`), and `collected` is null without a valid quote.",
            "Send `collected` in a new delivery.",
        ),
        Reason(
            "quote_missing",
            ("quarantined",),
            "The partner's terms say that it collects by quote (`by_quote`), and no valid one is named: of this member and amount, unexpired when the migrant paid, and unused.",
            "Name the quote, or send `collected`, in a new delivery.",
        ),
        Reason(
            "member_unknown",
            ("unallocated", "quarantined"),
            "The partner has no active member under this key in the programme. Unallocated: what was collected is known, and waits in the books. Quarantined: it is not known either (`by_rule`).",
            "Register and enrol the member. Unallocated money under their phone number or partner reference then finds them by itself; replay what is quarantined, or what names another key.",
        ),
        Reason(
            "mandate_limit",
            ("posted",),
            "The member's mandate limits what may be deducted in a calendar month. What was collected above that is unapplied.",
            "Return what is unapplied to the member, or have the member raise the limit with a new mandate for the next remittances.",
        ),
        Reason(
            "verification_limit",
            ("posted",),
            "The programme limits what a member of this level of verification may contribute in a calendar month. What was collected above that is unapplied.",
            "Return what is unapplied to the member, or have the member verified for the next remittances.",
        ),
        Reason(
            "remittance_conflict",
            ("quarantined",),
            "The `remittance_id` is known with other content. What was taken first stands.",
            "Use a new `remittance_id` for another remittance; to correct one, reverse it and send a new one.",
        ),
        Reason(
            "reversal_refused",
            ("quarantined",),
            "A fund manager refused to reverse what is settled. The remittance stands.",
            "Talk to the fund; a new delivery asks again.",
        ),
        # what is waited for
        Reason(
            "partner_prefund_exhausted",
            ("parked",),
            "The partner is prefunded, and its prefund does not cover what was collected.",
            "Record the partner's payment: what it covers is taken by itself, oldest payments first.",
        ),
        Reason(
            "partner_ceiling_reached",
            ("parked", "unallocated"),
            "The partner would owe more than its exposure ceiling. Unallocated: the member is found, and the partner may not owe their agency or pool any more yet.",
            "Record the partner's settlement: what then fits is taken by itself, oldest payments first.",
        ),
        Reason(
            "awaiting_original",
            ("parked",),
            "A reversal whose remittance has not come. When it comes, it is reversed at once.",
            "Nothing, unless the remittance never comes: then check the `remittance_id`.",
        ),
        Reason(
            "reversal_needs_approval",
            ("parked",),
            "The partner has paid in what the reversal would take back.",
            "A manager approves it: `mizan inbox replay DELIVERY --approve`.",
        ),
        Reason(
            "remitted_to_agency",
            ("quarantined",),
            "What the reversal would take back stands in a remittal to an agency.",
            "Withdraw the remittal if it was not sent, or have the agency reject the line, which returns the money to the member; then replay the delivery.",
        ),
        # the delivery itself
        Reason(
            "not_strict_json",
            ("quarantined",),
            "Authentic, and not strict JSON: duplicate keys, NaN, too deep, not UTF-8. It was answered 400.",
            "Correct it and send it again; the id is still free.",
        ),
        Reason(
            "invalid_event",
            ("quarantined",),
            "Authentic, and against the schema of its type; `detail` names each fault by JSON pointer. It was answered 400.",
            "Correct what it names and send it again; the id is still free.",
        ),
        Reason(
            "delivery_conflict",
            ("conflict",),
            "The `webhook-id` was accepted with another event. It was answered 409.",
            "Use a new id for a new event.",
        ),
        Reason(
            "unknown_type",
            ("ignored",),
            "No event of this `type` is acted on.",
            "Nothing.",
        ),
        Reason(
            "body_destroyed",
            ("quarantined",),
            "It was replayed after the key of its body was destroyed (`MIZAN_DELIVERY_RETENTION_DAYS`).",
            "The partner sends the event again, as a new delivery.",
        ),
        Reason(
            "unreadable",
            ("quarantined",),
            "Its stored body can't be read any more: another release reads it differently, or the bytes were changed.",
            "Look at it with `mizan inbox show DELIVERY --body`; the partner sends the event again.",
        ),
        Reason(
            "internal_error",
            ("quarantined",),
            "It can't be processed, for a fault of ours; `detail` names the error, the worker's log has the rest.",
            "Report it. Once it is mended, replay the delivery.",
        ),
    )
}
"""Every reason by its code."""


def told(code: str) -> str:
    """A reason in words."""
    return REASONS[code].meaning


_HEAD: Final = """# Outcomes

Generated from the code's own table by `python -m products.remittances.outcomes`; change `products/remittances/outcomes.py` instead.

The answer to a webhook says only that it is stored. What became of it is its **state**, with a **reason** where there is
something to say. Partners read both at `GET /v1/deliveries/{id}`, managers with `mizan inbox list` and `mizan inbox show`.
Over `POST /v1/remittances` and `POST /v1/quotes` a remittance that can't be taken is refused at once, and the reason is the
member `reason` of the problem.

What is unallocated, parked or quarantined can be replayed: `mizan inbox replay`, see
[how to](../how-to/replay-deliveries.md). Except for `not_strict_json` and `invalid_event`: these were never accepted, so their
sender corrects them and sends them again.
"""


def render() -> str:
    """The reference page, as Markdown."""
    lines = [_HEAD, "## States", "", "| state | meaning |", "|---|---|"]
    lines += [f"| `{state}` | {meaning} |" for state, meaning in STATES.items()]
    lines += ["", "## Reasons", "", "| reason | state | meaning | what to do |", "|---|---|---|---|"]
    lines += [
        f"| `{one.code}` | {', '.join(one.states)} | {one.meaning} | {one.remedy} |"
        for one in REASONS.values()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
