"""What an agency answers to a remittal, line by line: accepted, rejected, or corrected. All of an answer is taken, or nothing.

Rejected money, and what is accepted less, returns to the member, unapplied; the line says why. What an agency says beyond
what it was sent is *claimed*: it moves no money, and is shown until somebody pays it. A corrected number is kept, sealed, and
is the member's from then on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from ledger import periods
from ledger.database import Tx, cursor
from ledger.ids import public_id
from ledger.outbox import Message, publish
from ledger.posting import Posting, Transaction
from products import chart
from products.keyring import field_place
from products.members import documents, registry
from products.members.documents import NewDocument
from products.posting import post_whole
from products.remittals.agencies import agency_of
from products.remittals.layouts import Answered, AnswerRefused, Totals
from products.remittals.making import RemittalClosed
from products.remittals.paying import Accounts, accounts_of
from products.remittals.queries import LINE_TABLE, Line, Remittal, lines_of, remittal_of
from products.remittances.context import Books
from products.remittances.record import lock_contributions

REASON_CHARACTERS_MAX: Final = 200
NUMBER_CHARACTERS_MAX: Final = 64
AMOUNT_CORRECTED: Final = "amount_corrected"
"""The reason of a line whose amount the agency corrected without saying why."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an answer did, in minor units. ``replayed``: it was taken before, and nothing changed."""

    lines: int
    accepted: int
    returned: int
    claimed: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class _Judged:
    """One line with what the agency says of it."""

    line: Line
    said: Answered
    accepted: int
    returned: int
    claimed: int
    reason: str | None


def digest_of(rows: Sequence[Answered], totals: Totals) -> bytes:
    """The SHA-256 of an answer's content, whatever file or request it came in."""
    told = "\n".join(
        f"{one.position}|{one.outcome}|{one.accepted}|{one.reason}|{one.number}"
        for one in sorted(rows, key=lambda one: one.position)
    )
    return hashlib.sha256(f"{totals.lines}|{totals.accepted}\n{told}".encode()).digest()


def take(tx: Tx, books: Books, remittal_id: UUID, rows: Sequence[Answered], totals: Totals) -> Taken:
    """Take in an agency's answer; the same again changes nothing.

    An answer may cover some of the lines, and others later. Raises `NotFound`, `RemittalClosed` before it is sent, and
    `AnswerRefused`, which names the difference, for an answer that does not fit what was sent or was answered.
    """
    remittal = remittal_of(tx, remittal_id, lock=True)
    if remittal.state not in ("sent", "cleared"):
        raise RemittalClosed(f"the remittal is {remittal.state}: there is nothing to answer")
    digest = digest_of(rows, totals)
    known = tx.execute(
        text(
            "SELECT lines, accepted, returned, claimed FROM products.remittal_answer"
            " WHERE remittal_id = :id AND digest = :digest"
        ),
        {"id": remittal_id, "digest": digest},
    ).one_or_none()
    if known is not None:
        return Taken(known.lines, known.accepted, known.returned, known.claimed, replayed=True)
    judged = _judge({line.position: line for line in lines_of(tx, remittal_id)}, rows, totals)
    now = books.clock.now()
    returned = [one for one in judged if one.returned]
    accounts = accounts_of(tx, remittal)
    _return(tx, books, remittal, accounts, returned, now)
    _write(tx, books, judged, now)
    _correct_numbers(tx, books, remittal, [one for one in judged if one.said.number is not None], now)
    publish(tx, [_message(remittal, one) for one in returned])
    taken = Taken(
        len(judged),
        sum(one.accepted for one in judged),
        sum(one.returned for one in judged),
        sum(one.claimed for one in judged),
    )
    tx.execute(
        text(
            "INSERT INTO products.remittal_answer VALUES (:id, :digest, :programme, :lines, :accepted, :returned,"
            " :claimed, :now)"
        ),
        {
            "id": remittal_id,
            "digest": digest,
            "programme": remittal.programme_id,
            "lines": taken.lines,
            "accepted": taken.accepted,
            "returned": taken.returned,
            "claimed": taken.claimed,
            "now": now,
        },
    )
    return taken


