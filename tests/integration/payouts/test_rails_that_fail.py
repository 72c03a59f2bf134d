"""What goes wrong at a rail: time-outs, outages, workers that die, reports that come early, twice, late, or can't be true."""

from datetime import timedelta

from integrations.rails.breaker import FAILURES_MAX, OPEN_FOR
from ledger.ids import new_id
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from products.payouts import registry as rails
from products.payouts import reports, resolve, submission
from products.payouts import tie as tying
from products.payouts.rails import Report
from products.payouts.reports import Told
from tests.conftest import Databases
from tests.integration.payouts.paying import Paying

LEASE = timedelta(seconds=30)


def say(paying: Paying, *said: Report) -> list[Told]:
    """What the rail tells unasked."""
    return paying.databases.worker.run(
        lambda tx: reports.apply(tx, paying.world.books, paying.rail, said, source="callback")
    )


def ties(paying: Paying) -> tying.Tie:
    """The books beside the simulated rail's own list."""
    adapter = paying.work._rails.adapter(paying.rail)
    now = paying.clock.now() + timedelta(seconds=1)
    since = now - timedelta(days=60)
    listed = list(adapter.listed(since, now))
    with paying.databases.worker.read() as tx:
        return tying.tie(tx, paying.rail, listed, since=since, until=now)


def test_a_time_out_is_unknown_and_asked_about_until_known_and_no_second_attempt_leaves(
    paying: Paying,
) -> None:
    person = paying.person()
    payee = paying.payee(person)
    paid, never_arrived, failed = (paying.approved(person, payee, amount) for amount in (1_041, 1_042, 1_043))
    paying.work.submit()
    assert [paying.state(one) for one in (paid, never_arrived, failed)] == ["unknown: no_answer"] * 3
    first = paying.attempt(never_arrived)["id"]
    assert paying.work.ask() == 0  # not before the rail says that it may be asked
    paying.clock.advance(timedelta(seconds=5))
    paying.work.ask()
    assert [paying.state(one) for one in (paid, failed)] == ["paid", "failed: refused"]
    # it may still arrive: the rail forgets after ten seconds, and until then nothing is sent again
    assert (paying.state(never_arrived), paying.work.submit()) == ("unknown: no_answer", 0)
    paying.clock.advance(timedelta(minutes=1))
    paying.work.ask()
    paying.clock.advance(timedelta(minutes=1))
    assert paying.work.submit() == 1
    attempt = paying.attempt(never_arrived)
    assert (attempt["id"], attempt["sendings"], paying.state(never_arrived)) == (first, 2, "paid")
    assert ties(paying).ties


def test_a_worker_that_dies_after_the_books_and_before_the_answer_leaves_what_is_asked_about(
    paying: Paying,
) -> None:
    person = paying.person()
    payee = paying.payee(person)
    called, uncalled = paying.approved(person, payee, 1_000), paying.approved(person, payee, 2_000)
    books, rail = paying.world.books, paying.rail
    prepared = paying.databases.worker.run(
        lambda tx: submission.prepare(tx, books, rail, limit=10, lease=LEASE)
    )
    assert prepared is not None
    adapter = paying.work._rails.adapter(rail)
    adapter.submit(prepared.batch, prepared.instructions[:1], prepared.asked_on)  # then it is killed
    assert [paying.state(one) for one in (called, uncalled)] == ["submitted"] * 2
    assert (paying.work.submit(), paying.work.ask()) == (0, 0)  # its lease runs
    paying.clock.advance(LEASE)
    paying.work.ask()
    states = {paying.state(called), paying.state(uncalled)}
    paying.clock.advance(timedelta(minutes=1))
    paying.work.ask()
    paying.work.submit()
    assert states == {"paid", "submitted"} or "paid" in states
    assert [paying.state(one) for one in (called, uncalled)] == ["paid"] * 2
    (there,) = paying.rows(
        "SELECT count(*) AS n, sum(amount)::bigint AS amount FROM integrations.simulated_payment"
    )
    assert (there["n"], there["amount"]) == (2, 3_000)
    assert ties(paying).ties


