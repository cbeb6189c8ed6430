"""A forecast's POST until its 204 with durable evidence, over mutual TLS, against `plain_forecast`.

Two payloads: a single block, and a day of quarter hours. Every capacity differs from the one before,
so that the gateway has something to decide. Ten EVSEs, no station connected.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from tests.bench.figures import milliseconds, percentile_95
from tests.bench.poster import Poster
from tests.bench.rig import GRIDGATE, PLAIN, Rig, Side, a_rig, forecast
from tests.support.gateway import GROUP, a_plan

EVSES = 10
STATIC_W = 400_000
LOWEST_W = 100_000
RUNS = 7
SIZES = (1, 96)
CONNECTIONS = (1, 8)
REQUESTS = {1: 40, 8: 10}
"""Of each connection, by the number of connections."""
COMMITS = 60


@dataclass
class Figures:
    """Of one server in one setting; a value per run, seconds. ``single``: every request's own time."""

    single: list[float] = field(default_factory=list)
    typical: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{milliseconds(self.typical)}, p95 {1_000 * percentile_95(self.single):.2f} ms, "
            f"{median(self.rate):.0f}/s, CPU {milliseconds(self.cpu)}"
        )


def run() -> list[str]:
    """A line per setting, and what a commit alone takes."""
    with TemporaryDirectory(prefix="gridgate-bench-") as folder:
        return asyncio.run(_bench(Path(folder)))


async def _bench(folder: Path) -> list[str]:
    found: defaultdict[tuple[int, int, str], Figures] = defaultdict(Figures)
    commits = []
    plan = a_plan(*["1.6", "2.0.1"] * (EVSES // 2), static_w=STATIC_W)
    async with a_rig(folder, plan, "plain_forecast") as rig:
        for turn in range(RUNS):
            for blocks in SIZES:
                for connections in CONNECTIONS:
                    for side in rig.sides[:: 1 if turn % 2 else -1]:
                        await _measure(side, blocks, connections, found[blocks, connections, side.name])
            commits.append(_commit_s(folder / f"floor-{turn}.db"))
        _check_plain(rig)
    _check_gridgate(rig)
    lines = [_line(found, blocks, connections) for blocks in SIZES for connections in CONNECTIONS]
    return [*lines, f"forecast, floor: one durable INSERT without any server {milliseconds(commits)}"]


async def _measure(side: Side, blocks: int, connections: int, found: Figures) -> None:
    posters = [await side.connect() for _ in range(connections)]
    bodies = [
        [forecast(GROUP, LOWEST_W + 10 * (len(side.sent) + c + connections * n), blocks) for n in range(count)]
        for c, count in enumerate([REQUESTS[connections]] * connections)
    ]
    cpu, start = side.cpu_s(), perf_counter()
    times = [t for own in await asyncio.gather(*map(_posted, [side] * connections, posters, bodies)) for t in own]
    elapsed, used = perf_counter() - start, side.cpu_s() - cpu
    for poster in posters:
        await poster.close()
    found.single += times
    found.typical.append(median(times))
    found.rate.append(len(times) / elapsed)
    found.cpu.append(used / len(times))


async def _posted(side: Side, poster: Poster, bodies: list[bytes]) -> list[float]:
    times = []
    for body in bodies:
        start = perf_counter()
        await side.post(poster, body)
        times.append(perf_counter() - start)
    return times


def _line(found: dict[tuple[int, int, str], Figures], blocks: int, connections: int) -> str:
    ours, plain = (found[blocks, connections, name] for name in (GRIDGATE, PLAIN))
    size = len(forecast(GROUP, LOWEST_W, blocks))
    return (
        f"forecast, blocks {blocks:2} ({size:,} bytes), connections {connections}: gridgate {ours}; "
        f"FastAPI and one INSERT {plain}; "
        f"gridgate takes {median(ours.typical) / median(plain.typical):.1f} times as long, "
        f"{median(ours.cpu) / median(plain.cpu):.1f} times the CPU"
    )


def _commit_s(database: Path) -> float:
    """Median seconds of one durable INSERT of a day's forecast."""
    body, times = forecast(GROUP, LOWEST_W, 96), []
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE forecast(request_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT")
    for n in range(COMMITS):
        start = perf_counter()
        connection.execute("INSERT INTO forecast VALUES (?, ?)", (f"{n}", body.decode()))
        times.append(perf_counter() - start)
    connection.close()
    return median(times)


def _check_plain(rig: Rig) -> None:
    """Every acknowledged forecast is a row."""
    with sqlite3.connect(rig.depot.stage.folder / "plain.db") as connection:
        stored = {row[0] for row in connection.execute("SELECT request_id FROM forecast")}
    assert stored == set(rig.sides[1].sent), "acknowledged, but not stored"


def _check_gridgate(rig: Rig) -> None:
    """Every acknowledged forecast is evidence, once, in a log that verifies."""
    stored = [entry.subject["request_id"] for entry in rig.depot.entries("envelope.revised")]
    assert sorted(stored) == sorted(rig.sides[0].sent), "acknowledged, but not in evidence"
    rig.depot.verify()
