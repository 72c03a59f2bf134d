"""The OpenAPI document is good enough to generate from: the official generator's Python client does a partner's whole job."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.http.served import Served, a_person

GENERATOR = Path(sys.executable).with_name("openapi-generator-cli")
PACKAGE = "mizan_generated"


@pytest.fixture(scope="module")
def generated(shared_api: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The client, generated from the document as it is served."""
    folder = tmp_path_factory.mktemp("generated")
    document = folder / "openapi.json"
    document.write_text(shared_api.http.get("/openapi.json").text, encoding="utf-8")
    ran = subprocess.run(
        [
            GENERATOR,
            "generate",
            "--generator-name=python",
            f"--input-spec={document}",
            f"--output={folder / 'client'}",
            f"--package-name={PACKAGE}",
            # what the API is asked, not what it sends: the generator writes Python without types for `webhooks`, which is none
            "--global-property=apis,models,supportingFiles,apiTests=false,modelTests=false,apiDocs=false,modelDocs=false",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    sys.path.insert(0, str(folder / "client"))
    yield importlib.import_module(PACKAGE)
    sys.path.remove(str(folder / "client"))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@contextmanager
def connected(generated: ModuleType, api: Served) -> Iterator[Any]:
    """The generated client with the partner's token, which it got itself."""
    client = generated.ApiClient(generated.Configuration(host=api.url))
    issued = generated.TokensApi(client).issue_token(
        "client_credentials",
        client_id=api.acme.client.client_id,
        client_secret=api.acme.client.client_secret,
    )
    client.configuration.access_token = issued.access_token
    try:
        yield client
    finally:
        client.rest_client.pool_manager.clear()


@pytest.mark.timeout(180)
def test_a_generated_client_does_a_partners_whole_job(generated: ModuleType, shared_api: Served) -> None:
    with connected(generated, shared_api) as client:
        members, enrolments = generated.MembersApi(client), generated.EnrolmentsApi(client)
        remittances, balances = generated.RemittancesApi(client), generated.BalancesApi(client)

        person = generated.MemberIn.from_dict(a_person())
        registered = members.register_member(person)
        assert registered.id.startswith("mem_")
        assert (registered.phone, registered.family_name) == ("+250780000001", None)
        assert registered.mandates[0].state == "in_force"
        assert registered.facts[0].name == "income_category"

        choice = generated.ChoiceIn(percent="5")
        enrolled = enrolments.enrol_member(
            registered.id, generated.EnrolmentIn(product="savings", choice=choice)
        )
        assert (enrolled.product, enrolled.ended_at) == ("savings", None)

        def money(amount: int, currency: str) -> Any:
            return generated.MoneyIn(amount=amount, currency=currency)

        remittance = generated.RemittanceIn(
            remittance_id="ACME-000123",
            member=generated.MemberKeyIn(id=registered.id),
            sent=money(80_000, "AED"),
            received=money(300_000, "RWF"),
            collected=money(15_000, "RWF"),
            origin_country="AE",
            destination_country="RW",
            completed_at=shared_api.clock.now(),
        )
        sent = remittances.send_remittance("generated-1", remittance)
        assert (sent.status, sent.allocations[0].amount.amount) == ("posted", 15_000)
        again = remittances.send_remittance_with_http_info("generated-1", remittance)
        assert {name.lower(): value for name, value in again.headers.items()}[
            "idempotency-replayed"
        ] == "true"
        assert again.data == sent
        assert remittances.get_remittance(sent.id) == sent

        held = balances.get_balances(registered.id)
        (savings,) = held.products
        assert savings.settled == generated.MoneyOut(amount=15_000, currency="RWF")
        assert savings.match.entitled.amount == 15_000
        assert savings.locked[0].reason == "before_age_55"
        (line,) = balances.get_statement(registered.id).data
        assert (line.transaction, line.balance.amount) == (sent.transaction, 15_000)
        assert balances.get_receipt(registered.id, line.transaction)["kind"] == "remittance_allocated"
        assert members.get_member(registered.id).id == registered.id
        quote = remittances.create_quote(
            "generated-2",
            generated.QuoteIn(
                member=generated.MemberKeyIn(id=registered.id),
                sent=money(80_000, "AED"),
                received=money(300_000, "RWF"),
                origin_country="AE",
                destination_country="RW",
            ),
        )
        assert quote.collect.amount == 15_000


@pytest.mark.timeout(180)
def test_an_error_is_a_problem_of_its_type(generated: ModuleType, shared_api: Served) -> None:
    with connected(generated, shared_api) as client:
        with pytest.raises(generated.exceptions.NotFoundException) as absent:
            generated.BalancesApi(client).get_balances("mem_" + "0" * 26)
        problem = absent.value.data
        assert isinstance(problem, generated.ProblemDocument)
        assert (problem.code, problem.status) == ("not_found", 404)
        assert problem.type.endswith("/problems/not_found")
        assert problem.request_id == absent.value.headers["X-Request-Id"]

        wrong = generated.MemberIn.from_dict(a_person(77, phone="+0000"))
        with pytest.raises(generated.exceptions.UnprocessableEntityException) as refused:
            generated.MembersApi(client).register_member(wrong)
        assert refused.value.data.code in ("invalid_request", "invalid_phone")

        client.configuration.access_token = "nothing"
        with pytest.raises(generated.exceptions.UnauthorizedException) as unknown:
            generated.MembersApi(client).list_members()
        assert unknown.value.data.code == "unauthorised"

        with pytest.raises(generated.exceptions.UnauthorizedException) as stranger:
            generated.TokensApi(client).issue_token(
                "client_credentials", client_id="cli_x", client_secret="x"
            )
        assert isinstance(stranger.value.data, generated.OAuthError)
        assert stranger.value.data.error == "invalid_client"


def test_names_in_the_document_are_stable(shared_api: Served) -> None:
    document = shared_api.http.get("/openapi.json").json()
    # two models of one name get their modules' names instead, which change when a file is moved
    assert [name for name in document["components"]["schemas"] if "__" in name] == []
    ids = [
        operation["operationId"]
        for operations in document["paths"].values()
        for method, operation in operations.items()
        if method != "parameters"
    ]
    assert len(set(ids)) == len(ids)
    assert [one for one in ids if not one.isidentifier() or one != one.lower()] == []
