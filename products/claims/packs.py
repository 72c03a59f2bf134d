"""Claim packs: what awaits a sponsor in arrears, listed, totalled and signed, for it to certify.

A pack takes what awaits one sponsor for contributions up to a day, one line for each enrolment's window, and what
approved adjustments have taken off earlier packs. It is signed with the deployment's seal key when it is made and never
changes after that (`file_of` writes it; `docs/examples/verify_claim_pack.py` reads it with public keys alone). The sponsor
sees members under pseudonyms that no other sponsor and no partner is told.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal, cast
from uuid import UUID

from sqlalchemy import Row, text

from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.horizon import SETTLED, START, Position
from ledger.ids import new_id, public_id
from ledger.periods import effective_day
from ledger.seals import SealingKey
from products.programmes.model import Match
from products.programmes.scalars import format_percent
from products.remittances.context import Books

FORMAT: Final = "mizan-claim-pack-1"
PREFIX: Final = "cpk"
LINES_MAX: Final = 100_000
"""Lines of match in one pack; what is beyond them waits for the next."""

State = Literal["made", "certified", "withdrawn"]


class ClaimOpen(Conflict):
    """The sponsor has a pack that is neither certified and booked nor withdrawn: nothing is claimed twice."""

    code = "claim_open"


class ClaimClosed(Conflict):
    """The pack was certified or withdrawn, or is another one than was certified."""

    code = "claim_closed"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: match that awaited the sponsor, or an adjustment (a negative amount). Minor units.

    ``contributions`` and ``contributed`` count what the window has up to the pack's last day; ``rate`` is what this
    sponsor pays of each matched unit, in per cent.
    """

    position: int
    kind: Literal["match", "adjustment"]
    enrolment_id: UUID
    window_start: date
    window_end: date
    product: str
    member: str
    account: str
    contributions: int
    contributed: int
    rate: str
    amount: int
    adjustment_id: UUID | None


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack as it stands. ``claimed`` − ``adjusted`` = ``total``, in minor units; ``digest`` is the file's SHA-256."""

    id: UUID
    programme_id: UUID
    programme: str
    sponsor_id: UUID
    sponsor: str
    number: int
    currency: str
    since: date | None
    through: date
    lines: int
    adjustments: int
    claimed: int
    adjusted: int
    digest: bytes
    key_id: str
    public_key: bytes
    signature: bytes
    made_at: datetime
    state: State
    certification: str | None
    certified_on: date | None
    certified_at: datetime | None
    booked_lines: int
    booked_at: datetime | None
    position: Position

    @property
    def total(self) -> int:
        """What the sponsor is asked to certify; negative where more was adjusted than is claimed."""
        return self.claimed - self.adjusted

    @property
    def public_id(self) -> str:
        """``cpk_…``."""
        return public_id(PREFIX, self.id)


def make(tx: Tx, books: Books, key: SealingKey, *, programme: str, sponsor: str, through: date) -> Pack:
    """Claim what awaits a sponsor in arrears for contributions up to and including a local day; signed.

    Raises `NotFound`, `InvalidInput` (prefunded, a day to come, nothing to claim), `ClaimOpen`.
    """
    found = tx.execute(
        text(
            "SELECT s.id, s.funding, s.programme_id, g.currency, g.time_zone FROM products.sponsor s"
            " JOIN products.programme g ON g.id = s.programme_id"
            " WHERE g.slug = :programme AND s.slug = :sponsor FOR NO KEY UPDATE OF s"
        ),
        {"programme": programme, "sponsor": sponsor},
    ).one_or_none()
    if found is None:
        raise NotFound(f"{programme} has no sponsor “{sponsor}”")
    if found.funding != "arrears":
        raise InvalidInput(f"{sponsor} pays ahead: there is nothing to claim from it", pointer="/sponsor")
    now = books.clock.now()
    if through > effective_day(now, found.time_zone):
        raise InvalidInput("a claim is for days that have come", pointer="/through")
    before = tx.execute(
        text(
            "SELECT coalesce(max(number), 0) AS number,"
            " max(through) FILTER (WHERE state = 'certified') AS through,"
            " bool_or(state = 'made' OR state = 'certified' AND booked_at IS NULL) AS open"
            " FROM products.claim_pack WHERE sponsor_id = :id"
        ),
        {"id": found.id},
    ).one()
    if before.open:
        raise ClaimOpen(f"claim {before.number} of {sponsor} is open: certify or withdraw it first")
    lines = [*_awaiting(tx, books, found, sponsor, through)]
    lines += _adjusted(tx, books, found, sponsor, len(lines))
    if not lines:
        raise InvalidInput(f"nothing awaits {sponsor} for days up to {through}", pointer="/through")
    claimed = sum(line.amount for line in lines if line.kind == "match")
    adjusted = -sum(line.amount for line in lines if line.kind == "adjustment")
    draft = Pack(
        new_id(), found.programme_id, programme, found.id, sponsor, before.number + 1, found.currency,
        before.through and before.through + timedelta(days=1), through, sum(line.kind == "match" for line in lines),
        sum(line.kind == "adjustment" for line in lines), claimed, adjusted, b"", key.key_id, key.public_key, b"",
        now, "made", None, None, None, 0, None, START,
    )  # fmt: skip
    digest = hashlib.sha256(_content(draft, lines)).digest()
    pack = replace(draft, digest=digest, signature=key.sign(signed(digest)))
    _store(tx, pack, lines)
    return pack