def test_a_rail_that_is_down_queues_behind_its_breaker_and_is_probed_by_one(paying: Paying) -> None:
    person = paying.person()
    payee = paying.payee(person)
    down = paying.approved(person, payee, 1_071)
    for _ in range(FAILURES_MAX):
        paying.work.submit()
        paying.clock.advance(timedelta(seconds=10))
    assert paying.state(down) == "paid"  # it was let through before the breaker opened
    with paying.databases.worker.begin() as tx:
        tx.exec_driver_sql(
            "UPDATE products.rail_breaker SET failures = %s, opened_at = %s, probe_at = %s",
            (FAILURES_MAX, paying.clock.now(), paying.clock.now() + OPEN_FOR),
        )
    waiting = [paying.approved(person, payee, 1_000) for _ in range(3)]
    assert paying.work.submit() == 0
    paying.clock.advance(OPEN_FOR)
    assert paying.work.submit() == 3  # one to probe, and as it passed the rest
    assert {paying.state(one) for one in waiting} == {"paid"}
    (breaker,) = paying.rows("SELECT failures, opened_at FROM products.rail_breaker")
    assert (breaker["failures"], breaker["opened_at"]) == (0, None)


def test_a_breaker_opens_after_calls_in_a_row_that_the_network_failed(paying: Paying) -> None:
    person = paying.person()
    payee = paying.payee(person)
    for _ in range(FAILURES_MAX):
        paying.approved(person, payee, 1_071)
        paying.work.submit()
        paying.clock.advance(timedelta(milliseconds=10))
    (breaker,) = paying.rows("SELECT failures, opened_at IS NOT NULL AS opened FROM products.rail_breaker")
    assert (breaker["failures"], breaker["opened"]) == (FAILURES_MAX, True)
    later = paying.approved(person, payee, 1_000)
    assert (paying.work.submit(), paying.state(later)) == (0, "approved")
    paying.databases.worker.run(lambda tx: rails.pause(tx, "sim", paused=True, clock=paying.clock))
    paying.clock.advance(timedelta(minutes=5))
    assert paying.work.submit() == 0
    paying.databases.worker.run(lambda tx: rails.pause(tx, "sim", paused=False, clock=paying.clock))
    for _ in range(20):
        paying.work.submit()
        paying.work.ask()
        paying.clock.advance(timedelta(minutes=5))
    assert {row["state"] for row in paying.rows("SELECT state FROM products.payout")} == {"paid"}
    assert ties(paying).ties


def test_callbacks_come_before_the_answer_twice_out_of_order_and_for_nothing_known(paying: Paying) -> None:
    person = paying.person()
    payee = paying.payee(person)
    early, late = paying.approved(person, payee, 1_000), paying.approved(person, payee, 2_000)
    books, rail, now = paying.world.books, paying.rail, paying.clock.now()
    prepared = paying.databases.worker.run(
        lambda tx: submission.prepare(tx, books, rail, limit=10, lease=LEASE)
    )
    assert prepared is not None
    by_payout = {one.reference: one.attempt for one in prepared.instructions}
    first, second = by_payout.values()
    # before the answer, named by a reference that nobody has heard of yet
    told = say(paying, Report("paid", rail_reference="R-1", at=now), Report("paid", new_id(), "R-9", now))
    assert [one.outcome for one in told] == ["unmatched", "unmatched"]
    accepted = [Report("accepted", first, "R-1", now), Report("accepted", second, "R-2", now)]
    paying.databases.worker.run(lambda tx: reports.apply(tx, books, rail, accepted))
    assert {paying.state(early), paying.state(late)} == {"paid", "submitted"}
    hour = timedelta(hours=1)
    told = say(
        paying,
        Report("returned", second, "R-2", now + 2 * hour, reason="payee_closed"),
        Report("paid", second, "R-2", now + hour),
        Report("in_transit", second, "R-2", now),
        Report("returned", second, "R-2", now + 2 * hour, reason="payee_closed"),
    )
    assert [one.outcome for one in told] == ["applied", "outdated", "outdated", "repeated"]
    assert {paying.state(early), paying.state(late)} == {"paid", "returned: payee_closed"}
    kept = paying.rows("SELECT outcome, count(*)::int AS n FROM products.rail_report GROUP BY 1 ORDER BY 1")
    assert {row["outcome"]: row["n"] for row in kept} == {
        "applied": 2,
        "outdated": 2,
        "repeated": 1,
        "unmatched": 1,
    }


