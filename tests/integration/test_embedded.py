"""The embedded servers, as every command meets them."""

from sqlalchemy import text

from tests.conftest import Databases


def test_each_role_enters_the_database_as_itself(databases: Databases) -> None:
    for role in ("owner", "api", "worker", "sealer", "auditor"):
        with getattr(databases, role).begin() as tx:
            assert tx.execute(text("select current_user")).scalar_one() == f"mizan_{role}"
