"""The tables of rails in schema `integrations`: their secrets, what their hooks took in, and the simulated rail's own record.

Grants are written by hand in the migration.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Integer, SmallInteger, text
from sqlalchemy.dialects.postgresql import CHAR
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base


class RailSecretRow(Base):
    """A rail's own secrets, one JSON object sealed by the keyring."""

    __tablename__ = "rail_secret"
    __table_args__ = ({"schema": "integrations"},)

    rail_id: Mapped[UUID] = mapped_column(ForeignKey("products.rail.id"), primary_key=True)
    sealed: Mapped[bytes]
    created_at: Mapped[datetime]


class RailCallbackRow(Base):
    """What came in on a rail's hook, sealed under the inbox's key of the day; `times`: how often the same came."""

    __tablename__ = "rail_callback"
    __table_args__ = ({"schema": "integrations"},)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    rail_id: Mapped[UUID] = mapped_column(ForeignKey("products.rail.id"))
    digest: Mapped[bytes]
    body_sealed: Mapped[bytes]
    inbox_key_id: Mapped[UUID]
    readable: Mapped[bool]
    received_at: Mapped[datetime]
    times: Mapped[int] = mapped_column(Integer, server_default=text("1"))


class SimulatedPaymentRow(Base):
    """The simulated rail's own record of a payment: what the outside would know."""

    __tablename__ = "simulated_payment"
    __table_args__ = ({"schema": "integrations"},)

    attempt_id: Mapped[UUID] = mapped_column(primary_key=True)
    rail: Mapped[str]
    batch_id: Mapped[UUID]
    reference: Mapped[str]
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(CHAR(3))
    script: Mapped[int] = mapped_column(SmallInteger)
    sendings: Mapped[int] = mapped_column(SmallInteger)
    made_at: Mapped[datetime]
