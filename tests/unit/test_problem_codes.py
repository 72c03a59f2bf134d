"""Whatever the rules and the rails raise on purpose has a code that is published."""

import importlib
import pkgutil
from collections.abc import Iterator

import integrations
import products
from api.problem_catalogue import CATALOGUE
from ledger.errors import MizanError

NEVER_ANSWERED = {
    "PayoutRefused": "the kinds of it are raised, each with its own code",
    "BooksRefused": "a fault of ours: logged, and answered as an internal error",
    "PartnerExists": "partners are admitted on the command line",
}


def raised(kind: type[MizanError]) -> Iterator[type[MizanError]]:
    """Every class of error below one."""
    for below in kind.__subclasses__():
        yield below
        yield from raised(below)


def test_every_error_of_the_rules_and_the_rails_is_in_the_catalogue_with_its_status() -> None:
    for package in (products, integrations):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found = {
        one for one in raised(MizanError) if one.__module__.split(".")[0] in ("products", "integrations")
    }
    assert len(found) > 40
    unpublished = {one.__name__ for one in found if one.code not in CATALOGUE}
    assert unpublished == NEVER_ANSWERED.keys()
    differing = {
        one.__name__: (one.status, CATALOGUE[one.code].status)
        for one in found
        if one.code in CATALOGUE and one.status != CATALOGUE[one.code].status
    }
    assert differing == {}
