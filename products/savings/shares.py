"""Where one sponsor's share of a member's match stands, and how it moves when entitlement or settlement change.

Pure: a share and two targets in, the new share and the amounts to post out. All amounts are minor units of the
programme's currency.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Share:
    """One sponsor's part of one entitlement: their sum is what the member is entitled to from this sponsor.

    ``certified`` is what a sponsor in arrears has certified of it, wherever it stands: that never falls by itself.
    """

    committed: int = 0
    unvested: int = 0
    vested: int = 0
    awaiting: int = 0
    certified: int = 0

    @property
    def entitled(self) -> int:
        """committed + unvested + vested + awaiting."""
        return self.committed + self.unvested + self.vested + self.awaiting


@dataclass(frozen=True, slots=True)
class Moves:
    """What to post and to queue. Each amount is non-negative.

    ``commit``: uncommitted → committed · ``release``: committed → uncommitted · ``grant``: committed → unvested ·
    ``ungrant``: unvested → committed · ``reclaim``: unvested → uncommitted · ``enqueue`` / ``dequeue``: awaiting
    funds · ``excess``: all that is vested or certified beyond entitlement, for approval.
    """

    commit: int = 0
    release: int = 0
    grant: int = 0
    ungrant: int = 0
    reclaim: int = 0
    enqueue: int = 0
    dequeue: int = 0
    excess: int = 0


def move(share: Share, *, entitled: int, grantable: int, funded: bool) -> tuple[Share, Moves]:
    """Bring a share to ``entitled``, with as much granted as settled contributions earn (``grantable``).

    New entitlement is committed when the sponsor's fund is open (``funded``), else it awaits funds. A fall takes
    from what awaits first, then from what is committed, then from what is unvested; what is vested never falls by
    itself, nor what is certified, and is reported as ``excess``.
    """
    committed, unvested, vested, awaiting = share.committed, share.unvested, share.vested, share.awaiting
    commit = release = grant = ungrant = reclaim = enqueue = dequeue = 0

    rise = entitled - share.entitled
    if rise > 0:
        if funded:
            commit, committed = rise, committed + rise
        else:
            enqueue, awaiting = rise, awaiting + rise
    movable = committed + unvested + vested + awaiting - max(vested, share.certified)
    fall = min(max(0, -rise), max(0, movable))
    excess = max(0, -rise) - fall
    dequeue = min(fall, awaiting)
    awaiting, fall = awaiting - dequeue, fall - dequeue
    release = min(fall, committed)
    committed, fall = committed - release, fall - release
    reclaim = min(fall, unvested)
    unvested, fall = unvested - reclaim, fall - reclaim

    granted_target = min(grantable, entitled)
    wanted = granted_target - unvested - vested
    if wanted > 0:
        grant = min(wanted, committed)
        committed, unvested = committed - grant, unvested + grant
    elif wanted < 0:
        ungrant = min(-wanted, unvested)
        committed, unvested = committed + ungrant, unvested - ungrant

    moved = replace(share, committed=committed, unvested=unvested, vested=vested, awaiting=awaiting)
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
    left = share.committed + share.unvested + share.vested - amount
    certified = min(amount, max(0, share.certified - left))
    lowered = replace(
        share,
        committed=share.committed - committed,
        unvested=share.unvested - unvested,
        vested=share.vested - vested,
        certified=share.certified - certified,
    )
    return lowered, Lowered(committed, unvested, vested, certified)