def _judge(lines: Mapping[int, Line], rows: Sequence[Answered], totals: Totals) -> list[_Judged]:
    if not rows:
        raise AnswerRefused("the answer has no line")
    judged: dict[int, _Judged] = {}
    for said in sorted(rows, key=lambda one: one.position):
        line = lines.get(said.position)
        if line is None:
            raise AnswerRefused(f"line {said.position} was never sent: there are {len(lines)}")
        if said.position in judged:
            raise AnswerRefused(f"line {said.position} is answered twice")
        judged[said.position] = _judged(line, said)
    accepted = sum(one.accepted + one.claimed for one in judged.values())
    if totals.lines is not None and totals.lines != len(judged):
        raise AnswerRefused(f"the answer says {totals.lines} lines and has {len(judged)}")
    if totals.accepted is not None and totals.accepted != accepted:
        difference = totals.accepted - accepted
        raise AnswerRefused(
            f"the answer says {totals.accepted} accepted, and its lines come to {accepted}: {difference} of difference,"
            " in minor units"
        )
    return list(judged.values())


def _judged(line: Line, said: Answered) -> _Judged:
    at = f"line {said.position}"
    if line.state != "sent":
        raise AnswerRefused(f"{at} was answered before: it is {line.state}")
    if len(said.reason or "") > REASON_CHARACTERS_MAX or len(said.number or "") > NUMBER_CHARACTERS_MAX:
        raise AnswerRefused(f"{at}: the reason or the number is too long")
    if said.outcome == "accepted":
        if said.accepted not in (None, line.amount):
            raise AnswerRefused(
                f"{at} is accepted with {said.accepted}, and {line.amount} was sent: it is corrected"
            )
        return _Judged(line, said, line.amount, 0, 0, None)
    if said.outcome == "rejected":
        if not said.reason:
            raise AnswerRefused(f"{at} is rejected without a reason")
        if said.accepted:
            raise AnswerRefused(f"{at} is rejected, and {said.accepted} of it accepted: it is corrected")
        return _Judged(line, said, 0, line.amount, 0, said.reason)
    meant = line.amount if said.accepted is None else said.accepted
    if meant == line.amount and said.number is None:
        raise AnswerRefused(f"{at} is corrected, and nothing of it is another: it is accepted")
    accepted = min(meant, line.amount)
    reason = said.reason or (AMOUNT_CORRECTED if meant != line.amount else None)
    return _Judged(line, said, accepted, line.amount - accepted, meant - accepted, reason)


def _return(
    tx: Tx,
    books: Books,
    remittal: Remittal,
    accounts: Accounts,
    returned: Sequence[_Judged],
    now: datetime,
) -> None:
    """Money comes back from the agency to its fund's bank, and is the members', unapplied, in the savers' fund."""
    if not returned:
        return
    cur = cursor(tx)
    # as whoever counts their instalments: what is taken out of them is counted before or after, not in between
    cur.execute(
        "SELECT id FROM products.enrolment WHERE id = ANY (%b) ORDER BY id FOR NO KEY UPDATE",
        (sorted({one.line.enrolment_id for one in returned}),),
    )
    _unapply(tx, remittal, accounts, {one.line.id: one.returned for one in returned})
    cur.execute(
        "SELECT id, unapplied_account FROM products.member WHERE id = ANY (%b)",
        (sorted({one.line.member_id for one in returned}),),
    )
    unapplied: dict[UUID, UUID] = dict(cur.fetchall())
    funds = sorted({remittal.fund_id, accounts.savers})
    on = periods.open_day(tx, funds, periods.effective_day(now, accounts.time_zone))
    batch = []
    for one in returned:
        reference = f"remittal:{remittal.id}:returned:{one.line.position}"
        amount, currency = one.returned, remittal.currency
        batch.append(
            Transaction(
                reference=reference,
                kind="remittal_returned",
                effective_on=on,
                postings=(
                    Posting(accounts.bank, accounts.due_to, amount, currency),
                    Posting(accounts.savers_due_from, unapplied[one.line.member_id], amount, currency),
                ),
                digest=hashlib.sha256(f"{reference}|{amount}".encode()).digest(),
                details={"remittal": remittal.public_id, "line": one.line.position},
            )
        )
    post_whole(tx, batch, clock=books.clock)


