"""The stored log as a Merkle tree: leaf hashes in ``entry``, every eighth level in ``node``. Reads only."""

from __future__ import annotations

import sqlite3

from gateway.domain.merkle import NodeHash, node_hash

TILE_HEIGHT = 8
"""C2SP tlog-tiles: a tile is 8 levels of the tree, 256 hashes wide."""

TILE_WIDTH = 1 << TILE_HEIGHT


def row_hashes(connection: sqlite3.Connection, row: int, start: int, count: int) -> list[bytes]:
    """Hashes ``[start, start + count)`` of the tree's level ``row * 8``; fewer where it ends."""
    if row == 0:
        query = "SELECT leaf FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx"
        found = connection.execute(query, (start, start + count))
    else:
        query = "SELECT hash FROM node WHERE level = ? AND pos >= ? AND pos < ? ORDER BY pos"
        found = connection.execute(query, (row * TILE_HEIGHT, start, start + count))
    return [hash_ for (hash_,) in found]


def fold(hashes: list[bytes]) -> bytes:
    """The hash over a complete subtree's row (a power of two of hashes)."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]


def stored_nodes(connection: sqlite3.Connection) -> NodeHash:
    """Node hashes of the stored tree; raises ``LookupError`` where rows are missing."""

    def node(level: int, index: int) -> bytes:
        row, inner = divmod(level, TILE_HEIGHT)
        width = 1 << inner
        hashes = row_hashes(connection, row, index * width, width)
        if len(hashes) != width:
            raise LookupError(f"level {level} index {index} of the tree is not stored")
        return fold(hashes)

    return node
