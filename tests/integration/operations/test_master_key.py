"""The master key: rotated under load, stopped in the middle, and the old one thrown away afterwards."""

import base64
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from typer.testing import CliRunner

from api import rotation
from api.app import create_app
from api.bootstrap import Services, bootstrap
from api.cli.app import app
from api.rotation import SEALED, Step
from api.settings import Settings, UnsafeSettings, load
from api.stamp import require_keys
from integrations.inbox.drain import drain
from integrations.inbox.keys import InboxKeys, open_keys
from integrations.outbound import endpoints
from integrations.outbound.endpoints import Wanted
from integrations.partners.secrets import newest_secret
from integrations.rails import callbacks, configured
from integrations.rails.configured import Rails
from ledger.clock import FixedClock
from products import safekeeping
from products.keyring import Keyring, KeyringError
from products.payouts.rails import Callback
from products.remittances.process import process
from tests.conftest import Databases, environment_of
from tests.http.hooked import Signer, completed, serving
from tests.http.served import Served, a_person, served
from tests.integration.payouts.paying import Paying
from tests.patience import eventually
from tests.world import World

OLD = base64.b64encode(bytes(range(100, 132))).decode()
NEW = base64.b64encode(bytes(range(150, 182))).decode()

UNDER_MEMBERS_KEYS = """
products.beneficiary family_name given_name phone relation
products.consent evidence
products.dependant birth_date family_name given_name relation residence_country sex
products.device name
products.member birth_date family_name given_name origin_country residence_country sex
products.member_document country expires_on number
products.member_fact value
products.member_link partner_reference phone
products.member_verification evidence
products.notice message
products.payee destination name
products.remittal_line base corrected_number number
products.waiting_change phone
"""
"""Encrypted under a member's data key, whose wrapped copy is sealed anew."""

UNDER_OTHER_KEYS = """
api.approval_request sealed_payload
integrations.delivery body_sealed
integrations.payment_answer content_sealed
integrations.payment_file content_sealed
integrations.rail_callback body_sealed
ledger.audit_entry after before
ledger.statement_line text_sealed
ledger.statement_piece sealed
"""
"""Encrypted under a key that is in `SEALED` itself."""

INDEXES = """
ledger.bank_counterparty account_index
ledger.statement_line counterparty_index fingerprint
products.challenge phone_index
products.identity_index digest
products.link_offer digest
products.member_document number_index
products.member_link partner_reference_index phone_index
products.payee payee_index
products.remittance member_key
products.waiting_change cancel_digest former_phone_index phone_index
"""
"""Blind indexes: computed under the index root, which is sealed anew and never changes."""

NOT_SECRET = """
api.approval_request payload_digest
api.client_secret digest
api.idempotent_answer fingerprint key_digest
api.log_in_tries subject
api.openid_log_in browser_digest nonce_digest state_digest
api.operator_link code_digest digest
api.operator_recovery_code digest
api.operator_session digest
api.used_jti digest
integrations.delivery body_digest delivery_key digest
integrations.event digest
integrations.payment_answer digest
integrations.payment_file digest
integrations.rail_callback digest
ledger.audit_entry after_digest before_digest leaf salt
ledger.reference digest
ledger.statement_file digest
ledger.seal audit_root head previous root signature
ledger.seal_key public_key
ledger.transaction leaf salt
products.challenge code_mac nonce subject_digest
products.device public_key
products.master_key canary
products.break facts
products.break_resolution digest
products.claim_pack digest public_key signature
products.close digest
products.close_file content digest
products.opening_load digest
products.programme_version digest
products.remittal digest
products.remittal_answer digest
products.remittance digest
products.settlement_file digest
"""
"""Digests, signatures, salts and public keys; codes' MACs, which live for minutes; canaries, which stay under their key; packs
of a close, which are made to be given away."""


def columns(table: str) -> set[str]:
    """The columns that a list of the above names."""
    return {
        f"{name}.{column}" for name, *those in map(str.split, table.strip().splitlines()) for column in those
    }


def keys(settings: Settings, *texts: str) -> Settings:
    """Settings with these master keys, the current one first."""
    return settings.model_copy(
        update={
            "master_key": SecretStr(texts[0]),
            "master_keys_retired": SecretStr(",".join(texts[1:])) if texts[1:] else None,
        }
    )


def ring(settings: Settings) -> Keyring:
    return Keyring.of(settings.master_key_bytes, *settings.master_keys_retired_bytes)


