"""How a sponsor's share moves: whatever came before, it ends where entitlement and settlement say, and adds up."""

from dataclasses import astuple, dataclass, replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from products.savings.shares import Moves, Share, forfeit, fund, losable, move, restore, ungranted, vest

amounts = st.integers(0, 1_000)


@st.composite
def any_share(draw: st.DrawFn) -> Share:
    """A share as it may stand: no more of it is certified than was committed."""
    committed, unvested, vested, awaiting, forfeited = (draw(amounts) for _ in range(5))
    share = Share(committed, unvested, vested, awaiting, forfeited=forfeited)
    return replace(share, certified=draw(st.integers(0, share.entitled - share.awaiting)))


shares = any_share()


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
    assert min(astuple(moves)) >= 0
    fixed = max(share.vested + share.forfeited, share.certified)
    assert moved.entitled == (max(entitled, fixed) if entitled < share.entitled else entitled)
    assert moves.excess == max(0, moved.standing - entitled)


@given(shares, amounts, amounts, st.booleans())
def test_what_is_vested_or_forfeited_never_moves(
    share: Share, entitled: int, grantable: int, funded: bool
) -> None:
    moved, _ = move(share, entitled=entitled, grantable=grantable, funded=funded)
    assert (moved.vested, moved.forfeited) == (share.vested, share.forfeited)


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
    assert astuple(replace(moves, excess=0)) == (0,) * 9


@given(shares, amounts, amounts, st.booleans())
def test_no_more_is_granted_than_settlement_earns(
    share: Share, entitled: int, grantable: int, funded: bool
) -> None:
    moved, moves = move(share, entitled=entitled, grantable=grantable, funded=funded)
    assert moved.met <= max(share.vested + share.forfeited, min(grantable, entitled))
    if moved.committed:  # what is committed waits only for settlement
        assert moved.met >= min(grantable, entitled)
    assert not (moves.grant and moves.ungrant)


@given(shares, st.integers(1, 1_000), amounts)
def test_without_money_nothing_is_committed(share: Share, rise: int, grantable: int) -> None:
    moved, moves = move(share, entitled=share.entitled + rise, grantable=grantable, funded=False)
    assert (moves.commit, moves.enqueue) == (0, rise)
    assert moved.awaiting == share.awaiting + rise


@given(shares, st.integers(1, 1_000))
def test_a_fall_takes_what_awaits_funds_first_and_what_is_granted_last(share: Share, fall: int) -> None:
    entitled = max(0, share.entitled - fall)
    _, moves = move(share, entitled=entitled, grantable=share.met, funded=True)
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
    grantable = share.met + settled  # settlement never falls while money is awaited
    funded, moves = fund(share, amount, grantable=grantable)
    accounts = Accounts(10_000, share.committed, share.unvested, share.awaiting)
    accounts.take(moves)
    assert (accounts.committed, accounts.unvested, accounts.awaiting) == (
        funded.committed,
        funded.unvested,
        funded.awaiting,
    )


@given(shares, st.fractions(0, 1), st.fractions(0, 1))
def test_vesting_goes_by_steps_and_only_forward(share: Share, one: Fraction, other: Fraction) -> None:
    first, second = sorted([one, other])
    moved, now = vest(share, first)
    later, more = vest(moved, second)
    assert min(now, more) >= 0
    assert later.entitled == share.entitled
    assert later == vest(share, second)[0]  # a step that was missed is made up for
    assert vest(later, second) == (later, 0)
    granted = share.unvested + share.vested
    assert later.vested == max(share.vested, granted * second.numerator // second.denominator)
    assert vest(share, Fraction(1))[0].unvested == 0


@given(shares, amounts, amounts)
def test_what_is_lost_counts_as_met_and_is_not_granted_again(share: Share, amount: int, earned: int) -> None:
    amount = min(amount, losable(share, earned=earned))
    moved, moves = forfeit(share, amount, earned=earned)
    assert min(astuple(moved)) >= 0
    assert (moved.entitled, moved.vested) == (share.entitled, share.vested)
    assert moved.forfeited == share.forfeited + amount
    assert moves.dequeue + moves.release + moves.forfeit == amount
    assert losable(moved, earned=earned) == losable(share, earned=earned) - amount
    again, nothing = move(moved, entitled=moved.entitled, grantable=min(earned, moved.entitled), funded=True)
    assert nothing.commit == nothing.enqueue == 0
    assert again.forfeited == moved.forfeited
    accounts = Accounts(10_000, share.committed, share.unvested, share.awaiting)
    accounts.take(replace(moves, reclaim=moves.forfeit))
    assert (accounts.committed, accounts.unvested, accounts.awaiting) == (
        moved.committed,
        moved.unvested,
        moved.awaiting,
    )


@given(shares, amounts, amounts, amounts)
def test_what_comes_back_awaits_funds_as_far_as_it_is_still_earned(
    share: Share, amount: int, earned: int, entitled: int
) -> None:
    amount = min(amount, losable(share, earned=earned))
    lost, _ = forfeit(share, amount, earned=earned)
    back, moves = restore(lost, amount, entitled=share.entitled)
    assert back.entitled == share.entitled
    assert (back.forfeited, back.vested, moves.enqueue) == (share.forfeited, share.vested, amount)
    fallen, _ = move(lost, entitled=entitled, grantable=0, funded=True)
    less, _ = restore(fallen, amount, entitled=entitled)
    assert less.entitled >= entitled
    assert less.standing <= max(entitled, fallen.standing)


@given(shares, amounts)
def test_what_waits_to_be_granted_is_never_more_than_is_there(share: Share, earned: int) -> None:
    assert 0 <= ungranted(share, earned=earned) <= share.committed + share.awaiting
