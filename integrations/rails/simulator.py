"""The simulated rail: deterministic, for the sandbox, with test values that force each outcome.

What becomes of a payment is written in the payee's number, or else in the amount: the number's last four digits ``99NN``, or
the amount's last two digits ``NN`` in minor units (`SCRIPTS`). Everything else is paid at once. Time moves by the clock.

It plays the outside: its record lies in a table of its own, written in transactions of its own, and the books never read it
but to be tied to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from integrations.rails.setting import InvalidRailOptions, Setting
from ledger.database import Tx, cursor
from products.payouts.rails import (
    Callback,
    CallbackRefused,
    Checked,
    FailureReason,
    Instruction,
    RailPayee,
    Report,
    ReportState,
    Sent,
)

SECRETS: Final = frozenset[str]()
CHECKS_PAYEES: Final = True
TOGETHER_MAX: Final = 1_000
REFUSED_SENDINGS: Final = 3
"""How often a connection is refused before script 71 is let through."""
LISTED_TOGETHER: Final = 5_000


class SandboxOnly(InvalidRailOptions):
    """The simulated rail pays nobody: production has no use for it."""


class Options(BaseModel):
    """How the simulated rail behaves."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    soon_seconds: int = Field(default=60, ge=0, description="after how long what is in transit is final")
    late_seconds: int = Field(default=120, ge=0, description="after how long what was paid comes back")
    forgets_after_seconds: int = Field(default=10, ge=0)
    asks_after_seconds: int = Field(default=5, ge=0)
    fee: int = Field(default=0, ge=0, description="what it takes for itself of each payment, minor units")


OPTIONS: Final = Options


@dataclass(frozen=True, slots=True)
class Script:
    """What becomes of a payment: how sending is answered, and the states it then goes through.

    ``now``, ``soon`` and ``late`` are what is true at once, after `soon_seconds` and after `late_seconds`.
    ``lost``: the answer to sending is lost. ``arrives``: the payment is there although the answer is lost.
    """

    meaning: str
    now: ReportState = "paid"
    soon: ReportState | None = None
    late: ReportState | None = None
    reason: FailureReason | None = None
    lost: bool = False
    arrives: bool = True
    refused: bool = False


def _failed(reason: FailureReason) -> Script:
    return Script(f"failed at once: `{reason}`", "failed", reason=reason)


PAID: Final = Script("paid at once")
SCRIPTS: Final[Mapping[int, Script]] = {
    11: Script("in transit, then paid", "in_transit", "paid"),
    12: Script("accepted, then paid", "accepted", "paid"),
    21: _failed("payee_unknown"),
    22: _failed("payee_closed"),
    23: _failed("payee_limit"),
    24: _failed("name_mismatch"),
    25: _failed("insufficient_float"),
    26: _failed("rail_limit"),
    27: _failed("refused"),
    28: _failed("expired"),
    29: _failed("other"),
    31: Script("in transit, then failed: `payee_closed`", "in_transit", "failed", reason="payee_closed"),
    41: Script("time-out, but it was paid", "paid", lost=True),
    42: Script(
        "time-out, and it never arrived: sent again under the same id, then paid", lost=True, arrives=False
    ),
    43: Script("time-out, but it failed: `refused`", "failed", lost=True, reason="refused"),
    51: Script("paid, then returned: `payee_closed`", "paid", late="returned", reason="payee_closed"),
    52: Script("paid, then failed: `payee_unknown`", "paid", late="failed", reason="payee_unknown"),
    71: Script(f"the rail is down for the first {REFUSED_SENDINGS} sendings, then paid", refused=True),
}
"""The outcome that a payee's number ``…99NN`` or an amount of ``…NN`` minor units forces."""
DIFFERS: Final = 61
UNREACHABLE: Final = 62


def code_of(payee: RailPayee) -> int | None:
    """The test value of a payee's number, if it is one: ``NN`` of a number that ends in ``99NN``."""
    named = payee.destination
    number = named.get("phone") or named.get("iban") or named.get("account") or named.get("token") or ""
    digits = "".join(one for one in number if one.isascii() and one.isdigit())
    return int(digits[-2:]) if digits[-4:-2] == "99" else None


def build(options: Mapping[str, object], secrets: Mapping[str, str], setting: Setting) -> "Simulator":
    """The adapter of a simulated rail. Raises `SandboxOnly`."""
    del secrets  # it has none
    return Simulator(Options.model_validate(dict(options)), setting)