def test_every_column_of_bytes_is_known_to_rotation_or_known_not_to_need_it(databases: Databases) -> None:
    with databases.superuser.begin() as tx:
        found = {
            row[0]
            for row in tx.execute(
                text(
                    "SELECT n.nspname || '.' || c.relname || '.' || a.attname FROM pg_attribute a"
                    " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE n.nspname IN ('api', 'integrations', 'ledger', 'products') AND c.relkind IN ('r', 'p')"
                    " AND NOT c.relispartition AND a.atttypid = 'bytea'::regtype AND NOT a.attisdropped"
                )
            )
        }
    sealed = {one.name for one in SEALED}
    others = [columns(one) for one in (UNDER_MEMBERS_KEYS, UNDER_OTHER_KEYS, INDEXES, NOT_SECRET)]
    assert found - sealed.union(*others) == set(), (
        "say what these hold; what a master key seals, in api.rotation"
    )
    assert sealed.union(*others) - found == set(), "these are gone"
    assert len(found) == len(sealed) + sum(map(len, others)), "each is in one list"


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


def interrupt_after(values: int) -> Callable[[Step], None]:
    """A watcher that ends a rotation when it has done so much of a column."""

    def watch(step: Step) -> None:
        if step.done >= values:
            raise Interrupted

    return watch


@contextmanager
def running(settings: Settings, clock: FixedClock) -> Iterator[tuple[str, Services]]:
    """Another process of the deployment, on these keys."""
    made = create_app(settings, clock=clock, publish=lambda: None)
    with serving(made) as url:
        yield url, made.state.services


def remittance(number: int) -> dict[str, Any]:
    """What a partner says of a remittance of the member `number`."""
    return completed(
        remittance_id=f"R-{number}",
        member={"phone": a_person(number)["phone"]},
        received={"amount": 400_000, "currency": "RWF"},
        collected={"amount": 20_000, "currency": "RWF"},
        destination_country="RW",
        completed_at=datetime.now(UTC).isoformat(),
    )


@contextmanager
def acme(world: Served, url: str) -> Iterator[tuple[httpx.Client, Signer]]:
    """The partner at one process: with the token and the webhook secret that it was given in the beginning."""
    assert world.acme.partner is not None
    headers = {"Authorization": f"Bearer {world.acme.token}"}
    with httpx.Client(base_url=url, timeout=30, headers=headers) as http:
        yield http, Signer(world.acme.partner, "acme", world.webhook_secret, world.clock, http)


def ask_quote(http: httpx.Client, member: str) -> httpx.Response:
    """A quote under one Idempotency-Key."""
    asked = {
        "member": {"id": member},
        "received": {"amount": 400_000, "currency": "RWF"},
        "sent": {"amount": 100_000, "currency": "AED"},
        "origin_country": "AE",
        "destination_country": "RW",
    }
    return http.post("/v1/quotes", json=asked, headers={"Idempotency-Key": "always the same"})


