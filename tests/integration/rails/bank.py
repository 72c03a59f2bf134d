"""A bank at the other end of the files: it reads a pain.001 as a bank would, and answers in pain.002 or camt.054."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from xml.sax.saxutils import escape

from lxml import etree

PAIN_001 = "{urn:iso:std:iso:20022:tech:xsd:pain.001.001.09}"


@dataclass(frozen=True)
class Order:
    """One credit transfer that a bank was asked for."""

    end_to_end: str
    part: str
    amount: str
    currency: str
    creditor: str
    account: str
    remittance: str


@dataclass(frozen=True)
class Bank:
    """The bank, with one file that it was given."""

    message_id: str
    payments: int
    control_sum: str
    execution_on: str
    orders: tuple[Order, ...]

    @classmethod
    def given(cls, content: bytes) -> "Bank":
        root = etree.fromstring(content)

        def text(element: etree._Element, path: str) -> str:
            found = element.findtext("/".join(f"{PAIN_001}{name}" for name in path.split("/")))
            assert found is not None, path
            return found

        (initiation,) = root
        orders = []
        for part in initiation.findall(f"{PAIN_001}PmtInf"):
            for one in part.findall(f"{PAIN_001}CdtTrfTxInf"):
                amount = one.find(f"{PAIN_001}Amt/{PAIN_001}InstdAmt")
                account = one.find(f"{PAIN_001}CdtrAcct")
                assert amount is not None
                assert amount.text is not None
                assert account is not None
                orders.append(
                    Order(
                        text(one, "PmtId/EndToEndId"),
                        text(part, "PmtInfId"),
                        amount.text,
                        amount.get("Ccy", ""),
                        text(one, "Cdtr/Nm"),
                        "".join(map(str, account.itertext())).strip(),
                        text(one, "RmtInf/Ustrd"),
                    )
                )
        return cls(
            text(initiation, "GrpHdr/MsgId"),
            int(text(initiation, "GrpHdr/NbOfTxs")),
            text(initiation, "GrpHdr/CtrlSum"),
            text(initiation, "PmtInf/ReqdExctnDt/Dt"),
            tuple(orders),
        )

    def says(
        self,
        at: datetime,
        group: str | None = None,
        each: Mapping[str, str] | None = None,
        *,
        parts: Mapping[str, str] | None = None,
        version: str = "10",
        payments: int | None = None,
        control_sum: Decimal | None = None,
        message: str | None = None,
        note: str = "",
    ) -> bytes:
        """A pain.002. Statuses are written ``ACSC`` or, with a reason, ``RJCT/AC04``; `each` by end-to-end id."""
        by_part: dict[str, list[str]] = {part: [] for part in parts or {}}
        known = {order.end_to_end: order for order in self.orders}
        for end_to_end, status in (each or {}).items():
            order = known.get(end_to_end, self.orders[0])
            amount = f'<OrgnlTxRef><Amt><InstdAmt Ccy="{order.currency}">{order.amount}</InstdAmt></Amt></OrgnlTxRef>'
            by_part.setdefault(order.part, []).append(
                f"<TxInfAndSts><OrgnlInstrId>{end_to_end}</OrgnlInstrId><OrgnlEndToEndId>{end_to_end}</OrgnlEndToEndId>"
                f"{_status('TxSts', status, note)}{amount}</TxInfAndSts>"
            )
        answered = "".join(
            f"<OrgnlPmtInfAndSts><OrgnlPmtInfId>{part}</OrgnlPmtInfId>{_status('PmtInfSts', (parts or {}).get(part))}"
            f"{''.join(lines)}</OrgnlPmtInfAndSts>"
            for part, lines in by_part.items()
        )
        totals = (
            f"<OrgnlNbOfTxs>{self.payments if payments is None else payments}</OrgnlNbOfTxs>"
            f"<OrgnlCtrlSum>{self.control_sum if control_sum is None else control_sum}</OrgnlCtrlSum>"
        )
        return (
            f'<?xml version="1.0"?><p:Document xmlns:p="urn:iso:std:iso:20022:tech:xsd:pain.002.001.{version}">'
            f"<CstmrPmtStsRpt><GrpHdr><MsgId>BANK-{at:%H%M%S%f}</MsgId><CreDtTm>{at.isoformat()}</CreDtTm></GrpHdr>"
            f"<OrgnlGrpInfAndSts><OrgnlMsgId>{message or self.message_id}</OrgnlMsgId>"
            f"<OrgnlMsgNmId>pain.001.001.09</OrgnlMsgNmId>{totals}{_status('GrpSts', group)}</OrgnlGrpInfAndSts>"
            f"{answered}</CstmrPmtStsRpt></p:Document>"
        ).encode()

    def brings_back(self, at: datetime, back: Mapping[str, str]) -> bytes:
        """A camt.054 with an entry for each payment that came back, by end-to-end id with its reason."""
        known = {order.end_to_end: order for order in self.orders}
        details = "".join(
            f"<TxDtls><Refs><EndToEndId>{one}</EndToEndId></Refs>"
            f'<Amt Ccy="{known[one].currency}">{known[one].amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd>'
            f"<RtrInf><Rsn><Cd>{code}</Cd></Rsn></RtrInf></TxDtls>"
            for one, code in back.items()
        )
        return (
            '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.054.001.08"><BkToCstmrDbtCdtNtfctn>'
            f"<GrpHdr><MsgId>NTF</MsgId><CreDtTm>{at.isoformat()}</CreDtTm></GrpHdr><Ntfctn><Id>1</Id>"
            f"<Ntry><CdtDbtInd>CRDT</CdtDbtInd><NtryDtls>{details}</NtryDtls></Ntry>"
            "</Ntfctn></BkToCstmrDbtCdtNtfctn></Document>"
        ).encode()


def _status(element: str, status: str | None, note: str = "") -> str:
    if status is None:
        return ""
    said, _, code = status.partition("/")
    more = f"<AddtlInf>{escape(note)}</AddtlInf>" if note else ""
    reason = f"<StsRsnInf><Rsn><Cd>{code}</Cd></Rsn>{more}</StsRsnInf>" if code else ""
    return f"<{element}>{said}</{element}>{reason}"
