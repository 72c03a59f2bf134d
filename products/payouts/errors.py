"""Why a payout is refused: each with a stable code, and what would change it."""

from datetime import date

from ledger.errors import Conflict


class PayoutRefused(Conflict):
    """A payout that can't be had as asked.

    ``reason`` is a stable code, ``until`` the first day on which it changes where that is known, ``available`` the minor
    units that could be had now.
    """

    code = "payout_refused"

    def __init__(
        self,
        detail: str,
        reason: str,
        *,
        until: date | None = None,
        available: int | None = None,
        pointer: str | None = None,
    ) -> None:
        super().__init__(detail, pointer=pointer)
        self.reason = reason
        self.until = until
        self.available = available


class NotAvailable(PayoutRefused):
    """More than the member may take out now: not settled yet, held by another payout, or locked by the programme's rules."""

    code = "payout_not_available"


class LimitReached(PayoutRefused):
    """A limit of the rail, or of how well it is known who the member is."""

    code = "payout_limit"


class NoRail(Conflict):
    """No rail of the programme pays this kind of payee, in this currency."""

    code = "no_rail"


class QueueFull(Conflict):
    """The rail is down or paused, and as many payouts wait for it as may."""

    code = "rail_queue_full"


class WrongState(Conflict):
    """The payout isn't at the step that this would take it from."""

    code = "payout_state"


class ApprovalDiffers(Conflict):
    """What was approved is not what is asked for: another payee, amount or fee."""

    code = "approval_differs"


class NameDiffers(Conflict):
    """The rail knows the payee by another name, and the approval doesn't say that this is right."""

    code = "payee_name_differs"
