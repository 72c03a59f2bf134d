"""What a verification says: checks, how many they looked at, how many lies they found, and where the first are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ledger.database import Tx

FINDINGS_MAX = 20
"""So many lies of one check are named; all are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One lie: where it is (a transaction, posting, account, seal, reference) and what is wrong there."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Check:
    """The verdict of one check."""

    name: str
    checked: int
    violations: int
    findings: tuple[Finding, ...] = ()


class Tally:
    """Collects the verdict of a check that looks at things one by one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.checked = 0
        self._violations = 0
        self._findings: list[Finding] = []

    def lie(self, where: str, what: str) -> None:
        """Counts a violation; the first ones are kept with their place."""
        self._violations += 1
        if len(self._findings) < FINDINGS_MAX:
            self._findings.append(Finding(where, what))

    def verdict(self) -> Check:
        """What was found."""
        return Check(self.name, self.checked, self._violations, tuple(self._findings))


@dataclass(frozen=True, slots=True)
class Report:
    """A verification: `unsealed` transactions and audit entries wait for their seal; `caveat` says what they can't prove."""

    transactions: int
    postings: int
    unsealed: int
    checks: tuple[Check, ...]
    caveat: str | None
    audit_entries: int = 0
    unsealed_audit_entries: int = 0

    @property
    def ok(self) -> bool:
        """Whether no check found a lie."""
        return not any(check.violations for check in self.checks)

    def findings(self) -> Iterator[tuple[str, Finding]]:
        """The named lies with the check that found them, in the order of the checks."""
        for check in self.checks:
            for finding in check.findings:
                yield check.name, finding

    def to_json(self) -> dict[str, Any]:
        """The shape of the published contract, with the places of the first lies and the caveat."""
        return {
            "ok": self.ok,
            "transactions": self.transactions,
            "postings": self.postings,
            "unsealed": self.unsealed,
            "audit_entries": self.audit_entries,
            "unsealed_audit_entries": self.unsealed_audit_entries,
            "checks": [
                {"name": check.name, "checked": check.checked, "violations": check.violations}
                for check in self.checks
            ],
            "findings": [
                {"check": name, "where": finding.where, "what": finding.what}
                for name, finding in self.findings()
            ],
            "caveat": self.caveat,
        }


ExtraCheck = Callable[[Tx], Check]
"""A check of what stands on the ledger, from a part above it; runs in the verification's snapshot."""

Progress = Callable[[str, int, int], None]
"""Told the check at work, how much of it is done and how much there is (0: not known)."""
