"""How a sponsor's share moves: whatever came before, it ends where entitlement and settlement say, and adds up."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from products.savings.shares import Moves, Share, fund, move

amounts = st.integers(0, 1_000)
shares = st.builds(Share, committed=amounts, unvested=amounts, vested=amounts, awaiting=amounts)


@dataclass
class Accounts:
    """What the moves' postings do to the sponsor's and the member's accounts."""

    uncommitted: int
    committed: int
    unvested: int
    awaiting: int

    def take(self, moves: Moves) -> None:
        """Each step as the ledger posts it, in its order: no account is ever overdrawn on the way."""
        self.uncommitted -= moves.commit
        self.committed += moves.commit - moves.release
        self.uncommitted += moves.release + moves.reclaim
        self.unvested -= moves.reclaim
        assert min(self.uncommitted, self.committed, self.unvested) >= 0
        self.unvested -= moves.ungrant
        self.committed += moves.ungrant - moves.grant
        self.unvested += moves.grant
        self.awaiting += moves.enqueue - moves.dequeue
        assert min(self.committed, self.unvested, self.awaiting) >= 0


@given(shares, amounts, amounts, st.booleans())
def test_a_share_ends_at_its_entitlement_and_no_amount_is_negative(
    share: Share, entitled: int, grantable: int, funded: bool
) -> None:
    moved, moves = move(share, entitled=entitled, grantable=grantable, funded=funded)
    assert min(moved.committed, moved.unvested, moved.vested, moved.awaiting) >= 0
    assert all(amount >= 0 for amount in vars_of(moves))
    assert moved.entitled == max(entitled, moved.vested)
    assert moves.excess == max(0, moved.vested - entitled)


@given(shares, amounts, amounts, st.booleans())
def test_what_is_vested_never_moves(share: Share, entitled: int, grantable: int, funded: bool) -> None:
    moved, _ = move(share, entitled=entitled, grantable=grantable, funded=funded)
    assert moved.vested == share.vested


@given(shares, amounts, amounts, st.booleans())
def test_the_postings_are_exactly_the_difference(
    share: Share, entitled: int, grantable: int, funded: bool
) -> None:
    moved, moves = move(share, entitled=entitled, grantable=grantable, funded=funded)
    accounts = Accounts(10_000, share.committed, share.unvested, share.awaiting)
    accounts.take(moves)
    assert (accounts.committed, accounts.unvested, accounts.awaiting) == (
        moved.committed,
        moved.unvested,
        moved.awaiting,
    )
    assert (
        accounts.uncommitted + accounts.committed + accounts.unvested
        == 10_000 + share.committed + share.unvested
    )


@given(shares, amounts, amounts, st.booleans(), st.booleans())
def test_moving_to_the_same_place_again_moves_nothing(
    share: Share, entitled: int, grantable: int, funded: bool, funded_then: bool
) -> None:
    moved, _ = move(share, entitled=entitled, grantable=grantable, funded=funded)
    again, moves = move(moved, entitled=entitled, grantable=grantable, funded=funded_then)
    assert again == moved
    assert vars_of(moves)[:-1] == (0,) * 7


@given(shares, amounts, amounts, st.booleans())
def test_no_more_is_granted_than_settlement_earns(
    share: Share, entitled: int, grantable: int, funded: bool
) -> None:
    moved, moves = move(share, entitled=entitled, grantable=grantable, funded=funded)
    assert moved.unvested + moved.vested <= max(share.vested, min(grantable, entitled))
    if moved.committed:  # what is committed waits only for settlement
        assert moved.unvested + moved.vested >= min(grantable, entitled)
    assert not (moves.grant and moves.ungrant)


@given(shares, st.integers(1, 1_000), amounts)
def test_without_money_nothing_is_committed(share: Share, rise: int, grantable: int) -> None:
    moved, moves = move(share, entitled=share.entitled + rise, grantable=grantable, funded=False)
    assert (moves.commit, moves.enqueue) == (0, rise)
    assert moved.awaiting == share.awaiting + rise


@given(shares, st.integers(1, 1_000))
def test_a_fall_takes_what_awaits_funds_first_and_what_is_granted_last(share: Share, fall: int) -> None:
    entitled = max(0, share.entitled - fall)
    granted = share.unvested + share.vested
    _, moves = move(share, entitled=entitled, grantable=granted, funded=True)
    if moves.release:
        assert moves.dequeue == share.awaiting
    if moves.reclaim:
        assert moves.release == share.committed


@given(shares, amounts, amounts)
def test_funding_serves_only_what_awaits_and_keeps_entitlement(
    share: Share, amount: int, grantable: int
) -> None:
    funded, moves = fund(share, amount, grantable=grantable)
    assert moves.commit == moves.dequeue == min(amount, share.awaiting)
    assert funded.entitled == share.entitled
    assert funded.awaiting == share.awaiting - moves.commit


@given(shares, amounts, amounts)
def test_the_postings_of_funding_are_exactly_the_difference(share: Share, amount: int, settled: int) -> None:
    grantable = share.unvested + share.vested + settled  # settlement never falls while money is awaited
    funded, moves = fund(share, amount, grantable=grantable)
    accounts = Accounts(10_000, share.committed, share.unvested, share.awaiting)
    accounts.take(moves)
    assert (accounts.committed, accounts.unvested, accounts.awaiting) == (
        funded.committed,
        funded.unvested,
        funded.awaiting,
    )


def vars_of(moves: Moves) -> tuple[int, ...]:
    return (
        moves.commit,
        moves.release,
        moves.grant,
        moves.ungrant,
        moves.reclaim,
        moves.enqueue,
        moves.dequeue,
        moves.excess,
    )
