"""Publishes a log as files: C2SP tlog-tiles, for witnesses, auditors and other people's tools."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from gateway.domain.errors import EvidenceError, StoreError
from gateway.infra.evidence_tree import TILE_WIDTH, row_hashes
from gateway.infra.store_sql.connection import connect_reader


@dataclass(frozen=True, slots=True)
class Published:
    """What was written: up to which size, and how many files (tiles and the checkpoint)."""

    size: int
    files: int


def tile_path(row: str, number: int, width: int) -> str:
    """``tile/<row>/<number>[.p/<width>]``; 1234067 is ``x001/x234/067``."""
    groups: list[str] = []
    rest = number
    while True:
        rest, group = divmod(rest, 1_000)
        groups.append(f"{group:03d}" if not groups else f"x{group:03d}")
        if not rest:
            break
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{row}/{'/'.join(reversed(groups))}{partial}"


def export_tiles(db_path: Path, folder: Path, *, entries: bool = True) -> Published:
    """Write the log as of its newest checkpoint into ``folder``; the checkpoint comes last.

    Args:
        entries: also entry bundles. They hold business data; witnesses need hashes only.

    Raises:
        EvidenceError: nothing is signed yet, or rows are missing.
        StoreError: a file cannot be read or written.
    """
    try:
        with closing(connect_reader(Path(db_path))) as connection:
            connection.execute("BEGIN")
            signed = connection.execute("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
            if signed is None:
                raise EvidenceError("nothing is signed in this log yet", code="store.nothing-signed")
            files = 1
            for name, data in _files(connection, signed[0], entries=entries):
                _write(Path(folder) / name, data)
                files += 1
            _write(Path(folder) / "checkpoint", signed[1])
    except (sqlite3.Error, OSError) as problem:
        raise StoreError(f"tiles not written: {problem}", code="store.export-failed") from problem
    return Published(signed[0], files)


def _files(connection: sqlite3.Connection, size: int, *, entries: bool) -> Iterator[tuple[str, bytes]]:
    row, count = 0, size
    while count:
        for number, start, width in _tiles(count):
            hashes = row_hashes(connection, row, start, width)
            if len(hashes) != width:
                raise EvidenceError(f"hashes of row {row} from {start} on are missing", code="store.evidence-damaged")
            yield tile_path(str(row), number, width), b"".join(hashes)
        row, count = row + 1, count // TILE_WIDTH
    for number, start, width in _tiles(size) if entries else ():
        yield tile_path("entries", number, width), _bundle(connection, start, width)


def _tiles(count: int) -> Iterator[tuple[int, int, int]]:
    """Number, first hash and width of every tile in a row of ``count``."""
    for number, start in enumerate(range(0, count, TILE_WIDTH)):
        yield number, start, min(TILE_WIDTH, count - start)


def _bundle(connection: sqlite3.Connection, start: int, width: int) -> bytes:
    rows = connection.execute("SELECT data FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", (start, start + width))
    return b"".join(len(data).to_bytes(2, "big") + data for (data,) in rows)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
