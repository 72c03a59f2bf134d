"""Merkle trees as RFC 9162 (Certificate Transparency 2.0), section 2.1, defines them, with SHA-256.

A leaf is hashed behind the byte 0x00 and an inner node behind 0x01, so that no inner node can pass for a leaf.
The tree over n leaves splits at the largest power of two below n; built from below, that is the same as pairing
neighbours level by level and carrying a lone last node up unchanged.
"""

from collections.abc import Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
_LEAF = b"\x00"
_NODE = b"\x01"


class ProofError(ValueError):
    """An audit path that cannot belong to the tree it is said to come from."""


def hash_leaf(data: bytes) -> bytes:
    """The hash of a leaf's data (RFC 9162, 2.1.1)."""
    return sha256(_LEAF + data).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """The hash of the inner node over two subtrees (RFC 9162, 2.1.1)."""
    return sha256(_NODE + left + right).digest()


class Tree:
    """A tree that is fed leaf by leaf and keeps only the roots of its complete subtrees: O(log n) memory."""

    __slots__ = ("_size", "_subtrees")

    def __init__(self) -> None:
        self._subtrees: list[bytes] = []
        self._size = 0

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return self._size

    def append(self, leaf_hash: bytes) -> None:
        """Adds the next leaf, already hashed."""
        node = leaf_hash
        # Each trailing one bit of the size is a complete subtree as large as the one just completed.
        carry = self._size
        while carry & 1:
            node = hash_node(self._subtrees.pop(), node)
            carry >>= 1
        self._subtrees.append(node)
        self._size += 1

    def root(self) -> bytes:
        """The root over what was appended so far; more may follow."""
        if not self._subtrees:
            return EMPTY_ROOT
        node = self._subtrees[-1]
        for left in reversed(self._subtrees[:-1]):
            node = hash_node(left, node)
        return node


def audit_path(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The inclusion proof of leaf `index`: the siblings on its way up (RFC 9162, 2.1.3.1).

    Raises ProofError when there is no such leaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise ProofError(f"no leaf {index} in a tree of {len(leaf_hashes)}")
    path: list[bytes] = []
    level = list(leaf_hashes)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        paired = [hash_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
        index //= 2
    return path


def root_from_path(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to (RFC 9162, 2.1.3.2); the caller compares it with the signed one.

    Raises ProofError when the path's length or a hash's length does not fit a tree of `size` leaves.
    """
    if not 0 <= index < size:
        raise ProofError(f"no leaf {index} in a tree of {size}")
    if len(leaf_hash) != HASH_BYTES or any(len(sibling) != HASH_BYTES for sibling in path):
        raise ProofError("a hash in the proof is not 32 bytes long")
    position, last, node = index, size - 1, leaf_hash
    for sibling in path:
        if last == 0:
            raise ProofError("the path is too long for its tree")
        if position & 1 or position == last:
            node = hash_node(sibling, node)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            node = hash_node(node, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofError("the path is too short for its tree")
    return node
