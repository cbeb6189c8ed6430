"""A seeded world that tries to break the gateway: ``python -m tests.simulation SEED`` lives one again.

Seconds are true ones since the start. The gateway's clock lags by up to ``LATE_CLOCK_S``, a station's
is up to ``SKEW_S`` off and its car takes up to ``LAG_S`` to follow: together less than the guard.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import random
import secrets
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from adapters.ocpp.peer.outlet import Car
from adapters.oscp.peer import ForecastBlock
from adapters.oscp.wire import ForecastType
from gateway.app.site import SiteFacts, SiteState
from gateway.app.state import Settings
from gateway.domain.envelope import BindingPolicy
from gateway.domain.errors import GatewayError, StoreError
from gateway.domain.ids import NodeId, PeerId, SourceId, StationId
from gateway.domain.measurement import Measurement, Quantity
from gateway.domain.quantities import MilliAmperes, Phase, Volts, Watts
from gateway.domain.topology import EvseFacts, Node, NodeKind, Tree
from gateway.infra.evidence_read import EvidenceReader
from gateway.infra.evidence_verify import verify_log
from gateway.ports.fleet import EvseBinding, StationSettings
from gateway.ports.grid import GroupBinding, PeerSettings
from tests.property.fleet_model import FALLBACK, FAR, PHASES
from tests.simulation.disk import Disk
from tests.simulation.fleet import MAX_A, VOLTS, Meter, Station
from tests.simulation.gateway import SITE, MachineClock, Plan, SimulatedGateway
from tests.simulation.grid import GROUP, TOKEN, Dso
from tests.simulation.line import DETECTED_S, HttpLine, Link, StationEnd
from tests.simulation.loop import Process, StandsStillError, VirtualLoop
from tests.simulation.oracle import KEPT_S, Oracle, Word

T0 = datetime(2031, 3, 1, 17, tzinfo=UTC)
LENGTH_S = 1_200.0
CALM_S = 45.0
"""Until then nothing goes wrong: everybody finds each other."""

SKEW_S, LAG_S, LATE_CLOCK_S = 2.0, 4.0, 3.0
MAIN_W, GARAGE_W, LOAD_W, SHARE_W = 60_000, 44_000, 6_000, 4_800
NAMES = ("CP-1", "CP-2", "CP-3")
MAIN, HOUSE = NodeId("main"), NodeId("main/house")
DSO = PeerId("dso")
HEARTBEAT_S = 120.0
SETTINGS = Settings(guard_s=10, validity_s=300, confirm_s=20, retry_s=30, dead_frame_s=120)
POLICY = BindingPolicy(recover_s=20, window_s=600)

CHANCES = {
    "frame lost": 0.02,
    "frame late": 0.006,
    "frame doubled": 0.02,
    "request lost": 0.1,
    "answer lost": 0.1,
    "request late": 0.1,
    "request doubled": 0.1,
}
"""Of each frame or request, where the weather is bad."""

FAULTS = (
    *CHANCES,
    "clock step",
    "commit in doubt",
    "commit refused",
    "disk full",
    "fallback in silence",
    "forecast overlaps",
    "forecasts contradict",
    "gap",
    "grid party silent",
    "kill",
    "kill at a commit",
    "line cut",
    "machine asleep",
    "meter drift",
    "meter frozen",
    "meter jump",
    "phase switch",
    "profiles lost",
    "station away",
    "station clock",
    "station lying",
    "station mute",
    "station reboot",
)
"""All that can happen; each must, in a run that is long enough."""

HARMLESS = ("frame doubled", "request lost", "answer lost", "request late", "request doubled")
"""What the gateway has not to heal from: its peer says it again, or is not believed to have said it."""

EVENTS = 30


@dataclass
class World:
    """One seeded life of a site."""

    seed: int
    length_s: float = LENGTH_S
    keep: Path | None = None
    """Where the store is left, as its last process left it."""
    happened: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.quiet = self.random.random() < 0.1
        """Without faults: here it shows whether cars get what they could."""
        self.storm = 0.0 if self.quiet else self.random.choice([0.0, 0.3, 1.0, 2.0])
        """How bad the weather on the lines is."""
        self.loop = VirtualLoop(self._look)
        self.true = MachineClock(self.loop, T0)
        self.clock = MachineClock(self.loop, T0)
        self.clock.off_s = -self.random.uniform(0, LATE_CLOCK_S)
        self.gateway: SimulatedGateway | None = None
        self.links: dict[str, Link] = {}
        self.stations = [self._station(name) for name in NAMES]
        rows = [("main", "", float(MAIN_W)), ("garage", "", float(GARAGE_W))]
        self.oracle = Oracle(rows, LOAD_W, SETTINGS.validity_s + SETTINGS.guard_s + LATE_CLOCK_S + 7, self.stations)
        self.dso = Dso(self.true, HttpLine(self, self._reach_gateway), self._pause)
        self.fallback_w = self.random.choice([LOAD_W, 12_000, 20_000])
        self.gap = self._draw_gap()
        self.silent = False
        self.alive_until = self.spoke_at = 0.0
        self.fallback: Word | None = None
        self.meter = Meter()
        self.lives = 0
        self.log: list[tuple[str, str]] = []
        """Type and id of every entry of the evidence."""
        self.final: SiteState | None = None
        self.story: list[str] = []
        self.over = False
        self._plan = self._make_plan()
        self._chores: set[asyncio.Task[None]] = set()
        self._processes: list[Process] = []
        self._sleeping = False

    # --- weather --------------------------------------------------------------------------------

    def strikes(self, what: str) -> bool:
        """Whether it happens now; counted if so."""
        chance = CHANCES[what] * self.storm
        if self.now < CALM_S or not chance or self.random.random() >= chance:
            return False
        self.count(what)
        return True

    def count(self, what: str) -> None:
        """A fault has happened."""
        self.happened[what] += 1
        self.tell(what)
        if what not in HARMLESS:
            self.oracle.trouble(self.now)

    @property
    def steps(self) -> int:
        """How many the controller has made."""
        return self.final.seq if self.final is not None else 0

    def tell(self, what: str) -> None:
        """A line of the story."""
        self.story.append(f"{self.now:8.1f}  {what}")

    @property
    def now(self) -> float:
        """True seconds."""
        return self.loop.time()

    # --- the gateway's process ------------------------------------------------------------------

    def start_gateway(self) -> None:
        """A new process on what the last one left."""
        process = Process(self.loop)
        self._processes.append(process)  # a task that is collected while the world goes on would act in it
        disk = Disk(self._folder(self.lives), self.random, self.clock.now)
        disk.on_death = lambda: self._die("kill at a commit")
        disk.on_doubt = lambda: self.count("commit in doubt")
        disk.on_refusal = lambda: self.count("commit refused")
        self.gateway = SimulatedGateway(self._plan, disk, self.clock, process, self.random)
        self.gateway.on_lost_track = lambda: self._die("new start asked for", (1.0,))
        process.spawn(self.gateway.start())

    def kill(self) -> None:
        """SIGKILL, some time between two commits."""
        if self.gateway is not None and not self._sleeping:
            self._die("kill")

    def arm(self) -> None:
        """SIGKILL at one of the next commits."""
        if self.gateway is not None:
            self.gateway.disk.armed = self.random.choice(["before", "after", "doubt"])

    def _die(self, how: str, away_s: Sequence[float] = (1, 5, 40, 200, 400)) -> None:
        gateway, self.gateway = self.gateway, None
        if gateway is None:
            return
        self.count(how)
        gateway.process.kill()
        self.problems += gateway.bugs
        self.lives += 1
        gateway.disk.die(self._folder(self.lives))
        for link in tuple(self.links.values()):
            link.cut()
        self.do(self._start_again(self.random.choice(away_s)))

    async def _start_again(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.oracle.trouble(self.now)
        self.tell("started again")
        self.start_gateway()

    async def suspend(self) -> None:
        """The machine sleeps, and wakes to a clock that has jumped."""
        gateway = self.gateway
        if gateway is None or self._sleeping:
            return
        self._sleeping = True
        self.count("machine asleep")
        asleep_s = self.random.choice([6.0, 40.0, 150.0])
        gateway.process.sleep()
        await asyncio.sleep(asleep_s)
        self.clock.slept_s += asleep_s
        self._sleeping = False
        self.oracle.trouble(self.now)
        gateway.process.wake()

    def set_clock(self) -> None:
        """The gateway's clock is corrected, either way."""
        self.clock.off_s = -self.random.uniform(0, LATE_CLOCK_S)
        self.count("clock step")

    async def fill_disk(self) -> None:
        """No room for a while."""
        gateway = self.gateway
        if gateway is None:
            return
        self.count("disk full")
        gateway.disk.fill()
        await asyncio.sleep(self.random.choice([5, 60, 240]))
        self.oracle.trouble(self.now)
        if gateway is self.gateway:
            gateway.disk.free()

    def _folder(self, life: int) -> Path:
        return self.root / f"life-{life}"

    def _reach_gateway(self) -> object:
        gateway = self.gateway
        if gateway is None or not gateway.serving:
            return None
        return gateway.oscp.asgi["grid"], gateway.process.context

    # --- stations -------------------------------------------------------------------------------

    def _station(self, name: str) -> Station:
        draw = self.random

        async def dial() -> StationEnd | None:
            await asyncio.sleep(draw.uniform(0.05, 0.5))
            return self._connect(station)

        station = Station(
            name,
            clock=self.true,
            seconds=lambda: self.now,
            version=draw.choice(["1.6", "2.0.1"]),
            phases=PHASES,
            skew_s=draw.uniform(-SKEW_S, SKEW_S),
            lag_s=draw.uniform(0, LAG_S),
            dial=dial,
        )
        return station

    def _connect(self, station: Station) -> StationEnd | None:
        gateway = self.gateway
        if gateway is None or not gateway.serving or self._sleeping:
            return None

        def gone(link: Link) -> None:
            self.oracle.trouble(self.now)
            self.tell(f"{station.name} without line")
            if self.links.get(station.name) is link:
                del self.links[station.name]

        link = self.links[station.name] = Link(station.name, gateway.process, self, gone)
        self.tell(f"{station.name} connects")
        gateway.process.spawn(gateway.ocpp.accept(link, station.version))
        self.oracle.trouble(self.now)
        return link.station_end

    def cut(self) -> None:
        """A line breaks; half of the time the gateway does not notice at once."""
        link = self.links.get(self.any().name)
        if link is not None:
            self.count("line cut")
            link.cut(self.random.choice([None, self.random.uniform(1, DETECTED_S)]))

    async def stay_away(self) -> None:
        """A station is out of reach for a while."""
        station = self.any()
        self.count("station away")
        await station.offline()
        await asyncio.sleep(self.random.choice([20, 150, 400]))
        station.online()

    async def fault(self, name: str, lasts: tuple[float, ...]) -> None:
        """A station is ``name`` for a while."""
        station = self.any()
        if name in station.faults or not station.plugged:
            return
        self.count(f"station {name}")
        self.suspects.add(station.name)
        station.faults.add(name)
        if name == "mute":
            station.mute = True
        elif name == "lying":
            station.ignore_limits = True
        elif name == "clock":
            station.clock_off_s += self.random.choice([-1, 1]) * self.random.choice([20, 90, 3_600])
        await asyncio.sleep(self.random.choice(lasts))
        station.mute = station.mute and name != "mute"
        if name == "lying":
            station.ignore_limits = False
        elif name == "clock":
            station.clock_off_s = station.skew_s
        station.faults.discard(name)
        self.oracle.trouble(self.now)

    async def reboot(self) -> None:
        """A station loses power."""
        station = self.any()
        if "off" not in station.faults:
            self.count("station reboot")
            await station.reboot(self.random.choice([2, 30, 120]))

    def lose_profiles(self) -> None:
        """A station forgets what was installed and says nothing."""
        station = self.any()
        if station.store.held:
            self.count("profiles lost")
            self.suspects.add(station.name)
            station.store.lose()

    async def break_meter(self) -> None:
        """A meter is frozen, has jumped, or drifts away."""
        station = self.random.choice([*self.stations, None])
        meter = self.meter if station is None else station.meter
        if meter.fault:
            return
        if station is not None:
            self.suspects.add(station.name)
        meter.fault = self.random.choice(["frozen", "jump", "drift"])
        meter.factor = self.random.choice([0.2, 3.0]) if meter.fault == "jump" else 1.0
        self.count(f"meter {meter.fault}")
        await asyncio.sleep(self.random.choice([30, 200]))
        meter.fault, meter.factor = "", 1.0

    def plug(self) -> None:
        """A car comes, whether or not somebody hears of it."""
        phases = self.random.choice([1, 3])
        station = self.any()
        station.plug(Car(200_000, VOLTS * MAX_A * phases, phases))
        self.tell(f"car at {station.name}, {phases} phases")
        self.oracle.changed_at = self.now

    def leave(self) -> None:
        """A car leaves."""
        station = self.any()
        station.leave()
        self.tell(f"no car at {station.name}")
        self.oracle.changed_at = self.now

    def switch_phases(self) -> None:
        """A car goes on with one phase, or with three."""
        station = self.any()
        if station.plugged:
            self.count("phase switch")
            station.switch_phases(4 - len(station.used))

    def any(self) -> Station:
        return self.random.choice(self.stations)

    # --- the grid party -------------------------------------------------------------------------

    def _draw_gap(self) -> tuple[float, float] | None:
        if self.quiet or self.random.random() < 0.6:
            return None
        start = self.random.uniform(200, 700)
        return start, start + self.random.choice([30, 150, 400])

    async def announce(self) -> None:
        """A limit at the connection, now or ahead."""
        if self.silent:
            return
        start = self.now + self.random.choice([0, 0, 30, 200, 400])
        end = start + self.random.choice([60, 200, 500])
        await self.say([(start, end, self._power_w())])

    async def contradict(self) -> None:
        """Two words for the same time, one right after the other."""
        if self.silent:
            return
        self.count("forecasts contradict")
        start = self.now + self.random.choice([0, 60])
        for _ in range(2):
            self.do(self.say([(start, start + 200, self._power_w())]))

    async def overlap(self) -> None:
        """One message whose blocks overlap: the tighter holds."""
        if self.silent:
            return
        self.count("forecast overlaps")
        start = self.now + self.random.choice([0, 60])
        await self.say([(start, start + 200, self._power_w()), (start + 100, start + 300, self._power_w())])

    def _power_w(self) -> int:
        return self.random.choice([0, LOAD_W, 9_000, 14_000, 20_000, 30_000, 45_000, MAIN_W])

    async def say(self, blocks: list[tuple[float, float, int]]) -> None:
        """Tell it until it is acknowledged; the judge hears of it first."""
        self.tell(f"says {blocks}")
        words = [Word(FAR, *block, sent_at=self.now) for block in _tightest(blocks)]
        self.oracle.said += words
        if self.fallback is not None:
            self.fallback.end, self.fallback = self.now, None
        self.spoke_at = self.now
        told = [ForecastBlock(_at(a), _at(b), w) for a, b, w in blocks]
        if await self.dso.tell(ForecastType.CONSUMPTION, told):
            for word in words:
                word.known_at = word.done_at = self.now
            self.tell(f"knows {blocks}")
            self.oracle.changed_at = self.spoke_at = self.now

    async def heartbeats(self) -> None:
        """The grid party lives on, unless it is silent."""
        while True:
            if not self.silent:
                self.do(self._beat())
            await asyncio.sleep(HEARTBEAT_S * 0.7)

    async def _beat(self) -> None:
        until = self.now + HEARTBEAT_S
        before, self.alive_until = self.alive_until, until  # as long as nobody knows, it may have been taken
        if await self.dso.beat(HEARTBEAT_S) is False:
            if self.alive_until == until:
                self.alive_until = before
            until = before
        await asyncio.sleep(max(until + LATE_CLOCK_S - self.now, 0.0))
        self._missed()

    def _missed(self) -> None:
        """The time is up at which the gateway must have missed the grid party: the fallback holds."""
        spoke_anew = self.spoke_at >= self.alive_until - LATE_CLOCK_S
        if self.now >= self.alive_until + LATE_CLOCK_S and not spoke_anew:
            self._fall_back("fallback in silence")

    def _fall_back(self, why: str) -> None:
        on_its_way = any(isinstance(word, Word) and word.done_at == FAR for word in self.oracle.said)
        if self.fallback is None and not on_its_way:
            self.count(why)
            self.fallback = Word(
                self.now, self.now, FAR, self.fallback_w, key=FALLBACK, sent_at=self.now, done_at=self.now
            )
            self.oracle.said.append(self.fallback)
            self.oracle.changed_at = self.now

    async def fall_silent(self) -> None:
        """The grid party is gone for a while, then speaks anew."""
        if self.silent:
            return
        self.silent = True
        self.count("grid party silent")
        await asyncio.sleep(self.random.choice([30, 200, 500]))
        self.silent = False
        await self._say_something()

    async def _say_something(self) -> None:
        self.do(self._beat())
        await self.announce()

    async def _mind_the_gap(self, start: float, end: float) -> None:
        """Where nothing was said for a time, the fallback holds once the last value has been held long enough."""
        await asyncio.sleep(start + KEPT_S + LATE_CLOCK_S - self.now)
        covered = any(w.start <= self.now < w.end for w in self.oracle.said if w.key != FALLBACK)
        spoken = any(isinstance(w, Word) and w.sent_at > start - KEPT_S for w in self.oracle.said)
        if self.now < end and not covered and not spoken:
            self._fall_back("gap")

    # --- meters ---------------------------------------------------------------------------------

    async def measure(self) -> None:
        """The building's meter, every ten seconds."""
        while True:
            await asyncio.sleep(10)
            gateway = self.gateway
            if gateway is not None and gateway.serving and not self._sleeping:
                value = round(self.meter.reads(LOAD_W - self.random.uniform(0, 2_000)))
                gateway.process.soon(0.0, self._hand_in, gateway, value)

    def _hand_in(self, gateway: SimulatedGateway, value: int) -> None:
        now = self.clock.now()
        sample = Measurement(HOUSE, Quantity.P, value, now, now, source="house")
        gateway.runner.measure([sample]).add_done_callback(_refused_by_the_disk)

    # --- one life -------------------------------------------------------------------------------

    def live(self) -> World:
        """Live it to its end."""
        self.suspects: set[str] = set()
        self.root = Path(tempfile.mkdtemp(prefix="gridgate-simulation-", dir=_fast_folder()))
        (self.root / "life-0").mkdir()
        with _seeded(self.random), self._listening():
            try:
                asyncio.set_event_loop(self.loop)
                self.loop.run_until_complete(self._live())
                self._audit()
            except StandsStillError as problem:
                self.problems += [*(self.gateway.bugs if self.gateway is not None else ()), str(problem)]
            finally:
                if self.gateway is not None:
                    self.gateway.disk.close()
                asyncio.set_event_loop(None)
                self._forget()
                if self.keep is not None:
                    shutil.copytree(self._folder(self.lives), self.keep)
                shutil.rmtree(self.root)
        self.problems += self.loop.complaints
        return self

    def _forget(self) -> None:
        """Let go of every process and task."""

        def let_go() -> None:
            self.gateway = None
            self.links.clear()
            self._chores.clear()
            self._processes.clear()

        self.loop.bury(let_go)

    async def _live(self) -> None:
        self.start_gateway()
        while self.gateway is None or not self.gateway.serving:
            await asyncio.sleep(1)
        await self.dso.join()
        await self.dso.tell(ForecastType.FALLBACK_CONSUMPTION, [ForecastBlock(_at(0), _at(86_400), self.fallback_w)])
        await self._say_first()
        self.do(self.heartbeats())
        self.do(self.measure())
        for station in self.stations:
            await station.start(wait_s=None)
        pool = [act for act, weight in self._actions() for _ in range(weight)]
        plans = [(self.random.uniform(CALM_S, self.length_s), self.random.choice(pool)) for _ in range(EVENTS)]
        plans += [(self.random.uniform(30, 200), self.plug) for _ in range(4)]
        for at, act in sorted(plans, key=lambda plan: plan[0]):
            await asyncio.sleep(max(at - self.now, 0.0))
            done = act()
            if done is not None:
                self.do(done)
        await asyncio.sleep(max(self.length_s - self.now, 0.0))
        await self._end()

    async def _say_first(self) -> None:
        whole = [(0.0, 86_400.0, MAIN_W)]
        if self.gap is not None:
            start, end = self.gap
            whole = [(0.0, start, MAIN_W), (end, 86_400.0, MAIN_W)]
            self.do(self._mind_the_gap(start, end))
        await self.say(whole)

    async def _end(self) -> None:
        """Everybody goes home in order."""
        self.storm, self.over = 0.0, True
        for chore in self._chores:
            chore.cancel()
        await asyncio.sleep(0)
        await self._quiet_minute()
        if self.gateway is None:
            await self._quiet_minute()
        gateway = self.gateway
        assert gateway is not None, "a new start was asked for although nothing goes wrong any more"
        for station in self.stations:
            await station.stop()
        await asyncio.sleep(1)
        done: asyncio.Future[None] = self.loop.create_future()
        gateway.process.spawn(gateway.stop()).add_done_callback(lambda _task: done.set_result(None))
        await done
        self.final = gateway.runner.state
        self.problems += gateway.bugs

    async def _quiet_minute(self) -> None:
        """A gateway runs, and nothing goes wrong; one that was in doubt before may still ask for a new start."""
        if self.gateway is None:
            self.start_gateway()
        gateway = self.gateway
        assert gateway is not None
        gateway.process.wake()
        gateway.disk.armed = ""
        gateway.disk.free()
        await asyncio.sleep(60)

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Something that takes its time."""
        if self.over:
            work.close()
            return
        # Whoever asks for it: it happens in the world, not in the gateway's process.
        task = self.loop.create_task(work, context=contextvars.Context())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _actions(self) -> list[tuple[Callable[[], Coroutine[Any, Any, None] | None], int]]:
        usual = [(self.plug, 6), (self.leave, 2), (self.announce, 8)]
        if self.quiet:
            return usual
        return [
            *usual,
            (self.contradict, 2),
            (self.overlap, 2),
            (self.fall_silent, 1),
            (self.kill, 1),
            (self.arm, 3),
            (self.suspend, 1),
            (self.set_clock, 2),
            (self.fill_disk, 2),
            (self.cut, 2),
            (self.stay_away, 2),
            (self.reboot, 1),
            (self.lose_profiles, 1),
            (self.switch_phases, 2),
            (self.break_meter, 3),
            (lambda: self.fault("mute", (25, 70, 200)), 2),
            (lambda: self.fault("lying", (60, 200)), 2),
            (lambda: self.fault("clock", (60, 200)), 1),
        ]

    def _look(self) -> None:
        """Everything that could happen at this instant has happened."""
        now = self.now
        for station in self.stations:
            station.look(now)
        if self._is_troubled():
            self.oracle.trouble(now)
        self.oracle.look(now)
        if self.quiet:
            self.oracle.look_for_waste(now)

    def _is_troubled(self) -> bool:
        """Whether the gateway, or a station, is out of reach or not itself."""
        gateway = self.gateway
        if gateway is None or not gateway.serving or self._sleeping or gateway.disk.is_full:
            return True
        return len(self.links) < len(self.stations) or any(station.faults for station in self.stations)

    # --- what must be true at the end -----------------------------------------------------------

    def _audit(self) -> None:
        gateway = self.gateway
        assert gateway is not None
        gateway.disk.close()
        folder = gateway.disk.folder
        report = verify_log(folder / "gridgate.db", head_path=folder / "gridgate.head")
        self.problems += [f"evidence: {problem.message}" for problem in report.problems]
        with EvidenceReader(folder / "gridgate.db") as reader:
            self.log = [
                (entry.type, entry.id) for entry in reader.tail(reader.head().size) if not entry.type.startswith("log.")
            ]
            self._each_once(reader, "envelope.revised", "request_id", self.dso.acknowledged)
            for kind in ("started", "ended"):
                told = [t for station in self.stations for t in station.acknowledged[kind]]
                self._each_once(reader, f"session.{kind}", "transaction", told)
        self.problems += [f"refused: {text}" for text in self.dso.refusals]
        assert self.final is not None
        liars = {evse for evse, grant in self.final.grants.items() if grant.lying}
        wronged = sorted(liars - {_evse(name) for name in self.suspects})
        self.problems += [f"called a liar: {evse}" for evse in wronged]

    def _each_once(self, reader: EvidenceReader, type_: str, key: str, acknowledged: list[str]) -> None:
        found = Counter(entry.subject.get(key) for entry in reader.by_type(type_, limit=10_000))
        for name in acknowledged:
            if found[name] != 1:
                self.problems.append(f"{type_} {name} was acknowledged and is {found[name]} times in the log")

    @property
    def verdict(self) -> str:
        """Empty when every promise was kept."""
        return "; ".join(filter(None, [self.oracle.excess.text, self.oracle.idle.text, *self.problems]))

    # --- parts ----------------------------------------------------------------------------------

    async def _pause(self, low: float, high: float) -> None:
        await asyncio.sleep(self.random.uniform(low, high))

    def _make_plan(self) -> Plan:
        facts = SiteFacts(_tree(), {(SourceId(DSO), MAIN): POLICY}, {SourceId(DSO): (MAIN,)}, SETTINGS)
        world = lambda: (self.dso.app, _EMPTY)  # noqa: E731  the DSO is always there
        return Plan(
            facts=facts,
            stations=[_settings(name) for name in NAMES],
            peer=PeerSettings(DSO, "oscp", "grid", token=TOKEN),
            groups=[GroupBinding(DSO, GROUP, MAIN, POLICY)],
            call=lambda _peer: HttpLine(self, world),
        )

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Bugs of the gateway that it has caught, logged and survived."""
        logger = logging.getLogger("gridgate")
        handler = _Bugs(self.problems)
        before = logger.propagate, logger.level
        logger.addHandler(handler)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate, logger.level = before


