"""What a request names, as the caller may see it: a member, a programme."""

from uuid import UUID

from api.deps import Call, path_id
from ledger.errors import NotFound
from products.members import registry
from products.members.models import Member
from products.programmes.model import Programme


def found(call: Call, member: str) -> Member:
    """The member of a path, as row-level security lets the caller see them. Raises NotFound."""
    return registry.find(call.tx, call.services.keyring, path_id("mem", member))


def found_as_worker(call: Call, member: str, scope: str) -> Member:
    """The same where the transaction is the worker's, which row-level security doesn't hold. Raises NotFound.

    Found is what is the caller's partner's, in the programmes that the caller has the scope for, and to a member's
    token itself alone.
    """
    sight = call.actor.sight([scope])
    link = path_id("mem", member)
    if sight.member_link is not None and link != sight.member_link:
        raise NotFound("There is no such member.")
    return registry.find(
        call.tx, call.services.keyring, link, partner_id=call.partner, programmes=sight.programmes
    )


def require_programme(call: Call, scope: str, programme_id: UUID, otherwise: str) -> None:
    """A programme that the caller has the scope for, where the transaction is the worker's. Raises NotFound: ``otherwise``."""
    limits = call.actor.sight([scope]).programmes
    if limits is not None and programme_id not in limits:
        raise NotFound(otherwise)


def rules_of(call: Call, programme_id: UUID) -> Programme:
    """The newest version of a programme: it declares the facts that may be recorded, and the limits."""
    return call.services.books.programmes.versions(call.tx, programme_id)[-1].programme
