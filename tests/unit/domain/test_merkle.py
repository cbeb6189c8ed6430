"""The Merkle tree against a second implementation that follows RFC 6962 by the letter."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    frontier_at,
    inclusion_proof,
    leaf_hash,
    leaves_source,
    root_at,
    verify_consistency,
    verify_inclusion,
)

ENTRIES = st.lists(st.binary(max_size=8), max_size=70)


def naive_root(entries: list[bytes]) -> bytes:
    """RFC 6962 §2.1, as it is written there."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()


def grown(entries: list[bytes]) -> Frontier:
    frontier = Frontier()
    for entry in entries:
        frontier = frontier.append(leaf_hash(entry))
    return frontier


@given(ENTRIES)
def test_growing_leaf_by_leaf_gives_the_root_of_the_definition(entries: list[bytes]) -> None:
    leaves = [leaf_hash(e) for e in entries]
    assert grown(entries).root() == naive_root(entries) == root_at(len(entries), leaves_source(leaves))


@given(ENTRIES)
def test_a_frontier_survives_storage_and_can_be_rebuilt_from_the_tree(entries: list[bytes]) -> None:
    frontier = grown(entries)
    assert Frontier.from_bytes(frontier.size, frontier.to_bytes()) == frontier
    assert frontier_at(len(entries), leaves_source([leaf_hash(e) for e in entries])) == frontier


def test_the_vectors_of_certificate_transparency_hold() -> None:
    """The eight leaves and roots that the implementations of RFC 6962 share."""
    entries = [bytes.fromhex(x) for x in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
    entries.append(bytes(range(0x60, 0x70)))
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert grown(entries[:1]).root().hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert grown(entries).root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.mark.parametrize("size", range(1, 34))
def test_every_leaf_is_proven_and_no_other_leaf_place_or_size_is(size: int) -> None:
    leaves = [leaf_hash(bytes([i])) for i in range(size)]
    node = leaves_source(leaves)
    root = root_at(size, node)
    for index, leaf in enumerate(leaves):
        proof = inclusion_proof(index, size, node)
        assert verify_inclusion(index, size, leaf, proof, root)
        assert not verify_inclusion(index, size, leaf_hash(b"other"), proof, root)
        assert not verify_inclusion(index, size, leaf, (*proof, root), root)
        assert not verify_inclusion(size, size, leaf, proof, root)
        if proof:
            assert not verify_inclusion(index, size, leaf, proof[:-1], root)
            assert not verify_inclusion(index ^ 1, size, leaf, proof, root)


@pytest.mark.parametrize("new", range(1, 34))
def test_every_earlier_tree_is_proven_to_be_a_beginning_of_the_later_one(new: int) -> None:
    node = leaves_source([leaf_hash(bytes([i])) for i in range(new)])
    for old in range(new + 1):
        proof = consistency_proof(old, new, node)
        old_root, new_root = root_at(old, node), root_at(new, node)
        assert verify_consistency(old, new, old_root, new_root, proof)
        assert not verify_consistency(old, new, leaf_hash(b"x"), new_root, proof)
        assert not verify_consistency(old, new, old_root, new_root, (*proof, new_root))
        if proof:
            assert not verify_consistency(old, new, old_root, leaf_hash(b"x"), proof)
            assert not verify_consistency(old, new, old_root, new_root, proof[:-1])


@given(st.data(), st.integers(2, 60))
def test_a_rewritten_history_has_no_consistency_proof(data: st.DataObject, new: int) -> None:
    old = data.draw(st.integers(1, new))
    changed = data.draw(st.integers(0, old - 1))
    leaves = [leaf_hash(bytes([i])) for i in range(new)]
    before = root_at(old, leaves_source(leaves))
    leaves[changed] = leaf_hash(b"rewritten")
    node = leaves_source(leaves)
    assert not verify_consistency(old, new, before, root_at(new, node), consistency_proof(old, new, node))


def test_a_proof_for_what_is_not_there_is_refused() -> None:
    node = leaves_source([leaf_hash(b"a")])
    with pytest.raises(ValueError, match="leaf 1 is not in a tree of 1"):
        inclusion_proof(1, 1, node)
    with pytest.raises(ValueError, match="no proof from 2 to 1"):
        consistency_proof(2, 1, node)
    with pytest.raises(ValueError, match="no frontier of 3"):
        Frontier.from_bytes(3, b"x" * 32)
