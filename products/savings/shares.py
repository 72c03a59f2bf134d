"""Where one sponsor's share of a member's match stands, and how it moves when entitlement or settlement change.

Pure: a share and two targets in, the new share and the amounts to post out. All amounts are minor units of the
programme's currency.
"""

from dataclasses import dataclass, replace
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Share:
    """One sponsor's part of one entitlement: their sum is what the member is entitled to from this sponsor.

    ``certified`` is what a sponsor in arrears has certified of it, wherever it stands; ``vested`` all that ever vested, paid
    out or not; ``forfeited`` what was lost: none of them falls by itself, and so nothing is granted twice.
    """

    committed: int = 0
    unvested: int = 0
    vested: int = 0
    awaiting: int = 0
    certified: int = 0
    forfeited: int = 0

    @property
    def standing(self) -> int:
        """What the member has or will have of it: committed + unvested + vested + awaiting."""
        return self.committed + self.unvested + self.vested + self.awaiting

    @property
    def entitled(self) -> int:
        """What stands and what was forfeited."""
        return self.standing + self.forfeited

    @property
    def met(self) -> int:
        """What was granted, and what was lost: unvested + vested + forfeited."""
        return self.unvested + self.vested + self.forfeited


@dataclass(frozen=True, slots=True)
class Moves:
    """What to post and to queue. Each amount is non-negative.

    ``commit``: uncommitted → committed · ``release``: committed → uncommitted · ``grant``: committed → unvested ·
    ``ungrant``: unvested → committed · ``reclaim``: unvested → uncommitted · ``enqueue`` / ``dequeue``: awaiting
    funds · ``excess``: all that is vested or certified beyond entitlement, for approval · ``forfeit``: unvested → who
    receives it.
    """

    commit: int = 0
    release: int = 0
    grant: int = 0
    ungrant: int = 0
    reclaim: int = 0
    enqueue: int = 0
    dequeue: int = 0
    excess: int = 0
    forfeit: int = 0


def move(share: Share, *, entitled: int, grantable: int, funded: bool) -> tuple[Share, Moves]:
    """Bring a share to ``entitled``, with as much granted as settled contributions earn (``grantable``).

    New entitlement is committed when the sponsor's fund is open (``funded``), else it awaits funds. A fall takes
    from what awaits first, then from what is committed, then from what is unvested; what is vested never falls by
    itself, nor what is certified, and is reported as ``excess``. What was forfeited counts as met.
    """
    committed, unvested, vested, awaiting = share.committed, share.unvested, share.vested, share.awaiting
    commit = release = grant = ungrant = reclaim = enqueue = dequeue = 0

    rise = entitled - share.entitled
    if rise > 0:
        if funded:
            commit, committed = rise, committed + rise
        else:
            enqueue, awaiting = rise, awaiting + rise
    movable = share.entitled - max(vested + share.forfeited, share.certified)
    fall = min(max(0, -rise), max(0, movable))
    dequeue = min(fall, awaiting)
    awaiting, fall = awaiting - dequeue, fall - dequeue
    release = min(fall, committed)
    committed, fall = committed - release, fall - release
    reclaim = min(fall, unvested)
    unvested -= reclaim

    granted_target = min(grantable, entitled)
    wanted = granted_target - unvested - vested - share.forfeited
    if wanted > 0:
        grant = min(wanted, committed)
        committed, unvested = committed - grant, unvested + grant
    elif wanted < 0:
        ungrant = min(-wanted, unvested)
        committed, unvested = committed + ungrant, unvested - ungrant

    moved = replace(share, committed=committed, unvested=unvested, vested=vested, awaiting=awaiting)
    excess = max(0, moved.standing - entitled)
    return moved, Moves(commit, release, grant, ungrant, reclaim, enqueue, dequeue, excess)


def fund(share: Share, amount: int, *, grantable: int) -> tuple[Share, Moves]:
    """Commit ``amount`` of what awaits funds, and grant what settled contributions earn of it."""
    taken = min(amount, share.awaiting)
    funded = replace(share, committed=share.committed + taken, awaiting=share.awaiting - taken)
    moved, moves = move(funded, entitled=funded.entitled, grantable=grantable, funded=True)
    return moved, Moves(commit=taken, grant=moves.grant, dequeue=taken)


def certify(share: Share, amount: int, *, entitled: int, grantable: int) -> tuple[Share, Moves]:
    """Commit ``amount``, which the sponsor has certified, and grant what settled contributions earn of it.

    It takes the place of what awaits funds (``dequeue``). What has been taken back since it was claimed is certified all
    the same: it is ``excess``, for approval.
    """
    taken = min(amount, share.awaiting)
    certified = replace(
        share,
        committed=share.committed + amount,
        awaiting=share.awaiting - taken,
        certified=share.certified + amount,
    )
    moved, moves = move(certified, entitled=entitled, grantable=grantable, funded=True)
    return moved, replace(moves, dequeue=moves.dequeue + taken)


@dataclass(frozen=True, slots=True)
class Lowered:
    """Where an approved fall comes from; ``certified`` of it is the sponsor's claim that falls with it."""

    committed: int
    unvested: int
    vested: int
    certified: int


def lower(share: Share, amount: int) -> tuple[Share, Lowered]:
    """Take an approved excess out of a share: of what is committed first, then unvested, then vested.

    What was certified beyond what is left falls too. The amount is at most what the three come to.
    """
    committed = min(amount, share.committed)
    unvested = min(amount - committed, share.unvested)
    vested = amount - committed - unvested
    left = share.committed + share.unvested + share.vested + share.forfeited - amount
    certified = min(amount, max(0, share.certified - left))
    lowered = replace(
        share,
        committed=share.committed - committed,
        unvested=share.unvested - unvested,
        vested=share.vested - vested,
        certified=share.certified - certified,
    )
    return lowered, Lowered(committed, unvested, vested, certified)


def vest(share: Share, vested: Fraction) -> tuple[Share, int]:
    """Make so much of what was granted the member's own, all steps so far together; answers what vests now."""
    target = (share.unvested + share.vested) * vested.numerator // vested.denominator
    now = max(0, target - share.vested)
    return replace(share, unvested=share.unvested - now, vested=share.vested + now), now


def ungranted(share: Share, *, earned: int) -> int:
    """What settled contributions have earned (``earned``) and is not granted yet, for want of funds or of time."""
    return min(max(0, earned - share.met), share.awaiting + share.committed)


def losable(share: Share, *, earned: int) -> int:
    """What leaving may forfeit: all that settled contributions have earned and that has not vested."""
    return share.unvested + ungranted(share, earned=earned)


def forfeit(share: Share, amount: int, *, earned: int) -> tuple[Share, Moves]:
    """Lose ``amount``, at most what is `losable`: what awaits funds first, then what is committed, what is granted last."""
    waits = min(amount, ungranted(share, earned=earned))
    dequeue = min(waits, share.awaiting)
    lost = min(amount - waits, share.unvested)
    moved = replace(
        share,
        committed=share.committed - (waits - dequeue),
        unvested=share.unvested - lost,
        awaiting=share.awaiting - dequeue,
        forfeited=share.forfeited + waits + lost,
    )
    return moved, Moves(release=waits - dequeue, dequeue=dequeue, forfeit=lost)


def restore(share: Share, amount: int, *, entitled: int) -> tuple[Share, Moves]:
    """Give back what was forfeited, as far as the member still is entitled to it: it awaits funds, as anything new would."""
    freed = replace(share, forfeited=share.forfeited - amount)
    rise = max(0, entitled - freed.entitled)
    return replace(freed, awaiting=freed.awaiting + rise), Moves(enqueue=rise)