def test_it_is_rotated_under_load_and_the_old_key_can_go(settings: Settings, databases: Databases) -> None:
    """Two processes hold both keys, each with another one current, as in the middle of a rolling restart."""
    clock = FixedClock(datetime.now(UTC))
    old, new = keys(settings, OLD, NEW), keys(settings, NEW, OLD)
    with served(old, databases.worker, clock) as world, running(new, clock) as (after_url, _):
        with acme(world, world.url) as (http, signer):
            members = [http.post("/v1/members", json=a_person(one)).json()["id"] for one in range(30)]
            quoted = ask_quote(http, members[0])
            assert quoted.status_code == 201, quoted.text
            assert {signer.send(remittance(one)).status_code for one in range(10)} == {202}
        with pytest.raises(Interrupted):
            rotation.rotate(databases.owner, ring(new), batch=7, watch=interrupt_after(20))
        failed: list[str] = []
        asked, rounds = threading.Event(), itertools.count()
        reached = 0

        def load_it(thread: int) -> None:
            nonlocal reached
            with acme(world, world.url) as before, acme(world, after_url) as after:
                for number in range(1000 * (thread + 1), 1000 * (thread + 2)):
                    if asked.is_set():
                        return
                    http, signer = (before, after)[number % 2]
                    answers = [
                        http.post("/v1/members", json=a_person(number)),
                        http.get(f"/v1/members/{members[number % 30]}"),
                        signer.send(remittance(number)),
                    ]
                    failed.extend(one.text for one in answers if one.status_code >= 300)
                    reached = next(rounds)

        with ThreadPoolExecutor(3) as pool:
            loading = [pool.submit(load_it, thread) for thread in range(3)]
            eventually(lambda: reached > 20)
            done = rotation.rotate(databases.owner, ring(new), batch=7)
            at = reached
            eventually(lambda: reached > at + 20)
            asked.set()
            for one in loading:
                one.result()
        assert failed == []
        assert done["products.member.wrapped_key"] > 10
        with databases.owner.begin() as tx:
            assert (
                rotation.left(tx, ring(new))["products.member.wrapped_key"] > 0
            )  # sealed meanwhile by `world`

    # By now every process has the new key as its current one: another pass, and nothing needs the old one any more.
    rotation.rotate(databases.owner, ring(new))
    with databases.owner.begin() as tx:
        assert set(rotation.left(tx, ring(new)).values()) == {0}
        assert set(rotation.in_use(tx)) == {ring(new).current}
    with (
        running(keys(settings, NEW), clock) as (url, services),
        acme(world, url) as (http, signer),  # the signing key opens: a token of before still verifies
    ):
        for number, member in enumerate(members):
            shown = http.get(f"/v1/members/{member}").json()
            assert (shown["phone"], shown["birth_date"]) == (a_person(number)["phone"], "1990-05-01")
        again = http.post("/v1/members", json=a_person(3, partner_reference="other"))
        assert (again.status_code, again.json()["member"]) == (409, members[3])  # found by its blind index
        replayed = ask_quote(http, members[0])
        assert (replayed.json(), replayed.headers["Idempotency-Replayed"]) == (quoted.json(), "true")
        assert signer.send(remittance(29)).status_code == 202  # its secret opens
        drain(
            services.worker, partial(process, books=services.books), clock, services.keyring, seconds_max=30
        )
        with services.worker.begin() as tx:
            outcomes = {
                row[0]: row[1]
                for row in tx.execute(
                    text("SELECT state, count(*) FROM integrations.delivery_outcome GROUP BY 1")
                )
            }
            assert set(outcomes) == {"posted"}  # what arrived under the old key too
            assert outcomes["posted"] > 50
            assert world.acme.partner is not None
            assert newest_secret(tx, services.keyring, clock, world.acme.partner) == world.webhook_secret
    with pytest.raises(UnsafeSettings, match="MIZAN_MASTER_KEY is not the key of this database"):
        begin(keys(settings, OLD))


def begin(settings: Settings) -> None:
    """What every process does first."""
    services = bootstrap(settings)
    try:
        services.api.run(lambda tx: require_keys(tx, services.keyring, services.clock.now()))
    finally:
        services.close()


def test_secrets_of_endpoints_and_rails_and_what_rails_sent_open_under_the_new_key_alone(
    databases: Databases, clock: FixedClock
) -> None:
    old, fresh = bytes(range(32)), bytes(range(32, 64))
    before, after = Keyring({"test": old}, "test"), Keyring({"next": fresh}, "next")
    paying = Paying.on(databases, clock)
    came = Callback("POST", "x", {}, b"paid", "192.0.2.1")
    today = InboxKeys(databases.worker, before, clock).current()
    with databases.worker.begin() as tx:
        wanted = Wanted("http://127.0.0.1:9/", ())
        endpoint, _ = endpoints.create(tx, before, clock, paying.partner.id, wanted, loopback=True)
        endpoints.rotate_secret(tx, before, clock, endpoint)
        secrets = endpoints.secrets_of(tx, before, [endpoint.id], clock.now())
        configured.keep_secrets(tx, before, clock, paying.rail.id, {})
        callback = callbacks.keep(tx, paying.world.books, today, paying.rail, came, readable=True)

    def opened() -> None:
        """Open all of it as a process does that has the new key alone."""
        rails = Rails(
            databases.worker, after, clock, environment="sandbox", public_url="https://mizan.example"
        )
        rails.adapter(paying.rail)
        rails.close()
        with databases.worker.begin() as tx:
            assert endpoints.secrets_of(tx, after, [endpoint.id], clock.now()) == secrets
            key = open_keys(tx, after, [today.id])[today.id]
            sealed = tx.execute(
                text("SELECT body_sealed FROM integrations.rail_callback WHERE id = :id"), {"id": callback}
            ).scalar_one()
            assert key.open(callback, paying.rail.id, bytes(sealed)) == ("", b"paid")

    with pytest.raises(KeyringError):
        opened()
    done = rotation.rotate(databases.owner, Keyring({"test": old, "next": fresh}, "next"))
    assert done["integrations.endpoint_secret.sealed"] == len(secrets[endpoint.id]) == 2
    assert done["integrations.rail_secret.sealed"] == 1
    assert done["integrations.inbox_key.wrapped"] == 1
    opened()


