"""Seeded lives of a site: the real controller between a faulty line and the physical fleet.

``python -m tests.property SEED`` lives one again. Times of the world are seconds; the gateway's clock
lags behind them by up to ``LATE_CLOCK_S``, which together with a station's error and its car's
reaction is what the guard is for.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gateway.app import state as app_state
from gateway.app.site import SECTIONS, Controller, SiteFacts, SiteState
from gateway.app.state import Settings
from gateway.domain import events as ev
from gateway.domain.effects import Changes, Command, Layer
from gateway.domain.envelope import BindingPolicy, Block, BlockKind, RevisionMode
from gateway.domain.evidence import GATEWAY, MessageRef
from gateway.domain.ids import NodeId, PeerId, SiteId, SourceId, StationId
from gateway.domain.measurement import Quantity
from gateway.domain.quantities import Dimension, Direction, MilliAmperes, Phase, Watts
from gateway.domain.topology import EvseFacts, Node, NodeKind, Tree
from tests.property.fleet_model import (
    FALLBACK,
    FAR,
    GRACE_S,
    NEVER,
    PATIENCE_S,
    PHASES,
    REACTION_S,
    VOLTS,
    Agenda,
    Announcement,
    Judge,
    Station,
)

T0 = datetime(2026, 3, 1, 17, 0, tzinfo=UTC)
DSO = SourceId("dso")
MAIN = NodeId("main")
NAMES = tuple(f"main/garage/evse-{n}" for n in range(1, 4))
LENGTH_S = 800.0
EVENTS = 32
"""Drawn at random for each life; heartbeats, arrivals of the first cars and answers come on top."""

MAIN_W, GARAGE_W, LOAD_W, SHARE_W = 60_000, 44_000, 6_000, 1_380
LATE_CLOCK_S = 3.0
HEARTBEAT_S = 120.0
SETTINGS = Settings(guard_s=10, validity_s=300, confirm_s=20, retry_s=30, period_s=60, dead_frame_s=120)
POLICY = BindingPolicy(recover_s=20, window_s=600)

NO_LIMIT_W = 100_000

SPARED_S = 120.0
"""How long a forgiving line loses nothing."""

HARMLESS = ("doubled command", "clock step", "fallback")
"""Faults after which nothing needs time to heal."""


@dataclass
class Life:
    """One seeded life of a site."""

    seed: int
    settings: Settings = SETTINGS
    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.agenda = Agenda()
        self.quiet = self.random.random() < 0.15
        """Without faults: here it shows whether cars get what they could."""
        self.loss = 0.0 if self.quiet else self.random.choice([0.0, 0.15, 0.4, 0.4])
        self.forgiving = self.random.random() < 0.5
        """A line that has lost something loses nothing more for a while: all must heal in time."""
        self.spared = dict.fromkeys(NAMES, 0.0)
        by_phase = not self.quiet and self.random.random() < 0.45
        self.stations = {evse: self._station(n, by_phase) for n, evse in enumerate(NAMES, 1)}
        amperes = self.random.choice([32, 50, 63]) if by_phase else None
        rows = [("main", "", float(MAIN_W)), ("garage", "", float(GARAGE_W))]
        rows += [("garage", phase, float(amperes)) for phase in PHASES if amperes]
        self.by_phase = by_phase
        validity_s = SETTINGS.validity_s + SETTINGS.guard_s + LATE_CLOCK_S
        self.judge = Judge(rows, LOAD_W, validity_s, self.stations.values())
        tree = _tree(self.stations, amperes)
        self.controller = Controller(SiteFacts(tree, {(DSO, MAIN): POLICY}, {}, self.settings))
        self.state = SiteState()
        self.offset_s = -self.random.uniform(0, LATE_CLOCK_S)
        self.alive, self.awake, self.epoch = True, True, 0
        self.armed = ""
        self.generation = dict.fromkeys(self.stations, 0)
        self.linked = dict.fromkeys(self.stations, False)
        self.known = dict.fromkeys(self.stations, "")
        """The transaction that the gateway was told last; the line was up."""
        self.unanswered: dict[str, list[Command]] = {evse: [] for evse in self.stations}
        self.answered: dict[tuple[str, Layer], int] = {}
        self.arrived: dict[tuple[str, Layer], int] = {}
        self.line_free = dict.fromkeys(self.stations, 0.0)
        """When a stalled line moves again; frames a moment apart may overtake each other, longer ones not."""
        self.answers_free = dict.fromkeys(self.stations, 0.0)
        self.queue: list[ev.Event] = []
        self.alive_until = self.spoke_at = NEVER
        self.silent = False
        self.fallback: Announcement | None = None
        self.fallback_w = self.random.choice([LOAD_W, 12_000, 20_000])
        self.moved = False
        """Whether a draw or a limit may have changed at this instant."""
        self.stuck = ""
        self._timer = 0
        self._due_at = T0

    def _station(self, number: int, by_phase: bool) -> Station:
        phases = tuple(self.random.sample(PHASES, self.random.choice([1, 3]))) if by_phase else PHASES
        in_watts = by_phase and self.random.random() < 0.2
        skew_s, lag_s = self.random.uniform(-2, 2), self.random.uniform(0, 4)
        return Station(f"CP-{number}", phases, skew_s, lag_s, in_watts, share=((NEVER, NO_LIMIT_W),))

    # --- the gateway ----

    @property
    def now(self) -> datetime:
        """What the gateway's clock says."""
        return T0 + timedelta(seconds=self.agenda.now + self.offset_s)

    def step(self, *events: ev.Event) -> bool:
        """Hand events to the controller; True when they are stored."""
        if not self.alive:
            return False
        if not self.awake:
            self.queue += events
            return False
        after, changes = self.controller.step(self.state, events, max(self.now, self._due_at))
        armed = self._strikes(changes)
        if armed in ("sent nothing", "stored nothing"):
            return self._die_over(after, changes, stored=armed == "sent nothing")
        self.state = after
        for command in changes.commands:
            self._send(command)
        self._timer += 1
        token = self._timer
        due = (self.state.next_deadline - T0).total_seconds() - self.offset_s
        self.agenda.at(due, lambda: self._due(token))
        if armed == "sent all":
            self.kill()
        elif armed == "lines cut":
            for evse in dict.fromkeys(command.evse for command in changes.commands):
                self.unlink(evse)
        return True

    def _strikes(self, changes: Changes) -> str:
        """What was armed, where this decision is worth it: what leaves must raise something to be missed later."""
        raises = any(not command.tightens for command in changes.commands)
        worth = raises if self.armed in ("sent all", "lines cut") else bool(changes.commands)
        armed, self.armed = (self.armed, "") if worth else ("", self.armed)
        return armed

    def _due(self, token: int) -> None:
        if token == self._timer and self.alive and self.awake:
            self._due_at = served = self.state.next_deadline
            self.step(ev.DeadlineReached())
            self._due_at = T0
            if self.alive and self.state.next_deadline <= served:
                self.stuck = f"at {self.agenda.now:.1f} s a deadline that was served is due again"

    def _die_over(self, after: SiteState, changes: Changes, *, stored: bool) -> bool:
        """Die with a decision in hand: committed and not sent, or not even committed."""
        if stored:
            self.state = after
            if any(command.tightens for command in changes.commands):
                self.count("lost decrease")
        self.kill()
        return stored

    def start(self) -> None:
        """A new process: it knows what was stored, no more."""
        self.alive, self.awake, self.queue = True, True, []
        self.epoch += 1
        stored = {name: getattr(self.state, name) for name in SECTIONS if name != "control"}
        self.state = app_state.from_sections(self.state.seq, {"control": {"control": self.state.control}, **stored})
        self.step(ev.GatewayStarted(self.epoch, "boot", self.epoch == 1, "cfg"))
        for evse in self.stations:
            far_s = self.random.choice([1, 5, 20, 200]) if self.epoch > 1 else 20
            self.agenda.after(self.random.uniform(0.1, far_s), lambda e=evse: self.link(e))

    def kill(self) -> None:
        """The process dies; lines with it."""
        if not self.alive:
            return
        self.count("restart")
        self.alive = False
        for evse in self.stations:
            self.linked[evse] = False
        self.agenda.after(self.random.choice([1, 5, 40, 200, 400]), self.start)

    def arm(self) -> None:
        """Strike at the next decision that commands something."""
        self.armed = self.random.choice(["sent nothing", "stored nothing", "sent all", "lines cut", "lines cut"])

    def suspend(self) -> None:
        """The machine sleeps, and wakes to a clock that has jumped."""
        if not (self.alive and self.awake):
            return
        self.awake = False
        asleep_s = self.random.choice([5, 40, 200])
        self.agenda.after(asleep_s, lambda epoch=self.epoch: self._wake(epoch, asleep_s))

    def _wake(self, epoch: int, asleep_s: int) -> None:
        if not self.alive or self.epoch != epoch:
            return
        self.awake = True
        queued, self.queue = self.queue, []
        self.count("clock step")
        self.step(ev.ClockStepped(asleep_s), *queued)

    def set_clock(self) -> None:
        """The clock is corrected, either way."""
        before, self.offset_s = self.offset_s, -self.random.uniform(0, LATE_CLOCK_S)
        self.count("clock step")
        self.step(ev.ClockStepped(round(self.offset_s - before)))

    # --- the line ----

    def _send(self, command: Command) -> None:
        evse = command.evse
        if not self.linked[evse] or command.generation != self.generation[evse]:
            self.agenda.after(0.01, lambda: self._answer(command, ev.Outcome.NOT_SENT))
            return
        told = self.agenda.now
        self.unanswered[evse].append(command)
        if self._is_lost(evse):
            self.count("lost decrease" if command.tightens else "lost increase")
            return
        if self._is_late():
            self.line_free[evse] = told + self.random.uniform(1, 35)
        arrives = told + self._delay_s()
        if arrives < self.line_free[evse]:
            arrives = self.line_free[evse] = self.line_free[evse] + 0.001
        self.agenda.at(arrives, lambda: self._arrive(command, told))
        if self.random.random() < 0.05:
            self.count("doubled command")
            self.agenda.at(arrives + self.random.uniform(0, 8), lambda: self._arrive(command, told, again=True))

    def _is_lost(self, evse: str) -> bool:
        if self.random.random() >= self.loss or (self.forgiving and self.agenda.now < self.spared[evse]):
            return False
        self.spared[evse] = self.agenda.now + SPARED_S
        return True

    def _is_late(self) -> bool:
        if self.loss and not self.forgiving and self.random.random() < 0.1:
            self.count("late command")
            return True
        return False

    def _delay_s(self) -> float:
        return self.random.uniform(0.01, 0.2)

    def _arrive(self, command: Command, told: float, *, again: bool = False) -> None:
        """A frame gets through, perhaps after its connection is dead; a second copy means nothing after a later one."""
        latest = self.arrived.get((command.evse, command.layer), 0)
        if again and (
            command.version < latest or command.version <= self.answered.get((command.evse, command.layer), 0)
        ):
            return
        self.arrived[command.evse, command.layer] = max(latest, command.version)
        station, now = self.stations[command.evse], self.agenda.now
        is_old = command.generation != self.generation[command.evse] or not self.linked[command.evse]
        if is_old and self.random.random() < 0.5:
            return
        profile = [(_seconds(step.start), int(step.limit_w)) for step in command.schedule.steps]
        outcome = ev.Outcome.ACCEPTED
        if command.layer is Layer.SAFE_SHARE:
            station.install_share(profile, told, now)
        elif station.plugged and command.transaction == station.transaction:
            station.install_schedule(profile, told, now)
        else:
            outcome = ev.Outcome.REJECTED
        self._moves(*station.edges())
        if self._is_lost(command.evse):
            self.count("lost answer")
        elif not is_old:
            # Answers come in the order in which the station has worked.
            late_s = self.random.uniform(1, 35) if self._is_late() else self._delay_s()
            self.answers_free[command.evse] = max(now + late_s, self.answers_free[command.evse])
            self.agenda.at(self.answers_free[command.evse], lambda: self._answer(command, outcome))

    def _answer(self, command: Command, outcome: ev.Outcome) -> None:
        waiting = self.unanswered[command.evse]
        ordered = command not in waiting[1:]
        if command in waiting:
            waiting.remove(command)
        key = (command.evse, command.layer)
        self.answered[key] = max(command.version, self.answered.get(key, 0))
        if outcome is ev.Outcome.NOT_SENT or command.generation == self.generation[command.evse]:
            self.step(ev.CommandAnswered(command.id, command.evse, command.generation, outcome, ordered))

    # --- the fleet ----

    def link(self, evse: str) -> None:
        """A station gets a line, tells what happened meanwhile."""
        if not self.alive or self.linked[evse]:
            return
        if not self.awake:
            self.agenda.after(5, lambda: self.link(evse))
            return
        self.generation[evse] += 1
        self.linked[evse], self.unanswered[evse] = True, []
        self.line_free[evse] = self.answers_free[evse] = self.agenda.now
        session = self.state.sessions.get(evse)
        self.known[evse] = "" if session is None else session.transaction  # what was not acknowledged is said again
        self.step(ev.StationConnected(StationId(self.stations[evse].name), self.generation[evse], "ocpp1.6", GATEWAY))
        self._tell(evse)

    def unlink(self, evse: str) -> None:
        """A line breaks, for a while."""
        if not self.linked[evse]:
            return
        self.count("disconnect")
        self.linked[evse] = False
        self.step(ev.StationDisconnected(StationId(self.stations[evse].name), self.generation[evse], "test"))
        self.agenda.after(self.random.choice([1, 20, 150, 400]), lambda: self.link(evse))

    def plug(self, evse: str) -> None:
        """A car comes, whether or not somebody hears of it. A station that never was told anything is not in use."""
        station = self.stations[evse]
        if station.plugged or station.share_told == NEVER:
            return
        station.plug(f"tx-{evse[-1]}-{self.agenda.now:.3f}", self.random.choice([1, len(station.phases)]))
        self._limit_changes()
        self._tell(evse)

    def unplug(self, evse: str) -> None:
        """A car leaves."""
        if self.stations[evse].plugged:
            self.stations[evse].unplug()
            self._limit_changes()
            self._tell(evse)

    def _tell(self, evse: str) -> None:
        """Say what the gateway has not heard yet."""
        station, known = self.stations[evse], self.known[evse]
        now = station.transaction if station.plugged else ""
        if not (self.linked[evse] and self.alive) or known == now:
            return
        self.known[evse] = now
        if known:
            self.step(ev.SessionEnded(NodeId(evse), known, self.now, _message("stop")))
        if now:
            self.step(ev.SessionStarted(NodeId(evse), now, self.now, _message("start")))

    def measure(self) -> None:
        """The stations in reach say what they draw."""
        samples = tuple(
            ev.Sample(NodeId(evse), Quantity.P, round(station.power_w(self.agenda.now)), self.now, self.now)
            for evse, station in self.stations.items()
            if self.linked[evse]
        )
        if samples:
            self.step(ev.TelemetryTick(samples, f"tick-{self.agenda.now}"))

    # --- the grid party ----

    def announce(self) -> None:
        """A limit at the connection, now or ahead."""
        if not (self.alive and self.awake) or self.silent:
            return
        start = self.agenda.now + self.random.choice([0, 0, 30, 200, 400, 700])
        end = start + self.random.choice([60, 200, 500])
        if self.by_phase and self.random.random() < 0.5:
            dimension, phases, value = self._on_phases()
        else:
            dimension, phases, value = Dimension.SUM_W, (), self._power_w()
        self._say(start, end, value, dimension, phases)

    def _power_w(self) -> int:
        return self.random.choice([0, LOAD_W, 9_000, 14_000, 20_000, 30_000, 45_000, MAIN_W])

    def _on_phases(self) -> tuple[Dimension, tuple[str, ...], int]:
        match self.random.choice(["each", "one", "power"]):
            case "each":
                return Dimension.EACH_A, PHASES, self.random.choice([0, 10_000, 16_000, 30_000, 50_000])
            case "one":
                phase = self.random.choice(PHASES)
                return Dimension[f"{phase}_A"], (phase,), self.random.choice([0, 12_000, 25_000, 40_000])
            case _:
                phase = self.random.choice(PHASES)
                return Dimension[f"{phase}_W"], (phase,), self.random.choice([0, 3_000, 6_000, 9_000])

    def _say(
        self,
        start: float,
        end: float,
        value: int,
        dimension: Dimension,
        phases: tuple[str, ...],
        *,
        first: bool = False,
    ) -> None:
        now = self.agenda.now
        blocks = (Block(_instant(start), _instant(end), value, dimension),)
        if self._revise(BlockKind.PRIMARY, blocks):
            limit = float(value) if not phases else value / (VOLTS if dimension.name.endswith("_W") else 1_000)
            self.judge.said.append(Announcement(now, start, end, limit, phases, dimension.name))
            for edge in (start, end):
                self.agenda.at(edge, self._limit_changes)
            self._moves(now + self.judge.validity_s)
            self.judge.changed_at = self.spoke_at = now
            if self.fallback is not None and not first:
                self.fallback.end, self.fallback = now, None

    def _revise(self, kind: BlockKind, blocks: tuple[Block, ...]) -> bool:
        message = _message(f"q-{self.agenda.now}-{kind.value}")
        return self.step(
            ev.EnvelopeRevised(DSO, MAIN, Direction.IMPORT, "oscp/G", kind, blocks, RevisionMode.OVERLAY, message)
        )

    def _limit_changes(self) -> None:
        self.judge.changed_at = self.agenda.now
        self._moves(*(self.agenda.now + after_s for after_s in (GRACE_S, REACTION_S, PATIENCE_S)))

    def _moves(self, *instants: float) -> None:
        """Look now, and again at these instants."""
        self.moved = True
        for instant in instants:
            self.agenda.at(instant, self._moves)

    def heartbeat(self) -> None:
        """The grid party lives on, unless it is silent."""
        self.agenda.after(HEARTBEAT_S * 0.7, self.heartbeat)
        if not self.silent:
            self._beat()

    def _beat(self) -> None:
        if self.alive and self.awake:
            until = self.agenda.now + HEARTBEAT_S
            if self.step(ev.SourceHeard(DSO, _instant(until))):
                self.alive_until = until
                self.agenda.at(until + LATE_CLOCK_S, self._missed)

    def _missed(self) -> None:
        """The time is up at which the gateway must have missed the grid party: the fallback holds."""
        now = self.agenda.now
        spoke_anew = self.spoke_at >= self.alive_until - LATE_CLOCK_S
        if now >= self.alive_until + LATE_CLOCK_S and self.fallback is None and not spoke_anew:
            self.count("fallback")
            self.fallback = Announcement(now, now, FAR, self.fallback_w, (), FALLBACK)
            self.judge.said.append(self.fallback)
            self._limit_changes()
            self._moves(now + self.judge.validity_s)

    def fall_silent(self) -> None:
        """The grid party is gone for a while, then speaks anew."""
        if self.silent:
            return
        self.silent = True
        self.agenda.after(self.random.choice([30, 200, 500]), self._speak_again)

    def _speak_again(self) -> None:
        if not (self.alive and self.awake):
            self.agenda.after(10, self._speak_again)
            return
        self.silent = False
        self._beat()
        self.announce()

    # --- one life ----

    def live(self) -> Life:
        """Live it to its end."""
        self.start()
        self._beat()
        self._revise(BlockKind.FALLBACK, (Block(_instant(0), _instant(10 * LENGTH_S), self.fallback_w),))
        self._say(0, 10 * LENGTH_S, MAIN_W, Dimension.SUM_W, (), first=True)
        self.agenda.after(HEARTBEAT_S * 0.7, self.heartbeat)
        for evse in self.stations:
            self.agenda.after(self.random.uniform(40, 200), lambda e=evse: self.plug(e))
        pool = [action for action, weight in self._actions() for _ in range(weight)]
        for _ in range(EVENTS):
            self.agenda.after(self.random.uniform(30, LENGTH_S), self.random.choice(pool))
        self.agenda.run(LENGTH_S, self._look)
        return self

    def _actions(self) -> list[tuple[Callable[[], None], int]]:
        cars = [(lambda: self.plug(self._any()), 6), (lambda: self.unplug(self._any()), 3)]
        if self.quiet:
            return [*cars, (self.announce, 8), (self.measure, 16)]
        return [
            *cars,
            (self.announce, 12),
            (self.measure, 4),
            (self.kill, 1),
            (self.arm, 3),
            (self.suspend, 1),
            (self.set_clock, 2),
            (self.fall_silent, 1),
            (lambda: self.unlink(self._any()), 3),
        ]

    def _any(self) -> str:
        return self.random.choice(list(self.stations))

    def _look(self) -> None:
        """Something has happened; only what moves a watt or a limit needs judging."""
        now = self.agenda.now
        if not (self.alive and self.awake and all(self.linked.values())):
            self.judge.trouble_at = now
        if self.moved:
            self.moved = False
            self.judge.look(now)
            self.judge.look_for_waste(now)

    def count(self, what: str) -> None:
        """Note that a fault occurred."""
        self.happened[what] += 1
        if what not in HARMLESS and not (self.forgiving and what.startswith("lost")):
            self.judge.trouble_at = self.agenda.now

    @property
    def broken(self) -> str:
        """Watts that were too many or lay idle; empty when there were none."""
        return "; ".join(text for text in (self.judge.excess.text, self.judge.idle.text) if text)

    @property
    def verdict(self) -> str:
        """Empty when every promise was kept."""
        liars = [evse for evse, grant in self.state.grants.items() if grant.lying]
        found = [self.broken, f"called liars: {liars}" if liars else "", self.stuck]
        return "; ".join(text for text in found if text)


def _tree(stations: dict[str, Station], amperes: int | None) -> Tree:
    limits = None if amperes is None else {phase: MilliAmperes(amperes * 1_000) for phase in Phase}
    nodes = [
        Node(MAIN, NodeKind.GRID_CONNECTION, import_max_w=Watts(MAIN_W)),
        Node(NodeId("main/garage"), NodeKind.CIRCUIT, import_max_w=Watts(GARAGE_W), import_max_ma=limits),
        Node(NodeId("main/house"), NodeKind.LOAD, reserve_w=Watts(LOAD_W)),
    ]
    for evse, station in stations.items():
        facts = EvseFacts(
            StationId(station.name),
            1,
            phases=tuple(Phase(phase) for phase in station.phases),
            safe_share_w=Watts(SHARE_W),
            told_power=station.in_watts,
        )
        nodes.append(Node(NodeId(evse), NodeKind.EVSE, evse=facts))
    return Tree(SiteId("depot"), {node.path: node for node in nodes}, "t1")


def _instant(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def _seconds(instant: datetime) -> float:
    return (instant - T0).total_seconds()


def _message(ident: str) -> MessageRef:
    return MessageRef(PeerId("dso"), "forecast", ident, T0)
