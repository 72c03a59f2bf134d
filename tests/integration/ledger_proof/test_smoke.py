from tests.integration.ledger_proof.conftest import Books


def test_smoke(books: Books) -> None:
    ids = books.post(*[books.contribution(i % 5, 1001 + i) for i in range(20)])
    books.reverse(ids[3])
    assert books.fold(limit=7) == 42
    print(books.seal(limit=7))
    books.post(books.payment(books.bank, books.receivable, 50))
    r = books.verify()
    print(r.to_json())
    assert r.ok
