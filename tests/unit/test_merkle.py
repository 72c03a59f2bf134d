"""The tree is the one of RFC 9162: known answers, the definition itself, and proofs that cannot be bent."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.merkle import EMPTY_ROOT, ProofError, Tree, audit_path, hash_leaf, hash_node, root_from_path

# The well-known inputs of the Certificate Transparency reference implementation, with the roots over the first n.
CT_INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def root_by_definition(leaves: list[bytes]) -> bytes:
    """RFC 9162, 2.1.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hash_node(root_by_definition(leaves[:split]), root_by_definition(leaves[split:]))


def tree_of(leaves: list[bytes]) -> Tree:
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree


@pytest.mark.parametrize("size", CT_ROOTS)
def test_the_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert tree_of([hash_leaf(data) for data in CT_INPUTS[:size]]).root().hex() == CT_ROOTS[size]


def test_an_empty_tree_has_the_hash_of_nothing() -> None:
    assert Tree().root() == EMPTY_ROOT == sha256(b"").digest()


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_streamed_root_is_the_root_by_definition(data: list[bytes]) -> None:
    leaves = [hash_leaf(item) for item in data]
    tree = tree_of(leaves)
    assert tree.root() == root_by_definition(leaves)
    assert tree.size == len(leaves)


def test_every_leaf_of_every_small_tree_proves_its_place_and_no_other() -> None:
    for size in range(1, 34):
        leaves = [hash_leaf(bytes([number])) for number in range(size)]
        root = tree_of(leaves).root()
        for index in range(size):
            path = audit_path(leaves, index)
            assert root_from_path(leaves[index], index, size, path) == root
            assert root_from_path(hash_leaf(b"other"), index, size, path) != root
            for wrong in range(size):
                if wrong != index:
                    try:
                        assert root_from_path(leaves[index], wrong, size, path) != root
                    except ProofError:
                        continue


def test_a_bent_path_leads_to_another_root() -> None:
    leaves = [hash_leaf(bytes([number])) for number in range(11)]
    root = tree_of(leaves).root()
    path = audit_path(leaves, 4)
    for position in range(len(path)):
        bent = list(path)
        bent[position] = hash_leaf(b"bent")
        assert root_from_path(leaves[4], 4, 11, bent) != root


def test_a_path_of_the_wrong_length_is_refused() -> None:
    leaves = [hash_leaf(bytes([number])) for number in range(8)]
    path = audit_path(leaves, 3)
    with pytest.raises(ProofError, match="too short"):
        root_from_path(leaves[3], 3, 8, path[:-1])
    with pytest.raises(ProofError, match="too long"):
        root_from_path(leaves[3], 3, 8, [*path, leaves[0]])
    with pytest.raises(ProofError, match="32 bytes"):
        root_from_path(leaves[3], 3, 8, [path[0][:31], *path[1:]])


def test_a_leaf_outside_the_tree_has_no_proof() -> None:
    leaves = [hash_leaf(b"only")]
    with pytest.raises(ProofError):
        audit_path(leaves, 1)
    with pytest.raises(ProofError):
        root_from_path(leaves[0], 1, 1, [])
    assert root_from_path(leaves[0], 0, 1, []) == leaves[0]


def test_no_inner_node_passes_for_a_leaf() -> None:
    left, right = hash_leaf(b"a"), hash_leaf(b"b")
    assert hash_node(left, right) != hash_leaf(left + right)