def signed(digest: bytes) -> bytes:
    """What the seal key signs of a pack: the format's name, a zero byte, and the SHA-256 of its content."""
    return FORMAT.encode() + b"\0" + digest


def file_of(tx: Tx, pack: Pack) -> bytes:
    """The pack as it was signed: JSON Lines of a header, its lines, and the signature; the same bytes each time."""
    content = _content(pack, lines_of(tx, pack.id))
    return content + _json(
        {
            "key_id": pack.key_id,
            "public_key": pack.public_key.hex(),
            "sha256": pack.digest.hex(),
            "signature": pack.signature.hex(),
        }
    )


def pack_of(tx: Tx, pack_id: UUID, *, lock: bool = False) -> Pack:
    """One pack. Raises `NotFound`, also for what row-level security hides."""
    row = tx.execute(
        text(f"{_SELECT} WHERE p.id = :id{' FOR NO KEY UPDATE OF p' if lock else ''}"), {"id": pack_id}
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such claim pack.")
    return _pack(row)


def packs(
    tx: Tx,
    *,
    sponsor: str | None = None,
    state: State | None = None,
    after: Position | None = None,
    limit: int,
) -> list[Pack]:
    """Packs behind the settled horizon, in the order in which they were made."""
    rows = tx.execute(
        text(
            f"{_SELECT} WHERE {SETTLED}"
            " AND (p.era, p.xid, p.id) > (:era, CAST(:xid AS xid8), :id)"
            " AND (CAST(:sponsor AS text) IS NULL OR s.slug = :sponsor)"
            " AND (CAST(:state AS text) IS NULL OR p.state = :state) ORDER BY p.era, p.xid, p.id LIMIT :limit"
        ),
        (after or START).parameters | {"sponsor": sponsor, "state": state, "limit": limit},
    )
    return [_pack(row) for row in rows]


def lines_of(
    tx: Tx, pack_id: UUID, *, after: int = 0, limit: int | None = None, kind: str | None = None
) -> list[Line]:
    """A pack's lines behind a position, in order."""
    rows = cursor(tx).execute(
        """SELECT position, kind, enrolment_id, window_start, window_end, product, member, account, contributions,
                  contributed, rate, amount, adjustment_id
           FROM products.claim_line WHERE pack_id = %s AND position > %s AND (%s::text IS NULL OR kind = %s)
           ORDER BY position LIMIT %s""",
        (pack_id, after, kind, kind, limit),
    )
    return [Line(*row) for row in rows]


def certify(
    tx: Tx, books: Books, pack_id: UUID, *, digest: bytes, reference: str, certified_on: date
) -> Pack:
    """Record that the sponsor certified exactly this pack, under its own reference; booking follows in sets.

    The same again changes nothing. Raises `NotFound`, and `ClaimClosed` for a pack that is withdrawn, certified
    otherwise, or of another digest.
    """
    pack = pack_of(tx, pack_id, lock=True)
    if pack.digest != digest:
        raise ClaimClosed("the sponsor certified another file than this pack's")
    if pack.state == "certified" and (pack.certification, pack.certified_on) == (reference, certified_on):
        return pack
    if pack.state != "made":
        raise ClaimClosed(f"the pack is {pack.state}")
    tx.execute(
        text(
            "UPDATE products.claim_pack SET state = 'certified', certification = :reference, certified_on = :on,"
            " certified_at = :at WHERE id = :id"
        ),
        {"reference": reference, "on": certified_on, "at": books.clock.now(), "id": pack_id},
    )
    return pack_of(tx, pack_id)


def withdraw(tx: Tx, pack_id: UUID) -> Pack:
    """Withdraw a pack that is not certified: what it claims can be claimed anew. Raises `NotFound`, `ClaimClosed`."""
    pack = pack_of(tx, pack_id, lock=True)
    if pack.state != "made":
        raise ClaimClosed(f"the pack is {pack.state}")
    tx.execute(text("UPDATE products.claim_pack SET state = 'withdrawn' WHERE id = :id"), {"id": pack_id})
    return replace(pack, state="withdrawn")


_SELECT = (
    "SELECT p.id, p.programme_id, g.slug AS programme, p.sponsor_id, s.slug AS sponsor, p.number, p.currency, p.since,"
    " p.through, p.lines, p.adjustments, p.claimed, p.adjusted, p.digest, p.key_id, p.public_key, p.signature, p.made_at,"
    " p.state, p.certification, p.certified_on, p.certified_at, p.booked_lines, p.booked_at, p.era,"
    " p.xid::text::bigint AS xid FROM products.claim_pack p JOIN products.sponsor s ON s.id = p.sponsor_id"
    " JOIN products.programme g ON g.id = p.programme_id"
)


def _pack(row: Row[Any]) -> Pack:
    values = row._asdict()
    position = Position(values.pop("era"), values.pop("xid"), row.id)
    return Pack(**values, position=position)


def _content(pack: Pack, lines: Sequence[Line]) -> bytes:
    """What is signed: a header with the control totals, then a line of JSON for each line."""
    return b"".join([_json(_header(pack)), *(_json(_shown(line)) for line in lines)])


def _header(pack: Pack) -> dict[str, object]:
    return {
        "format": FORMAT,
        "pack": pack.public_id,
        "number": pack.number,
        "programme": pack.programme,
        "sponsor": pack.sponsor,
        "currency": pack.currency,
        "since": pack.since.isoformat() if pack.since else None,
        "through": pack.through.isoformat(),
        "made_at": pack.made_at.isoformat(),
        "lines": pack.lines,
        "adjustments": pack.adjustments,
        "claimed": pack.claimed,
        "adjusted": pack.adjusted,
        "total": pack.total,
    }


def _shown(line: Line) -> dict[str, object]:
    shown: dict[str, object] = {
        "position": line.position,
        "kind": line.kind,
        "member": line.member,
        "account": line.account,
        "product": line.product,
        "window_start": line.window_start.isoformat(),
        "window_end": line.window_end.isoformat(),
        "contributions": line.contributions,
        "contributed": line.contributed,
        "rate": line.rate,
        "amount": line.amount,
    }
    if line.adjustment_id is not None:
        shown["adjustment"] = public_id("adj", line.adjustment_id)
    return shown


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


_COUNTED = """
    LEFT JOIN LATERAL (
        SELECT count(*)::int AS contributions, coalesce(sum(c.amount), 0)::bigint AS contributed
        FROM products.contribution c WHERE c.enrolment_id = t.enrolment_id AND c.window_start = t.window_start
          AND c.state <> 'reversed' AND c.contributed_on <= %(through)s) counted ON true
"""
_OF_WINDOW = """
    SELECT t.enrolment_id, t.window_start, s.window_end, e.product, e.member_id, counted.contributions,
           counted.contributed, s.rule_version, s.by_tier, t.amount, t.adjustment_id
    FROM t JOIN products.match_state s ON s.enrolment_id = t.enrolment_id AND s.window_start = t.window_start
    JOIN products.enrolment e ON e.id = t.enrolment_id
"""


def _awaiting(tx: Tx, books: Books, sponsor: Row[Any], slug: str, through: date) -> Iterator[Line]:
    """A line for each window with entitlement that awaits the sponsor, the longest waiting first."""
    rows = (
        cursor(tx)
        .execute(
            f"""WITH t AS (
                    SELECT enrolment_id, window_start, sum(amount)::bigint AS amount, NULL::uuid AS adjustment_id,
                           min(contributed_at) AS first
                    FROM products.match_queue
                    WHERE sponsor_id = %(sponsor)s AND (contributed_at AT TIME ZONE %(zone)s)::date <= %(through)s
                    GROUP BY enrolment_id, window_start ORDER BY first, enrolment_id, window_start LIMIT %(limit)s
                ) {_OF_WINDOW} {_COUNTED} ORDER BY t.first, t.enrolment_id, t.window_start""",
            {
                "sponsor": sponsor.id,
                "zone": sponsor.time_zone,
                "through": through,
                "limit": LINES_MAX,
            },
        )
        .fetchall()
    )
    return _lines(tx, books, sponsor, slug, rows, 0)


def _adjusted(tx: Tx, books: Books, sponsor: Row[Any], slug: str, there: int) -> Iterator[Line]:
    """A line for each approved fall of what earlier packs certified, which no pack has shown yet."""
    rows = (
        cursor(tx)
        .execute(
            f"""WITH t AS (
                    SELECT a.enrolment_id, a.window_start, -a.certified AS amount, a.id AS adjustment_id
                    FROM products.match_adjustment a
                    WHERE a.sponsor_id = %(sponsor)s AND a.state = 'approved' AND a.certified > 0
                      AND NOT EXISTS (SELECT FROM products.claim_line l JOIN products.claim_pack p ON p.id = l.pack_id
                                      WHERE l.adjustment_id = a.id AND p.state <> 'withdrawn')
                ) {_OF_WINDOW} {_COUNTED} ORDER BY t.adjustment_id""",
            {"sponsor": sponsor.id, "through": date.max},
        )
        .fetchall()
    )
    return _lines(tx, books, sponsor, slug, rows, there)


def _lines(
    tx: Tx, books: Books, sponsor: Row[Any], slug: str, rows: Sequence[tuple[Any, ...]], there: int
) -> Iterator[Line]:
    versions = {one.version: one.programme for one in books.programmes.versions(tx, sponsor.programme_id)}

    def pseudonym(of: UUID) -> str:
        return books.keyring.blind_index("sponsor", sponsor.id.hex + of.hex)[:16].hex()

    for position, row in enumerate(rows, start=there + 1):
        (
            enrolment,
            start,
            end,
            product,
            member,
            contributions,
            contributed,
            version,
            by_tier,
            amount,
            adjustment,
        ) = row
        rule = versions[version].product(product).match
        yield Line(
            position,
            "match" if adjustment is None else "adjustment",
            enrolment,
            start,
            end,
            product,
            pseudonym(member),
            pseudonym(enrolment),
            contributions,
            contributed,
            "" if rule is None else _rate(rule, slug, by_tier),
            amount,
            adjustment,
        )


def _rate(rule: Match, sponsor: str, by_tier: Sequence[int]) -> str:
    """What the sponsor pays of each unit of the tiers that were contributed under: ``"50"``, or ``"50 + 25"``."""
    share = sum((one.share for one in rule.shares if one.sponsor == sponsor), start=cast("Any", 0))
    used = [tier for tier, total in zip(rule.tiers, by_tier[1:], strict=False) if total]
    return " + ".join(format_percent(tier.rate * share) for tier in used)


def _store(tx: Tx, pack: Pack, lines: Sequence[Line]) -> None:
    tx.execute(
        text(
            "INSERT INTO products.claim_pack (id, programme_id, sponsor_id, number, currency, since, through, lines,"
            " adjustments, claimed, adjusted, digest, key_id, public_key, signature, made_at) VALUES (:id, :programme,"
            " :sponsor, :number, :currency, :since, :through, :lines, :adjustments, :claimed, :adjusted, :digest,"
            " :key_id, :public_key, :signature, :made_at)"
        ),
        {
            "id": pack.id,
            "programme": pack.programme_id,
            "sponsor": pack.sponsor_id,
            "number": pack.number,
            "currency": pack.currency,
            "since": pack.since,
            "through": pack.through,
            "lines": pack.lines,
            "adjustments": pack.adjustments,
            "claimed": pack.claimed,
            "adjusted": pack.adjusted,
            "digest": pack.digest,
            "key_id": pack.key_id,
            "public_key": pack.public_key,
            "signature": pack.signature,
            "made_at": pack.made_at,
        },
    )
    with cursor(tx).copy(
        "COPY products.claim_line (pack_id, position, programme_id, kind, enrolment_id, window_start, window_end,"
        " product, member, account, contributions, contributed, rate, amount, adjustment_id) FROM STDIN"
    ) as copy:
        for line in lines:
            copy.write_row(
                (
                    pack.id,
                    line.position,
                    pack.programme_id,
                    line.kind,
                    line.enrolment_id,
                    line.window_start,
                    line.window_end,
                    line.product,
                    line.member,
                    line.account,
                    line.contributions,
                    line.contributed,
                    line.rate,
                    line.amount,
                    line.adjustment_id,
                )
            )
