"""Meter values per second against the ``ocpp`` package's server, and without sockets against its router.

A hundred stations of each version, one CALL in flight each, plain TCP on loopback. A message carries eight
sampled values: a ``MeterValues`` of 1.6 or a periodic ``TransactionEvent`` of 2.0.1. The gateway checks,
translates, commits the eight to its telemetry file and then answers; the baseline checks and answers.
CPU is that of the whole process, its deciding about the samples included.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

from adapters.ocpp.core import Job, Memory, OpenTransaction, Options, StationCore, Tools
from adapters.ocpp.diagnosis import diagnose
from adapters.ocpp.quirk_table import quirks
from adapters.ocpp.session import Received, Send
from adapters.ocpp.wire import Version
from gateway.domain.evidence import Actor
from gateway.domain.ids import NodeId, StationId
from gateway.domain.quantities import MilliAmperes, Phase, Volts
from gateway.ports.fleet import EvseBinding, StationSettings
from gateway.testing.child import gateway_child
from tests.bench.figures import cpu_s, microseconds
from tests.bench.frames import call, maker
from tests.bench.herd import Herd, Member, a_herd
from tests.bench.plain_csms import Station16, Station201
from tests.bench.rig import GRIDGATE, PLAIN, ROOT
from tests.bench.site import a_site, stored_samples

VERSIONS = ("1.6", "2.0.1")
STATIONS = 100
"""Of each version."""

EACH = 25
"""Messages of a station in one run."""

RUNS = 5
FRAMES = 1_000
"""Without sockets, in one run."""

SAMPLES = 8


@dataclass
class Figures:
    """Of one server and version; a value per run: messages a second, CPU seconds of a message."""

    rate: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        low, middle, high = (f"{value:,.0f}" for value in (min(self.rate), median(self.rate), max(self.rate)))
        return f"{middle}/s ({low} to {high}), CPU {microseconds(self.cpu)}"


def run() -> list[str]:
    """A line per version with sockets, and one without."""
    with TemporaryDirectory(prefix="gridgate-bench-") as folder:
        lines = asyncio.run(_with_sockets(Path(folder)))
    return [*lines, *(_without_sockets(version) for version in VERSIONS)]


async def _with_sockets(folder: Path) -> list[str]:
    found: defaultdict[tuple[str, str], Figures] = defaultdict(Figures)
    members = [Member(f"CP-{n}", VERSIONS[n % 2]) for n in range(2 * STATIONS)]
    async with AsyncExitStack() as stack:
        depot = a_site(folder, members)
        gateway, ports = await stack.enter_async_context(depot.running())
        command = (sys.executable, "-m", "tests.bench.plain_stations")
        plain = await stack.enter_async_context(gateway_child(command, ROOT))
        sides: list[tuple[str, int, Herd]] = []
        for name, pid, port in (
            (GRIDGATE, gateway.pid, ports["ocpp-basic"]),
            (PLAIN, plain.pid, (await plain.ready())["ocpp"]),
        ):
            herd = await stack.enter_async_context(a_herd())
            await herd.connect(port, members)
            for version in VERSIONS:
                await herd.begin(version)
                await herd.report(version, 1)
            sides.append((name, pid, herd))
        for turn in range(RUNS):
            for version in VERSIONS:
                for name, pid, herd in sides[:: 1 if turn % 2 else -1]:
                    await _measure(pid, herd, version, found[name, version])
        await gateway.stop()
    expected = 2 * STATIONS * SAMPLES * (RUNS * EACH + 1)
    assert stored_samples(depot) == expected, "acknowledged, but not stored"
    return [_line(found, version) for version in VERSIONS]


async def _measure(pid: int, herd: Herd, version: str, found: Figures) -> None:
    cpu = cpu_s(pid)
    elapsed = await herd.report(version, EACH)
    count = STATIONS * EACH
    found.rate.append(count / elapsed)
    found.cpu.append((cpu_s(pid) - cpu) / count)


def _line(found: dict[tuple[str, str], Figures], version: str) -> str:
    ours, plain = found[GRIDGATE, version], found[PLAIN, version]
    return (
        f"meters, {version}, {STATIONS} stations, {SAMPLES} values a message: gridgate, stored, {ours}; "
        f"ocpp, not stored, {plain}; "
        f"ratio {median(ours.rate) / median(plain.rate):.1f} by rate, {median(plain.cpu) / median(ours.cpu):.1f} by CPU"
    )


def _without_sockets(version: str) -> str:
    words = maker("CP-1", version)
    texts = [call(f"{n}", *words.values()).decode() for n in range(FRAMES)]
    times: dict[str, list[float]] = {GRIDGATE: [], PLAIN: []}
    for turn in range(RUNS):
        ways = {GRIDGATE: _through_core, PLAIN: _through_router}
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            times[name].append(ways[name](version, texts) / FRAMES)
    ours, plain = times[GRIDGATE], times[PLAIN]
    return (
        f"meters, {version}, frame to answer without sockets: gridgate, with measurements, {microseconds(ours)}; "
        f"ocpp's route_message {microseconds(plain)}; ratio {median(plain) / median(ours):.1f}"
    )


def _through_core(version: str, texts: list[str]) -> float:
    """CPU seconds from text to answer, checked and translated to measurements."""
    core, now = _a_core(version), datetime.now(UTC)
    core.open(now, 0.0)
    samples = answers = 0
    start = process_time()
    for text in texts:
        for received in core.receive(text, now, 0.0):
            assert isinstance(received, Received)
            for job in core.handle(received, now, 0.0):
                assert isinstance(job, Job)
                samples += len(job.samples)
                core.begin(job)
                answers += sum(isinstance(action, Send) for action in core.done(job, None, now, 0.0))
    elapsed = process_time() - start
    assert (answers, samples) == (len(texts), SAMPLES * len(texts)), "not every message became an answer and samples"
    return elapsed


def _a_core(version: str) -> StationCore:
    binding = EvseBinding(
        NodeId("main/evse-1"), 1, (Phase.L1, Phase.L2, Phase.L3), Volts(230), MilliAmperes(32_000), MilliAmperes(6_000)
    )
    known = {"T-CP-1": OpenTransaction(1, "2026-01-01T00:00:00Z", "Charging")}
    return StationCore(
        settings=StationSettings(StationId("CP-1"), "SN-CP-1", "ocpp", 0, (binding,)),
        version=Version(f"ocpp{version}"),
        generation=1,
        actor=Actor("station", "CP-1"),
        memory=Memory(booted=True, transactions=known),
        tools=Tools(lambda: "id", lambda: 1, diagnose, b"k" * 32, quirks()),
        options=Options(),
        proven_serial=False,
    )


class _Answers:
    """Counts what the router sends."""

    count = 0

    async def send(self, text: str) -> None:
        self.count += text.startswith("[3")


def _through_router(version: str, texts: list[str]) -> float:
    """CPU seconds of ``route_message``."""

    async def route() -> float:
        answers: Any = _Answers()
        station = (Station16 if version == "1.6" else Station201)("CP-1", answers)
        await station.route_message(texts[0])
        start = process_time()
        for text in texts:
            await station.route_message(text)
        elapsed = process_time() - start
        assert answers.count == len(texts) + 1, "a message had no answer"
        return elapsed

    return asyncio.run(route())
