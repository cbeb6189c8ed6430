"""A lowering forecast's POST until the last station has read a lower limit, against `plain_csms`.

A hundred light stations (`limits_1000`: a thousand) in a transaction each, half 1.6J and half 2.0.1,
over mutual TLS. Every forecast is lower than the one before; only decreases are timed. CPU is counted
from the POST until a second and a half after it: by then the gateway has also recorded the answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic

from gateway.testing.stage import SitePlan, StationPlan
from tests.bench.figures import milliseconds
from tests.bench.herd import Herd, Member, a_herd
from tests.bench.rig import GRIDGATE, PLAIN, Rig, Side, a_rig, forecast

STATIONS = 100
GROUP = "DEPOT-7"
STATIC_W = 30_000
"""Per station, like the next two."""
SAFE_SHARE_W = 4_140
PER_CIRCUIT = 10
GENEROUS_W = 24_000
CUTS_W = tuple(range(20_000, 8_000, -1_500))
"""The first is not counted: it warms both up."""
CHARGING_A = 25.0
WATTS_PER_AMPERE = 690
WINDOW_S = 1.5


@dataclass
class Figures:
    """A value per cut, seconds."""

    acknowledged: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    profiles: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"last read {milliseconds(self.last)}, first {milliseconds(self.first)}, "
            f"204 {milliseconds(self.acknowledged)}, CPU {milliseconds(self.cpu)}, {median(self.profiles):.0f} profiles"
        )


def run(stations: int = STATIONS, cuts_w: Sequence[int] = CUTS_W) -> list[str]:
    """One line."""
    with TemporaryDirectory(prefix="gridgate-bench-") as folder:
        return [asyncio.run(_bench(Path(folder), stations, cuts_w))]


async def _bench(folder: Path, stations: int, cuts_w: Sequence[int]) -> str:
    plan = _plan(stations)
    found = {GRIDGATE: Figures(), PLAIN: Figures()}
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(a_rig(folder, plan, "plain_csms"))
        identities = rig.depot.stage.pki.stations
        members = [Member(s.id, s.version, identities[s.id]) for s in plan.stations]
        herds = {}
        for side in rig.sides:
            herds[side.name] = await stack.enter_async_context(a_herd())
            await herds[side.name].connect(side.ports["ocpp"], members)
        for side in rig.sides:
            await _allow(side, herds[side.name], GENEROUS_W * stations)
        for turn, cut_w in enumerate(cuts_w):
            for side in rig.sides[:: 1 if turn % 2 else -1]:
                await _measure(side, herds[side.name], cut_w, stations, found[side.name] if turn else Figures())
    _check(rig, stations * len(cuts_w))
    ours, plain = found[GRIDGATE], found[PLAIN]
    return (
        f"limits, {stations} stations: gridgate {ours}; ocpp and gather {plain}; "
        f"gridgate takes {median(ours.last) / median(plain.last):.1f} times as long, "
        f"{median(ours.cpu) / median(plain.cpu):.1f} times the CPU"
    )


async def _measure(side: Side, herd: Herd, cut_w: int, stations: int, found: Figures) -> None:
    poster = await side.connect()
    cpu, start = side.cpu_s(), monotonic()
    await side.post(poster, forecast(GROUP, cut_w * stations, 1, 120))
    acknowledged = monotonic()
    await asyncio.sleep(start + WINDOW_S - monotonic())
    used = side.cpu_s() - cpu
    share_a = cut_w / WATTS_PER_AMPERE
    lowered = await herd.lowered(start, share_a)
    assert lowered.highest_a <= share_a, "a station may take more than its part of the cut"
    await poster.close()
    found.acknowledged.append(acknowledged - start)
    found.first.append(lowered.first - start)
    found.last.append(lowered.last - start)
    found.cpu.append(used)
    found.profiles.append(lowered.profiles)


async def _allow(side: Side, herd: Herd, watts: int) -> None:
    for version in ("1.6", "2.0.1"):
        await herd.begin(version)
    poster = await side.connect()
    await side.post(poster, forecast(GROUP, watts, 1, 120))
    await poster.close()
    await herd.allowed(CHARGING_A)


def _plan(count: int) -> SitePlan:
    circuits = range(count // PER_CIRCUIT)
    stations = tuple(
        StationPlan(
            f"CP-{n}",
            f"main/c{n // PER_CIRCUIT}/evse-{n}",
            "1.6" if n % 2 else "2.0.1",
            safe_share_w=SAFE_SHARE_W,
        )
        for n in range(count)
    )
    nodes = [{"path": "main", "kind": "GRID_CONNECTION", "import_max_w": STATIC_W * count, "export_max_w": 0}]
    nodes += [{"path": f"main/c{n}", "kind": "CIRCUIT", "import_max_w": STATIC_W * PER_CIRCUIT} for n in circuits]
    return SitePlan("depot", GROUP, "main", nodes, stations, meters=("main",))


def _check(rig: Rig, lowered: int) -> None:
    """The gateway has every forecast in evidence, and for each cut an acknowledged setpoint of every station."""
    revised = [entry.subject["request_id"] for entry in rig.depot.entries("envelope.revised")]
    assert sorted(revised) == sorted(rig.sides[0].sent), "acknowledged, but not in evidence"
    lowering = {e.subject["command"] for e in rig.depot.entries("setpoint.sent") if e.body["tightens"]}
    taken = {entry.subject["command"] for entry in rig.depot.entries("setpoint.acknowledged")}
    assert len(lowering & taken) >= lowered, "a station was lowered without evidence of it"
    rig.depot.verify()