def test_what_cannot_be_true_as_well_is_never_guessed_and_two_managers_resolve_it(paying: Paying) -> None:
    person = paying.person()
    payee = paying.payee(person)
    payout = paying.approved(person, payee, 5_021)
    paying.work.submit()
    assert paying.state(payout) == "failed: payee_unknown"
    attempt, now = paying.attempt(payout)["id"], paying.clock.now()
    (told,) = say(paying, Report("paid", attempt, at=now + timedelta(hours=1)))
    assert (told.outcome, told.problem) == ("contradicts", "paid_after_failed")
    (told,) = say(paying, Report("paid", attempt, amount=4_000, currency="RWF"))
    assert told.problem == "amount_differs"
    assert (paying.state(payout), paying.row(payout)["problem"]) == (
        "failed: payee_unknown",
        "amount_differs",
    )
    spent = paying.approved(person, payee, 16_000)  # of the 20,000 that are there again
    paying.work.submit()
    assert paying.state(spent) == "paid"
    books = paying.world.books
    paying.databases.worker.run(lambda tx: resolve.resolve(tx, books, payout, "paid", actor="opr_2"))
    assert paying.state(payout) == "paid: taken_again"
    # 4,000 were still there; the member owes the rest
    assert paying.postings(payout)[-2:] == [
        ("payout_taken_again", "member_savings", "bank", 4_000),
        ("payout_taken_again", "member_receivable", "bank", 1_021),
    ]
    assert paying.row(payout)["problem"] is None
    # and it may come back after all, and be found paid once more: each time the money moves, and once
    back = Report("returned", attempt, at=now + timedelta(days=2), reason="payee_closed")
    assert [one.outcome for one in (*say(paying, back), *say(paying, back))] == ["applied", "repeated"]
    assert paying.postings(payout)[-1] == ("payout_returned", "bank", "member_savings", 5_021)
    assert paying.balance("member_savings") == 5_021
    paying.databases.worker.run(lambda tx: resolve.resolve(tx, books, payout, "paid", actor="opr_2"))
    assert (paying.state(payout), paying.balance("member_savings")) == ("paid: taken_again", 0)
    say(paying, back)
    assert (paying.state(payout), paying.balance("member_savings")) == ("returned: payee_closed", 5_021)
    paying.databases.worker.run(lambda tx: resolve.resolve(tx, books, payout, "stands", actor="opr_2"))


def test_what_a_rail_never_answers_is_resolved_by_hand(paying: Paying) -> None:
    person = paying.person()
    payee = paying.payee(person)
    payout = paying.approved(person, payee, 5_000)
    books = paying.world.books
    paying.databases.worker.run(lambda tx: submission.prepare(tx, books, paying.rail, limit=10, lease=LEASE))
    paying.databases.worker.run(lambda tx: resolve.resolve(tx, books, payout, "failed", actor="opr_2"))
    assert paying.state(payout) == "failed: other"
    assert paying.balance("member_savings") == 20_000
    paying.clock.advance(timedelta(days=1))
    assert (paying.work.ask(), paying.work.submit()) == (0, 0)


def test_the_tie_names_what_differs_from_the_rails_own_list(paying: Paying) -> None:
    person = paying.person()
    payee = paying.payee(person)
    paid = paying.approved(person, payee, 1_000)
    paying.work.submit()
    assert (ties(paying).ties, ties(paying).paid_theirs) == (True, 1_000)
    with paying.databases.worker.begin() as tx:
        tx.exec_driver_sql("UPDATE integrations.simulated_payment SET amount = 1001")
        tx.exec_driver_sql(
            "INSERT INTO integrations.simulated_payment SELECT %s, rail, batch_id, reference, 5, currency, 0, 1, made_at"
            " FROM integrations.simulated_payment",
            (new_id(),),
        )
    done = ties(paying)
    assert (done.ties, sorted(one.what for one in done.differences)) == (False, ["amount", "not ours"])
    assert {one.payout_id for one in done.differences} == {paid, None}


LIES = {
    "a payout that says paid and is not": "UPDATE products.payout SET state = 'paid' WHERE id = %(unknown)s",
    "a paid payout that is forgotten": "UPDATE products.payout SET state = 'approved' WHERE id = %(paid)s",
    "an attempt that says it came back": "UPDATE products.payout_attempt SET money = 'back' WHERE payout_id = %(paid)s",
    "a part that says more": "UPDATE products.payout_part SET amount = amount + 1 WHERE payout_id = %(paid)s",
    "a cancelled payout whose money is held": "UPDATE products.payout SET state = 'cancelled' WHERE id = %(held)s",
    "a payout that was struck off": "DELETE FROM products.payout_attempt WHERE payout_id = %(unknown)s",
}


def test_verify_finds_every_lie_about_payouts(databases: Databases, paying: Paying) -> None:
    person = paying.person()
    payee = paying.payee(person)
    ids = {
        "paid": paying.approved(person, payee, 1_000),
        "unknown": paying.approved(person, payee, 1_042),
        "held": paying.ask(person, payee, 2_000),
    }
    paying.work.submit()
    for lie, statement in LIES.items():
        with databases.owner.engine.connect() as tx:
            begun = tx.begin()
            tx.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            tx.exec_driver_sql(statement, ids)
            report = verify(tx, extra_checks=[check.run for check in PRODUCT_CHECKS])
            begun.rollback()
        assert not report.ok, lie
