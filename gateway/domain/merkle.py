"""The Merkle tree of RFC 6962 §2: hashes, the growing edge, proofs and their verification. Pure.

A tree of n leaves splits at the largest power of two below n, so everything but the right edge
consists of complete subtrees. Whoever can name their hashes (:data:`NodeHash`) gets roots and
proofs in O(log n); who only grows the tree keeps a :class:`Frontier`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

HASH_BYTES = 32

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""RFC 6962 §2.1: the hash of no leaves."""

NodeHash: TypeAlias = Callable[[int, int], bytes]
"""``(level, index)`` to the hash of the complete subtree over leaves
``[index << level, (index + 1) << level)``."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry), RFC 6962 §2.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right), RFC 6962 §2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a growing tree: one hash per set bit of ``size``, largest subtree first."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> Frontier:
        """The tree with one more leaf hash; at most log2(size) hashings."""
        edge = self.hashes
        size = self.size
        while size & 1:
            leaf = node_hash(edge[-1], leaf)
            edge = edge[:-1]
            size >>= 1
        return Frontier(self.size + 1, (*edge, leaf))

    def root(self) -> bytes:
        """Root of the tree so far."""
        if not self.hashes:
            return EMPTY_ROOT
        *rest, root = self.hashes
        for left in reversed(rest):
            root = node_hash(left, root)
        return root

    def to_bytes(self) -> bytes:
        """The hashes one after the other; ``size`` travels beside them."""
        return b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Frontier:
        """The inverse of :meth:`to_bytes`.

        Raises:
            ValueError: the number of hashes does not fit ``size``.
        """
        if size < 0 or len(data) != size.bit_count() * HASH_BYTES:
            raise ValueError(f"{len(data)} bytes are no frontier of {size} leaves")
        return cls(size, tuple(data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)))


def leaves_source(leaves: Sequence[bytes]) -> NodeHash:
    """Node hashes from a list of leaf hashes, each computed once."""
    known: dict[tuple[int, int], bytes] = {}

    def node(level: int, index: int) -> bytes:
        if level == 0:
            return leaves[index]
        found = known.get((level, index))
        if found is None:
            found = node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))
            known[level, index] = found
        return found

    return node


def root_at(size: int, node: NodeHash) -> bytes:
    """Root of the tree when it had ``size`` leaves."""
    return EMPTY_ROOT if size == 0 else _subtree(0, size, node)


def frontier_at(size: int, node: NodeHash) -> Frontier:
    """The right edge when the tree had ``size`` leaves."""
    hashes = []
    start = 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            hashes.append(node(level, start >> level))
            start += 1 << level
    return Frontier(size, tuple(hashes))


def inclusion_proof(index: int, size: int, node: NodeHash) -> tuple[bytes, ...]:
    """RFC 6962 §2.1.1 PATH(index, D[size]), from the leaf to the root.

    Raises:
        ValueError: no such leaf in a tree of that size.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    path = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_subtree(middle, end, node))
            end = middle
        else:
            path.append(_subtree(start, middle, node))
            start = middle
    return tuple(reversed(path))


def consistency_proof(old: int, new: int, node: NodeHash) -> tuple[bytes, ...]:
    """RFC 6962 §2.1.2 PROOF(old, D[new]); empty when nothing is to be shown.

    Raises:
        ValueError: ``old`` is larger than ``new`` or negative.
    """
    if not 0 <= old <= new:
        raise ValueError(f"no proof from {old} to {new} leaves")
    if old in (0, new):
        return ()
    proof = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_subtree(middle, end, node))
            end = middle
        else:
            proof.append(_subtree(start, middle, node))
            start, whole = middle, False
    if not whole:
        proof.append(_subtree(start, end, node))
    return tuple(reversed(proof))


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``leaf`` stands at ``index`` of the tree with that root (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, value = index, size - 1, leaf
    for step in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            value = node_hash(step, value)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            value = node_hash(value, step)
        place, last = place >> 1, last >> 1
    return last == 0 and value == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of ``new`` leaves begins with that of ``old`` (RFC 9162 §2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    hashes = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    return bool(hashes) and _walk_consistency(old, new, hashes) == (old_root, new_root)


def _walk_consistency(old: int, new: int, hashes: list[bytes]) -> tuple[bytes, bytes] | None:
    """Both roots that the proof leads to, None when its length is wrong."""
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    first = second = hashes[0]
    for step in hashes[1:]:
        if last == 0:
            return None
        if place & 1 or place == last:
            first, second = node_hash(step, first), node_hash(step, second)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, step)
        place, last = place >> 1, last >> 1
    return (first, second) if last == 0 else None


def _split(count: int) -> int:
    """The largest power of two smaller than ``count`` (>= 2)."""
    return 1 << ((count - 1).bit_length() - 1)


def _subtree(start: int, end: int, node: NodeHash) -> bytes:
    """MTH(D[start:end]) where ``start`` is a place at which RFC 6962 splits."""
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(count)
    return node_hash(_subtree(start, middle, node), _subtree(middle, end, node))
