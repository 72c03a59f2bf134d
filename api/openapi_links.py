"""OpenAPI links: which answer holds the id that another route's path asks for.

Clients that read the document follow them; Schemathesis does, in the tests, as every kind of caller.
"""

import re
from typing import Any, Final

_FIRST: Final = "$response.body#/data/0/"
_ID: Final = "$response.body#/id"

_HOLDS: Final[dict[str, dict[str, str]]] = {
    "register_member": {"member": _ID},
    "list_members": {"member": f"{_FIRST}id"},
    "list_duplicates": {"member": f"{_FIRST}members/0/id"},
    "record_document": {"document": _ID},
    "list_documents": {"document": f"{_FIRST}id"},
    "verify_member": {"verification_id": _ID},
    "list_verifications": {"verification_id": f"{_FIRST}id"},
    "add_dependant": {"dependant": _ID},
    "list_dependants": {"dependant": f"{_FIRST}id"},
    "enrol_member": {"enrolment": _ID},
    "list_enrolments": {"enrolment": f"{_FIRST}id"},
    "list_devices": {"device": f"{_FIRST}id"},
    "propose_payee": {"payee": _ID},
    "list_payees": {"payee": f"{_FIRST}id"},
    "get_statement": {"transaction": f"{_FIRST}transaction"},
    "send_remittance": {
        "remittance": _ID,
        "member": "$response.body#/member",
        "transaction": "$response.body#/transaction",
        "subject": _ID,
    },
    "list_remittances": {"remittance": f"{_FIRST}id", "member": f"{_FIRST}member", "subject": f"{_FIRST}id"},
    "create_webhook_endpoint": {"endpoint": _ID},
    "list_webhook_endpoints": {"endpoint": f"{_FIRST}id"},
    "list_event_deliveries": {"event": f"{_FIRST}event"},
    "list_events": {"event": f"{_FIRST}id"},
    "list_deliveries": {"delivery": f"{_FIRST}id"},
    "list_programmes": {"programme": f"{_FIRST}slug"},
    "list_accounts": {"account": f"{_FIRST}id"},
    "list_transactions": {"transaction": f"{_FIRST}id"},
    "list_sessions": {"session": f"{_FIRST}id"},
    "list_operators": {"operator": f"{_FIRST}id"},
    "list_operator_sessions": {"session": f"{_FIRST}id"},
    "list_approvals": {"approval": f"{_FIRST}id"},
    "request_transaction": {"approval": _ID},
    "request_write_off": {"approval": _ID},
    "request_reopening": {"approval": _ID},
    "request_programme_version": {"approval": _ID},
    "list_audit_entries": {"entry": f"{_FIRST}id"},
}
"""By operation: the path parameters whose values stand in its answer, and where."""


def add_links(paths: dict[str, Any]) -> None:
    """Write into each answer of `_HOLDS` a link to every operation that it, with its own path, names completely."""
    operations = {
        operation["operationId"]: (set(re.findall(r"{(\w+)}", path)), operation)
        for path, methods in paths.items()
        for operation in methods.values()
    }
    for source, holds in _HOLDS.items():
        own, operation = operations[source]
        links = {
            name: {
                "operationId": name,
                "parameters": {part: holds.get(part, f"$request.path.{part}") for part in sorted(parts)},
            }
            for name, (parts, _) in operations.items()
            if parts & holds.keys() and parts <= own | holds.keys()
        }
        for status, answer in operation["responses"].items():
            if status.startswith("2"):
                answer["links"] = links
