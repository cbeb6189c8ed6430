"""`limits` with a thousand stations: most of its minutes go by until all of them charge."""

from __future__ import annotations

from tests.bench import bench_limits

STATIONS = 1_000
CUTS_W = bench_limits.CUTS_W[:5]


def run() -> list[str]:
    """One line."""
    return bench_limits.run(STATIONS, CUTS_W)