class Simulator:
    """A rail that pays nobody. Sends and answers as `SCRIPTS` say."""

    together_max: int = TOGETHER_MAX

    def __init__(self, options: Options, setting: Setting) -> None:
        if setting.environment != "sandbox":
            raise SandboxOnly("The simulated rail is for the sandbox only.")
        self.asks_after_seconds = float(options.asks_after_seconds)
        self.forgets_after_seconds = float(options.forgets_after_seconds)
        self._options = options
        self._database = setting.database
        self._clock = setting.clock
        self._slug = setting.slug

    def submit(self, batch: UUID, instructions: Sequence[Instruction], asked_on: date) -> list[Report]:
        """Record what arrives, and answer as the scripts say; what is known already stays as it is."""
        del asked_on  # it pays at once, on any day
        scripts = [_script_number(one) for one in instructions]
        with self._database.begin() as tx:
            known = self._record(tx, batch, instructions, scripts)
        now = self._clock.now()
        return [
            self._answer(one.attempt, script, known.get(one.attempt), now)
            for one, script in zip(instructions, scripts, strict=True)
        ]

    def ask(self, payments: Sequence[Sent]) -> list[Report]:
        """What became of payments."""
        now = self._clock.now()
        with self._database.begin() as tx:
            rows = cursor(tx).execute(
                f"{_SELECT} WHERE attempt_id = ANY (%s) AND rail = %s",
                [[one.attempt for one in payments], self._slug],
            )
            known = {row[0]: _Known(*row) for row in rows}
        return [
            self._report(known[one.attempt], now)
            if one.attempt in known and known[one.attempt].arrived
            else Report("not_found", one.attempt)
            for one in payments
        ]

    def check(self, payee: RailPayee) -> Checked | None:
        """Whether the payee is there and of that name: yes, but for the test values."""
        code = code_of(payee)
        if code == UNREACHABLE:
            return Checked(False, "not_checked", "unreachable")
        return Checked(True, "differs" if code == DIFFERS else "matches")

    def read(self, callback: Callback) -> list[Report]:
        """The simulated rail calls nobody back."""
        del callback
        raise CallbackRefused("the simulated rail sends no callbacks")

    def listed(self, since: datetime, until: datetime) -> Iterator[Report]:
        """Every payment that arrived in [since, until)."""
        now = self._clock.now()
        after = (since, UUID(int=0))
        while True:
            with self._database.begin() as tx:
                rows = (
                    cursor(tx)
                    .execute(
                        f"{_SELECT} WHERE rail = %s AND (made_at, attempt_id) > (%s, %s) AND made_at < %s"
                        " ORDER BY made_at, attempt_id LIMIT %s",
                        [self._slug, *after, until, LISTED_TOGETHER],
                    )
                    .fetchall()
                )
            for row in rows:
                known = _Known(*row)
                if known.arrived:
                    yield self._report(known, now)
            if len(rows) < LISTED_TOGETHER:
                return
            after = (rows[-1][-1], rows[-1][0])

    def close(self) -> None:
        """It holds no connections of its own."""

    def _record(
        self, tx: Tx, batch: UUID, instructions: Sequence[Instruction], scripts: Sequence[int]
    ) -> "dict[UUID, _Known]":
        rows = cursor(tx).execute(
            "INSERT INTO integrations.simulated_payment AS p (attempt_id, rail, batch_id, reference, amount, currency,"
            " script, sendings, made_at) SELECT i.attempt, %s, %s, i.reference, i.amount, i.currency, i.script, 1, %s"
            " FROM unnest(%s::uuid[], %s::text[], %s::bigint[], %s::text[], %s::smallint[])"
            " AS i (attempt, reference, amount, currency, script)"
            " ON CONFLICT (attempt_id) DO UPDATE SET sendings = p.sendings + 1"
            f" RETURNING {_COLUMNS}",
            [
                self._slug,
                batch,
                self._clock.now(),
                [one.attempt for one in instructions],
                [one.reference for one in instructions],
                [one.amount for one in instructions],
                [one.currency for one in instructions],
                list(scripts),
            ],
        )
        return {row[0]: _Known(*row) for row in rows}

    def _answer(self, attempt: UUID, number: int, known: "_Known | None", now: datetime) -> Report:
        script = SCRIPTS.get(number, PAID)
        if known is None:
            raise AssertionError("every instruction was recorded")
        if script.refused and known.sendings <= REFUSED_SENDINGS:
            return Report("not_sent", attempt, code="connection_refused")
        if script.lost and known.sendings == 1:
            return Report("unknown", attempt, code="time_out")
        return self._report(known, now)

    def _report(self, known: "_Known", now: datetime) -> Report:
        script = SCRIPTS.get(known.script, PAID)
        state, at, again = script.now, known.made_at, None
        for later, seconds in (
            (script.soon, self._options.soon_seconds),
            (script.late, self._options.late_seconds),
        ):
            moment = known.made_at + timedelta(seconds=seconds)
            if later is not None and now >= moment:
                state, at = later, moment
            elif later is not None and again is None:
                again = moment
        fee = self._options.fee if state in ("paid", "returned") else None
        return Report(
            state,
            known.attempt,
            rail_reference=f"sim_{known.attempt.hex}",
            at=at,
            reason=script.reason if state in ("failed", "returned") else None,
            code=f"{known.script:02}" if known.script else None,
            amount=known.amount,
            currency=known.currency,
            fee=fee or None,
            ask_again_at=again,
        )


_COLUMNS: Final = "attempt_id, amount, currency, script, sendings, made_at"
_SELECT: Final = f"SELECT {_COLUMNS} FROM integrations.simulated_payment"


@dataclass(frozen=True, slots=True)
class _Known:
    """What the simulated rail has on record of a payment."""

    attempt: UUID
    amount: int
    currency: str
    script: int
    sendings: int
    made_at: datetime

    @property
    def arrived(self) -> bool:
        """Whether it knows of the payment: some sendings only look as if they had arrived."""
        script = SCRIPTS.get(self.script, PAID)
        if script.refused:
            return self.sendings > REFUSED_SENDINGS
        return script.arrives or self.sendings > 1


def _script_number(instruction: Instruction) -> int:
    code = code_of(instruction.payee)
    if code is None:
        code = instruction.amount % 100
    return code if code in SCRIPTS else 0