class _Bugs(logging.Handler):
    """Takes note of exceptions that are no errors of the gateway's own kind."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        problem = record.exc_info[1] if record.exc_info else None
        if problem is not None and not isinstance(problem, GatewayError):
            self._problems.append(f"{record.getMessage()}: {problem!r}")
        elif "a bug of ours" in record.getMessage():
            self._problems.append(record.getMessage())


_EMPTY = contextvars.Context()


def _refused_by_the_disk(done: asyncio.Future[None]) -> None:
    problem = done.exception()
    if problem is not None and not isinstance(problem, StoreError):
        raise problem


@contextmanager
def _seeded(rng: random.Random) -> Iterator[None]:
    """All that is drawn at random in gateway and peers follows the seed."""
    with (
        patch.object(uuid, "uuid4", lambda: uuid.UUID(int=rng.getrandbits(128), version=4)),
        patch.object(secrets, "token_bytes", lambda count=32: rng.randbytes(count)),
        patch.object(secrets, "token_hex", lambda count=32: rng.randbytes(count).hex()),
        patch.object(secrets, "token_urlsafe", lambda count=32: rng.randbytes(count).hex()),
        patch.object(secrets, "randbelow", rng.randrange),
    ):
        yield


def _fast_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  a private folder is made in it


def _tightest(blocks: list[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """Blocks of one message without overlap."""
    edges = sorted({edge for start, end, _ in blocks for edge in (start, end)})
    out = []
    for start, end in itertools.pairwise(edges):
        values = [w for a, b, w in blocks if a <= start and end <= b]
        if values:
            out.append((start, end, min(values)))
    return out


def _at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=round(seconds, 3))


def _evse(name: str) -> NodeId:
    return NodeId(f"main/garage/{name.lower()}")


def _settings(name: str) -> StationSettings:
    binding = EvseBinding(
        _evse(name), 1, tuple(Phase(p) for p in PHASES), Volts(VOLTS), MilliAmperes(32_000), MilliAmperes(6_000)
    )
    return StationSettings(StationId(name), f"SN-{name}", "ocpp", 0, (binding,))


def _tree() -> Tree:
    nodes = [
        Node(MAIN, NodeKind.GRID_CONNECTION, import_max_w=Watts(MAIN_W)),
        Node(NodeId("main/garage"), NodeKind.CIRCUIT, import_max_w=Watts(GARAGE_W)),
        Node(HOUSE, NodeKind.LOAD, reserve_w=Watts(LOAD_W)),
    ]
    for name in NAMES:
        facts = EvseFacts(StationId(name), 1, safe_share_w=Watts(SHARE_W))
        nodes.append(Node(_evse(name), NodeKind.EVSE, evse=facts))
    return Tree(SITE, {node.path: node for node in nodes}, "t1")