def _unapply(tx: Tx, remittal: Remittal, accounts: Accounts, returned: Mapping[UUID, int]) -> None:
    """The contributions of returned lines become unapplied money of their members; of a line in part, the latest first.

    Each keeps the line that it travelled in, which says why. What a partner owes for it, or gets back if the remittance is
    reversed, lies in the savers' fund from then on.
    """
    cur = cursor(tx)
    cur.execute(
        """SELECT c.remittal_line, c.remittance, c.position, c.amount
           FROM products.remittal_line l
           JOIN products.contribution c ON c.enrolment_id = l.enrolment_id AND c.remittal_line = l.id
           WHERE l.id = ANY (%b) ORDER BY c.remittal_line, c.contributed_at DESC, c.remittance, c.position""",
        (list(returned),),
    )
    left = dict(returned)
    moved: list[tuple[UUID, int, int]] = []
    for line, remittance, position, amount in cur.fetchall():
        part = min(amount, left[line])
        if part:
            left[line] -= part
            moved.append((remittance, position, part))
    short = {line for line, missing in left.items() if missing}
    if short:
        raise LookupError(f"{len(short)} lines of {remittal.public_id} have lost their contributions")
    lock_contributions(tx, [(remittance, position) for remittance, position, _ in moved])
    columns = [list(column) for column in zip(*moved, strict=True)]
    names = {
        "r": columns[0],
        "p": columns[1],
        "n": columns[2],
        "savers": accounts.savers,
        "due_from": chart.DUE_FROM_FUNDS.name,
        "prefund": chart.PARTNER_PREFUND.name,
    }
    # what returns in part is two contributions from then on
    cur.execute(
        f"""{_MOVED}, last AS (
               SELECT remittance, max(position) AS position FROM products.contribution
               WHERE remittance = ANY (%(r)s::uuid[]) GROUP BY remittance
           )
           INSERT INTO products.contribution (remittance, position, partner_id, programme_id, destination, member_id, fund_id,
               debited_account, credited_account, amount, currency, contributed_at, contributed_on, state, owed, settlement_id,
               collected_on, fee, guaranteed, settlement_part, remittal_line)
           SELECT m.remittance,
                  (last.position + row_number() OVER (PARTITION BY m.remittance ORDER BY m.position))::smallint,
                  m.partner_id, m.programme_id, 'unapplied', m.unapplied_member, %(savers)s, m.debited, m.unapplied, m.returned,
                  m.currency, m.contributed_at, m.contributed_on, m.state, m.owed, m.settlement_id, m.collected_on,
                  m.fee - least(m.fee, m.amount - m.returned), m.guaranteed, m.settlement_part, m.remittal_line
           FROM moved m JOIN last ON last.remittance = m.remittance WHERE m.returned < m.amount""",
        names,
    )
    cur.execute(
        f"""{_MOVED}
           UPDATE products.contribution c
           SET amount = CASE WHEN m.returned < m.amount THEN m.amount - m.returned ELSE m.amount END,
               fee = CASE WHEN m.returned < m.amount THEN least(m.fee, m.amount - m.returned) ELSE m.fee END,
               destination = CASE WHEN m.returned < m.amount THEN m.destination ELSE 'unapplied' END,
               product = CASE WHEN m.returned < m.amount THEN m.product END,
               enrolment_id = CASE WHEN m.returned < m.amount THEN m.enrolment_id END,
               fund_id = CASE WHEN m.returned < m.amount THEN m.fund_id ELSE %(savers)s END,
               debited_account = CASE WHEN m.returned < m.amount THEN m.debited_account ELSE m.debited END,
               credited_account = CASE WHEN m.returned < m.amount THEN m.credited_account ELSE m.unapplied END
           FROM moved m WHERE c.remittance = m.remittance AND c.position = m.position""",
        names,
    )
    if cur.rowcount != len(moved):
        raise LookupError("a partner has no account in the savers' fund")
    cur.execute(
        """UPDATE products.remittance r SET unapplied = r.unapplied + t.n
           FROM (SELECT r, sum(n)::bigint AS n FROM unnest(%b::uuid[], %b::bigint[]) AS t (r, n) GROUP BY r) t
           WHERE r.id = t.r""",
        (columns[0], columns[2]),
    )


