"""The gateway as a process of the virtual loop: runner, store and both adapters, without sockets.

What ``gateway.runtime`` does with a configuration is done here with a handful of facts; from the
adapters' transports inwards everything is what runs in production.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from adapters.ocpp.line import Line
from adapters.ocpp.transport import OcppRunning
from adapters.ocpp.wire import Version
from adapters.oscp.caller import Caller
from adapters.oscp.transport import OscpRunning
from gateway.app.site import Controller, SiteFacts
from gateway.domain.ids import PeerId, SiteId, StationId
from gateway.domain.topology import NodeKind
from gateway.infra.runner import Runner
from gateway.kit.peer import PeerInfo
from gateway.ports.adapter import AdapterContext, ListenerSettings, Trust
from gateway.ports.fleet import StationSettings
from gateway.ports.gate import SiteGate
from gateway.ports.grid import GroupBinding, PeerSettings
from gateway.runtime import decode_state
from tests.simulation.disk import Disk
from tests.simulation.line import Link
from tests.simulation.loop import Process

SITE = SiteId("depot")
LISTENERS = {
    "grid": ListenerSettings("grid", "127.0.0.1", 0, Trust.INSECURE),
    "ocpp": ListenerSettings("ocpp", "127.0.0.1", 0, Trust.INSECURE),
}
SLEEP_S = 3_600.0


class MachineClock:
    """The machine's two clocks. ``off_s`` is how far the wall clock is ahead; asleep, the other stands still."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: datetime) -> None:
        self.off_s = 0.0
        self.slept_s = 0.0
        self._loop = loop
        self._start = start

    def now(self) -> datetime:
        return self._start + timedelta(seconds=round(self._loop.time() + self.off_s, 6))

    def monotonic(self) -> float:
        return self._loop.time() - self.slept_s

    def wall_seconds(self, story_s: float) -> float:
        return story_s

    async def sleep_until(self, instant: datetime) -> None:
        while (left := (instant - self.now()).total_seconds()) > 0:
            await asyncio.sleep(min(left, SLEEP_S))


@dataclasses.dataclass(frozen=True)
class Plan:
    """What does not change from one life to the next."""

    facts: SiteFacts
    stations: Sequence[StationSettings]
    peer: PeerSettings
    groups: Sequence[GroupBinding]
    call: Callable[[PeerSettings], Caller]


class _Door:
    """A listener of a world without sockets."""

    sockets = ()

    def close(self, **_how: Any) -> None:
        """Nothing is open."""

    async def wait_closed(self) -> None:
        """Nothing was open."""


class MemoryOcpp(OcppRunning):
    """The adapter; its connections come by :meth:`accept`."""

    async def _serve(self, _listener: ListenerSettings) -> Any:
        return _Door()

    async def accept(self, link: Link, version: Version) -> None:
        """Serve one connection to its end, as ``_connection`` does."""
        settings, peer = self._stations[StationId(link.station)], PeerInfo("ocpp", "127.0.0.1")
        socket: Any = link.gateway_end
        if not await self._make_room(settings, peer, socket):
            return
        line = Line(socket, self._core(settings, peer, version), peer, self._gate, self._clock)
        self._lines[settings.id] = line
        try:
            await line.run()
        finally:
            if self._lines.get(settings.id) is line:
                del self._lines[settings.id]


class SimulatedGateway:
    """One life of the process. ``serving`` is True from its start to its end."""

    def __init__(self, plan: Plan, disk: Disk, clock: MachineClock, process: Process, rng: random.Random) -> None:
        self.process = process
        self.disk = disk
        self.serving = False
        self.bugs: list[str] = []
        self.on_lost_track: Callable[[], None] = lambda: None
        self._plan = plan
        self._clock = clock
        self._random = rng

    async def start(self) -> None:
        """In the order of ``Gateway.start``."""
        plan = self._plan
        loaded = self.disk.open_site(SITE)
        fast = [n.path for n in plan.facts.tree.nodes.values() if n.kind is NodeKind.LOAD]
        self.runner = Runner(
            SITE,
            stepper=Controller(plan.facts),
            state=decode_state(loaded),
            loaded=loaded,
            store=self.disk,
            clock=self._clock,
            boot=f"boot-{loaded.epoch}",
            fast_nodes=fast,
            on_lost_track=self.on_lost_track,
            on_fatal=lambda problem: self.bugs.append(f"step failed: {problem!r}"),
        )
        self.runner.courier._jitter = self._random
        key = str(self.disk.folder / "oscp.key")
        self.ocpp = MemoryOcpp(self._context("ocpp", self.runner, {}))
        self.oscp = OscpRunning(self._context("oscp", self.runner, {"key_file": key}), plan.call)
        self.runner.attach([self.ocpp])
        await self.runner.start("0" * 64)
        for adapter in (self.ocpp, self.oscp):
            await adapter.start({"grid": "http://gateway"})
        assert self.oscp.carrier is not None
        self.runner.carry([self.oscp.carrier])
        self.serving = True

    async def stop(self) -> None:
        """The orderly end."""
        self.serving = False
        await self.ocpp.stop(1)
        await self.oscp.stop(1)
        await self.runner.stop("end of the simulation")

    def _context(self, name: str, gate: SiteGate, options: dict[str, str | int | bool]) -> AdapterContext:
        plan = self._plan
        return AdapterContext(
            site=SITE,
            tree=plan.facts.tree,
            gate=gate,
            clock=self._clock,
            listeners=LISTENERS,
            identities={},
            peers=[plan.peer] if name == "oscp" else [],
            groups=plan.groups if name == "oscp" else [],
            stations=plan.stations if name == "ocpp" else [],
            options=options,
        )


__all__ = ["SITE", "MachineClock", "MemoryOcpp", "PeerId", "Plan", "SimulatedGateway"]