def test_a_member_erased_while_keys_are_sealed_anew_stays_erased(
    databases: Databases, clock: FixedClock
) -> None:
    """Between reading a wrapped key and replacing it: the copy that was read does not come back."""
    world = World(databases, clock)
    person = world.member(world.partner())

    class Erasing(Keyring):
        """Erases the member before the new copy is written."""

        def rewrap(self, wrapped: bytes, owner: UUID) -> bytes:
            with databases.worker.begin() as erasing:
                erasing.execute(
                    text("UPDATE products.member SET wrapped_key = NULL, erased_at = now() WHERE id = :id"),
                    {"id": owner},
                )
            return super().rewrap(wrapped, owner)

    both = Erasing({"test": bytes(range(32)), "next": bytes(range(32, 64))}, "next")
    assert rotation.rotate(databases.owner, both)["products.member.wrapped_key"] == 0
    with databases.worker.begin() as tx:
        wrapped = tx.execute(
            text("SELECT wrapped_key FROM products.member WHERE id = :id"), {"id": person.member_id}
        ).scalar_one()
        assert wrapped is None


def test_processes_that_start_at_once_agree_on_one_index_root(
    settings: Settings, databases: Databases
) -> None:
    texts = [keys(settings, OLD, NEW), keys(settings, NEW, OLD)]
    services = [bootstrap(one) for one in texts * 4]
    with ThreadPoolExecutor(8) as pool:
        indexes = set(pool.map(lambda one: one.keyring.blind_index("phone", "x"), services))
    assert len(indexes) == 1
    with databases.worker.begin() as tx:
        known = safekeeping.known(tx, ring(texts[0]))
    assert {one.id for one in known} == set(ring(texts[0]).ids)
    assert all(one.opens for one in known)
    for one in services:
        one.close()


def test_the_command_says_what_it_did_and_which_key_is_no_longer_needed(
    settings: Settings, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mizan(chosen: Settings, *words: str) -> tuple[int, Any]:
        for name, value in environment_of(chosen).items():
            monkeypatch.setenv(name, value)
        done = CliRunner().invoke(app, [*words, "--json"])
        return done.exit_code, json.loads(done.stdout)

    old, new = keys(settings, OLD, NEW), keys(settings, NEW, OLD)
    ids = ring(old).ids
    assert mizan(old, "key", "rotate")[0] == 0  # seals a signing key
    code, shown = mizan(new, "key", "status")
    assert [(one["id"], one["current"], one["opens"], one["needed_for"]) for one in shown["keys"]] == [
        (ids[-1], False, True, 2),
        (ids[0], True, True, 0),
    ]
    code, shown = mizan(new, "key", "rotate-master")
    assert (code, shown["key"], shown["retired"]) == (0, ids[0], [ids[-1]])
    assert shown["done"]["api.signing_key.sealed_private_key"] == 1
    assert set(shown["left"].values()) == {0}
    monkeypatch.delenv("MIZAN_MASTER_KEYS_RETIRED")
    code, shown = mizan(keys(settings, NEW), "key", "status")
    assert [(one["given"], one["needed_for"]) for one in shown["keys"]] == [(False, 0), (True, 2)]


def printing(*lines: str) -> str:
    """A key service's command line that prints these lines."""
    return " ".join(["printf '%s\\n'", *lines])


def test_keys_come_from_a_variable_a_file_or_a_key_services_command(tmp_path: Path) -> None:
    file = tmp_path / "master keys"
    file.write_text(f"{NEW}\n{OLD}\n", encoding="ascii")
    sources: list[dict[str, object]] = [
        {"master_key": NEW, "master_keys_retired": OLD},
        {"master_key_file": file},
        {"master_key_command": printing(NEW, OLD)},
        {"master_key_command": printing(NEW), "master_keys_retired": f" {OLD},"},
    ]
    for given in sources:
        settings = load(_env_file=None, **given)
        assert settings.master_key_bytes == base64.b64decode(NEW), given
        assert settings.master_keys_retired_bytes == [base64.b64decode(OLD)], given


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("false", "MIZAN_MASTER_KEY_COMMAND ended with 1"),
        ("/no/such/program", "MIZAN_MASTER_KEY_COMMAND can't be run: FileNotFoundError"),
        ("true", "MIZAN_MASTER_KEY is missing"),
        (printing("n0takey"), "MIZAN_MASTER_KEY is not base64"),
        ("'", "MIZAN_MASTER_KEY_COMMAND can't be run: ValueError"),
    ],
    ids=lambda one: one[:12],
)
def test_a_command_that_gives_no_key_is_refused_and_what_it_printed_is_not_shown(
    command: str, said: str
) -> None:
    with pytest.raises(UnsafeSettings, match=said) as refused:
        _ = load(_env_file=None, master_key_command=command).master_key_bytes
    assert "n0takey" not in refused.value.detail
