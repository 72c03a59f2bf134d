"""One member's story, from remittance to savings, match and why, as the partner reads it over the API."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from rich.console import Console

from api.demo.client import Client
from api.demo.events import Planned
from api.demo.world import Person
from ledger.money import Money
from ledger.receipts import Receipt, verify_receipt


class Story:
    """Reads the member's balances before and after the partner pays in, and tells all of it."""

    def __init__(self, client: Client, planned: Planned, person: Person) -> None:
        self._client = client
        self._planned = planned
        self._person = person
        self._before = self._balances()
        remittance_id = quote(str((planned.data or {})["remittance_id"]))
        self.remittance = client.get(f"/v1/remittances?remittance_id={remittance_id}")["data"][0]

    def tell(self, console: Console) -> None:
        """Print the story; call it when the partner has settled and the books are sealed."""
        data = dict(self._planned.data or {})
        person, path = self._person, f"/v1/members/{self._person.mem_id}"
        remittance = self.remittance
        console.print(
            f"A member whom Gulf Express calls {person.reference}, in income category {person.category}, saves"
            f" {person.percent} % of each remittance in EjoHeza."
        )
        console.print(
            f"[bold]Remittance[/] {data['remittance_id']}: sent {_money(data['sent'])} from {data['origin_country']} on"
            f" {data['completed_at'][:10]}; {_money(data['received'])} arrived;"
            f" Gulf Express took {_money(remittance['collected'])} of it."
        )
        for part in remittance["allocations"]:
            console.print(
                f"  {part['product']}: {_money(part['amount'])}, which raised the match by {_money(part['entitled'])}"
            )
        self._tell_balances(console)
        explanation = self._client.get(f"{path}/explanations/{remittance['id']}")
        _tell_why(console, explanation["matches"][0])
        receipt = Receipt.from_json(self._client.get(f"{path}/receipts/{remittance['transaction']}"))
        keys = self._client.get("/.well-known/mizan-seals")
        verify_receipt(receipt, _public_keys(keys))
        seal = receipt.proof.seal if receipt.proof is not None else None
        console.print(
            f"[bold]Receipt[/] of {remittance['transaction']}: {len(receipt.postings)} postings, in seal"
            f" {seal.number if seal else '—'}; checked offline with the published key: it holds."
        )

    def _balances(self) -> dict[str, Any]:
        found = self._client.get(f"/v1/members/{self._person.mem_id}/balances")
        return dict(next(one for one in found["products"] if one["product"] == "savings"))

    def _tell_balances(self, console: Console) -> None:
        after = self._balances()
        for when, shown in (("before Gulf Express paid in", self._before), ("after", after)):
            match = shown["match"]
            console.print(
                f"[bold]Balance[/] {when}: pending {_money(shown['pending'])}, settled {_money(shown['settled'])};"
                f" match entitled {_money(match['entitled'])}: committed {_money(match['committed'])}, granted"
                f" {_money(_sum(match['unvested'], match['vested']))}"
            )
        for locked in after["locked"]:
            console.print(f"  locked: {_money(locked['amount'])}, {locked['reason']}")


def _tell_why(console: Console, why: Mapping[str, Any]) -> None:
    currency = why["currency"]
    console.print(
        f"[bold]Why[/]: {why['programme']} version {why['version']}, {why['window']['start']} to {why['window']['end']}:"
        f" contributed {Money(why['contributed'], currency)}, entitled to {Money(why['entitled'], currency)}"
    )
    for tier in why["tiers"]:
        holding = all(condition["holds"] for condition in tier["conditions"])
        conditions = "; ".join(
            f"{condition['of']} {condition['must_be']} (is {condition['value']})"
            for condition in tier["conditions"]
        )
        console.print(f"  tier {tier['tier']}: {'applies' if holding else 'does not apply'}: {conditions}")
    console.print(f"  source: {why['source']}")


def _public_keys(published: Mapping[str, Any]) -> dict[str, bytes]:
    return {key_id: bytes.fromhex(key) for key_id, key in published["keys"].items()}


def _money(shown: Mapping[str, Any]) -> str:
    return str(Money(shown["amount"], shown["currency"]))


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {"amount": one["amount"] + other["amount"], "currency": one["currency"]}
