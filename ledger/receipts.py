"""Receipts: the proof that a transaction stands in the sealed books, which anyone can check without the database.

A receipt carries what the leaf is hashed from, the audit path from its entry to the seal's root, and the signed seal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from struct import error as StructError  # noqa: N812  an exception, named as one
from typing import Any, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import InvalidInput, NotFound
from ledger.leaves import leaf
from ledger.merkle import ProofError, audit_path, root_from_path
from ledger.seals import Seal, SealError, entry_hash, journal_entries, seal_covering


class InvalidReceipt(InvalidInput):
    """A receipt that cannot be read, or that proves nothing."""

    code = "invalid_receipt"


@dataclass(frozen=True, slots=True)
class ReceiptPosting:
    """One posting of the transaction, in the order of seq; `amount` in minor units."""

    debit: UUID
    credit: UUID
    amount: int
    currency: str
    effective_on: date


@dataclass(frozen=True, slots=True)
class Proof:
    """Where the transaction stands in its seal: its place in the journal, the leaf's index and its audit path."""

    era: int
    xid: int
    index: int
    path: tuple[bytes, ...]
    seal: Seal


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a leaf is hashed from, and its proof; `proof` is None until the transaction is sealed."""

    transaction_id: UUID
    reference: str
    kind: str
    effective_on: date
    recorded_at: datetime
    reverses: UUID | None
    details: Mapping[str, Any] | None
    salt: bytes
    postings: tuple[ReceiptPosting, ...]
    proof: Proof | None

    @property
    def status(self) -> Literal["pending", "sealed"]:
        """Whether there is a proof yet."""
        return "pending" if self.proof is None else "sealed"

    def computed_leaf(self) -> bytes:
        """The salted leaf that the fields hash to."""
        return leaf(
            salt=self.salt,
            id=self.transaction_id,
            reference=self.reference,
            kind=self.kind,
            effective_on=self.effective_on,
            recorded_at=self.recorded_at,
            reverses=self.reverses,
            details=self.details,
            postings=[
                (posting.debit, posting.credit, posting.amount, posting.currency, posting.effective_on)
                for posting in self.postings
            ],
        )

    def to_json(self) -> dict[str, Any]:
        """The form that is handed out: bytes in hexadecimal, times in RFC 3339; `status` and `proof` as published."""
        return {
            "status": self.status,
            "transaction_id": str(self.transaction_id),
            "reference": self.reference,
            "kind": self.kind,
            "effective_on": self.effective_on.isoformat(),
            "recorded_at": self.recorded_at.isoformat(),
            "reverses": str(self.reverses) if self.reverses is not None else None,
            "details": self.details,
            "salt": self.salt.hex(),
            "postings": [
                {
                    "debit": str(posting.debit),
                    "credit": str(posting.credit),
                    "amount": posting.amount,
                    "currency": posting.currency,
                    "effective_on": posting.effective_on.isoformat(),
                }
                for posting in self.postings
            ],
            "proof": _proof_to_json(self.proof) if self.proof is not None else None,
        }

    @classmethod
    def from_json(cls, shown: Mapping[str, Any]) -> "Receipt":
        """Reads what `to_json` wrote. Raises InvalidReceipt when it is not that."""
        try:
            return cls(
                transaction_id=UUID(shown["transaction_id"]),
                reference=_text(shown["reference"]),
                kind=_text(shown["kind"]),
                effective_on=date.fromisoformat(shown["effective_on"]),
                recorded_at=datetime.fromisoformat(shown["recorded_at"]),
                reverses=UUID(shown["reverses"]) if shown["reverses"] is not None else None,
                details=shown["details"],
                salt=bytes.fromhex(shown["salt"]),
                postings=tuple(
                    ReceiptPosting(
                        UUID(posting["debit"]),
                        UUID(posting["credit"]),
                        _integer(posting["amount"]),
                        _text(posting["currency"]),
                        date.fromisoformat(posting["effective_on"]),
                    )
                    for posting in shown["postings"]
                ),
                proof=_proof_from_json(shown["proof"]) if shown["proof"] is not None else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError, SealError) as error:
            raise InvalidReceipt(f"not a receipt: {error!r}") from error


def _proof_to_json(proof: Proof) -> dict[str, Any]:
    return {
        "era": proof.era,
        "xid": proof.xid,
        "index": proof.index,
        "path": [sibling.hex() for sibling in proof.path],
        "seal": proof.seal.to_json(),
    }


def _proof_from_json(shown: Mapping[str, Any]) -> Proof:
    return Proof(
        era=_integer(shown["era"]),
        xid=_integer(shown["xid"]),
        index=_integer(shown["index"]),
        path=tuple(bytes.fromhex(sibling) for sibling in shown["path"]),
        seal=Seal.from_json(shown["seal"]),
    )


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError("a whole number was expected")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value


def receipt(tx: Tx, transaction_id: UUID) -> Receipt:
    """The receipt of a transaction, with its proof once it is sealed; whether the caller may see it is the caller's.

    The proof reads the leaves of one seal again (at most `seals.SEAL_TRANSACTIONS_MAX` and one batch). Raises NotFound.
    """
    raw = cursor(tx)
    row = raw.execute(
        "SELECT id, reference, kind, effective_on, recorded_at, reverses, details, salt, era, CAST(xid AS text), leaf"
        " FROM ledger.transaction WHERE id = %s",
        (transaction_id,),
    ).fetchone()
    if row is None:
        raise NotFound("no such transaction")
    era, xid, stored_leaf = row[8], int(row[9]), row[10]
    postings = raw.execute(
        "SELECT debit_account, credit_account, amount, currency, effective_on FROM ledger.posting"
        " WHERE transaction_id = %s ORDER BY seq",
        (transaction_id,),
    ).fetchall()
    pending = Receipt(
        transaction_id=row[0],
        reference=row[1],
        kind=row[2],
        effective_on=row[3],
        recorded_at=row[4],
        reverses=row[5],
        details=row[6],
        salt=row[7],
        postings=tuple(ReceiptPosting(*posting) for posting in postings),
        proof=None,
    )
    seal = seal_covering(tx, era, xid)
    if seal is None:
        return pending
    # Which of its entries is ours is found by what the entry hashes; the salt makes it unique.
    entries = [
        entry_hash(era, at, one) for at, one, _ in journal_entries(tx, era, seal.from_xid, seal.to_xid)
    ]
    index = entries.index(entry_hash(era, xid, stored_leaf))
    return replace(pending, proof=Proof(era, xid, index, tuple(audit_path(entries, index)), seal))


def verify_receipt(receipt: Receipt, public_keys: Mapping[str, bytes]) -> None:
    """Checks a receipt offline, by the seal keys that its holder trusts (from /.well-known/mizan-seals, kept safe).

    Pure: no database, no clock. Raises InvalidReceipt, saying which step fails; a pending receipt proves nothing.
    """
    proof = receipt.proof
    if proof is None:
        raise InvalidReceipt("the transaction is not sealed yet: this receipt proves nothing")
    seal = proof.seal
    try:
        entry = entry_hash(proof.era, proof.xid, receipt.computed_leaf())
        root = root_from_path(entry, proof.index, seal.transactions, proof.path)
        head = seal.computed_head()
    except (ProofError, TypeError, ValueError, OverflowError, StructError) as error:
        raise InvalidReceipt(f"its proof cannot be followed: {error}") from error
    if proof.era != seal.era or not seal.from_xid <= proof.xid < seal.to_xid:
        raise InvalidReceipt("its place in the journal is not in the seal's range")
    if root != seal.root:
        raise InvalidReceipt("the transaction is not the one that was sealed")
    if head != seal.head:
        raise InvalidReceipt("the seal's fields do not hash to its head")
    if not seal.signature_holds(public_keys):
        raise InvalidReceipt("no trusted key signed the seal")