_MOVED: Final = """
    WITH moved AS MATERIALIZED (
        SELECT c.*, t.n AS returned, debited.id AS debited, member.id AS unapplied_member,
               member.unapplied_account AS unapplied
        FROM unnest(%(r)s::uuid[], %(p)s::smallint[], %(n)s::bigint[]) AS t (r, p, n)
        JOIN products.contribution c ON c.remittance = t.r AND c.position = t.p
        JOIN products.enrolment e ON e.id = c.enrolment_id JOIN products.member member ON member.id = e.member_id
        JOIN products.partner p ON p.id = c.partner_id
        JOIN ledger.account was ON was.id = c.debited_account
        JOIN ledger.account debited ON debited.fund_id = %(savers)s AND debited.owner = p.slug
             AND debited.currency = c.currency
             AND debited.code = CASE was.code WHEN %(due_from)s THEN %(prefund)s ELSE was.code END
    )
"""
"""The contributions that return, with what of each, and their accounts in the savers' fund."""


def _write(tx: Tx, books: Books, judged: Sequence[_Judged], now: datetime) -> None:
    named = [one for one in judged if one.said.number is not None]
    ciphers = registry.ciphers_of(tx, books.keyring, {one.line.member_id for one in named})

    def sealed(one: _Judged) -> bytes | None:
        cipher = ciphers.get(one.line.member_id)
        if one.said.number is None or cipher is None:
            return None
        return cipher.encrypt(one.said.number, field_place(LINE_TABLE, "corrected_number", one.line.id))

    cursor(tx).execute(
        """UPDATE products.remittal_line l
           SET state = t.state, accepted = t.accepted, claimed = t.claimed, reason = t.reason, corrected_number = t.number,
               answered_at = %s
           FROM unnest(%b::uuid[], %b::text[], %b::bigint[], %b::bigint[], %b::text[], %b::bytea[])
                AS t (id, state, accepted, claimed, reason, number) WHERE l.id = t.id""",
        (
            now,
            [one.line.id for one in judged],
            [one.said.outcome for one in judged],
            [one.accepted for one in judged],
            [one.claimed for one in judged],
            [one.reason for one in judged],
            [sealed(one) for one in judged],
        ),
    )


def _correct_numbers(
    tx: Tx, books: Books, remittal: Remittal, named: Sequence[_Judged], now: datetime
) -> None:
    """A number that the agency corrects takes the place of the one on record, for who is still a member."""
    if not named:
        return
    agency = agency_of(tx, remittal.programme, remittal.agency)
    corridors = books.programmes.versions(tx, remittal.programme_id)[-1].programme.corridors
    usual = next((country for one in corridors for country in one.destinations), "XX")
    rows = cursor(tx).execute(
        """SELECT l.member_id, l.id FROM products.member_link l
           JOIN unnest(%b::uuid[], %b::uuid[]) AS t (m, p) ON l.member_id = t.m AND l.partner_id = t.p
           JOIN products.member m ON m.id = l.member_id AND m.wrapped_key IS NOT NULL WHERE l.ended_at IS NULL""",
        ([one.line.member_id for one in named], [one.line.partner_id for one in named]),
    )
    links: dict[UUID, UUID] = dict(rows.fetchall())
    for one in named:
        if one.said.number is None or one.line.member_id not in links:
            continue
        member = registry.find(tx, books.keyring, links[one.line.member_id])
        cipher = registry.cipher_of(tx, books.keyring, member)
        country = usual
        for known in documents.documents_of(tx, cipher, member.member_id):
            if known.type == agency.number_document and known.ended_at is None:
                country = known.country
                documents.end(tx, member, known.id, now)
        corrected = NewDocument(agency.number_document, country, one.said.number)
        documents.add(tx, books.keyring, cipher, member, corrected, now)


def _message(remittal: Remittal, one: _Judged) -> Message:
    """What is told of a line whose money came back; the reason stays with the line, where the member reads it."""
    return Message(
        "remittal.returned",
        str(one.line.enrolment_id),
        {
            "enrolment": public_id("enr", one.line.enrolment_id),
            "remittal": remittal.public_id,
            "line": one.line.position,
            "agency": remittal.agency,
            "outcome": one.said.outcome,
            "returned": {"amount": one.returned, "currency": remittal.currency},
        },
    )
