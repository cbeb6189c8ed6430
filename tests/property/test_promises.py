"""Random lives of a site against a physical fleet: no limit that was known in time is exceeded."""

from __future__ import annotations

import functools
import os
import random
from datetime import datetime, timedelta

import pytest

from gateway.app.site import Controller, SiteFacts, SiteState
from gateway.app.state import Settings
from gateway.domain import events as ev
from gateway.domain.effects import Command, Layer
from gateway.domain.envelope import BindingPolicy, Block, BlockKind, RevisionMode
from gateway.domain.evidence import GATEWAY
from gateway.domain.ids import NodeId, StationId
from gateway.domain.quantities import Direction
from tests.property.fleet_model import Agenda, Announcement, Judge, Line, PhysicalStation
from tests.unit.app.builders import DSO, MAIN, T0, a_tree, message

pytestmark = pytest.mark.timeout(300)

SEQUENCES = int(os.environ.get("GRIDGATE_SEQUENCES", "60"))
PLAIN = 16
"""Lives of the plain run; the rest are ``slow``. One takes some seconds."""

EVSES = 4
LOAD_W = 8_000
HOURS = 3


class Life:
    """One seeded life of a site."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.settings = Settings()
        self.tree = a_tree(EVSES, main_w=60_000, garage_w=44_000)
        facts = SiteFacts(self.tree, {(DSO, MAIN): BindingPolicy()}, {}, self.settings)
        self.controller = Controller(facts)
        self.agenda = Agenda(T0)
        self.line = Line(self.random, loss=self.random.choice([0, 0.1, 0.4]), doubled=0.05)
        guard = self.settings.guard_s / 2
        self.stations = {
            f"main/garage/evse-{i}": PhysicalStation(f"CP-{i}", self.random.uniform(-guard, guard))
            for i in range(1, EVSES + 1)
        }
        self.generation = dict.fromkeys(self.stations, 0)
        self.linked = dict.fromkeys(self.stations, False)
        self.unanswered: dict[str, list[Command]] = {}
        validity = timedelta(seconds=self.settings.validity_s + self.settings.guard_s)
        self.judge = Judge(60_000, LOAD_W, validity, self.stations.values())
        self.state = SiteState()
        self.alive = True
        self.epoch = 0
        self.faults: dict[str, int] = {}
        self._timer = 0

    # --- the gateway ----

    def step(self, *events: ev.Event) -> None:
        if not self.alive:
            return
        self.state, changes = self.controller.step(self.state, events, self.agenda.now)
        for command in changes.commands:
            self._send(command)
        self._timer += 1
        token = self._timer
        self.agenda.at(self.state.next_deadline, lambda: self._due(token))

    def _due(self, token: int) -> None:
        if token == self._timer:
            self.agenda.now += timedelta(milliseconds=1)
            self.step(ev.DeadlineReached())
            assert not self.alive or self.state.next_deadline > self.agenda.now, "a deadline that was served is over"

    def _send(self, command: Command) -> None:
        evse = command.evse
        if not self.linked[evse] or command.generation != self.generation[evse]:
            self.agenda.after(0.01, lambda: self._answer(command, ev.Outcome.NOT_SENT))
            return
        sent_at = self.agenda.now
        self.unanswered[evse].append(command)
        if self.line.carry(self.agenda, lambda: self._arrive(command, sent_at)):
            self.count("lost command")

    def _arrive(self, command: Command, sent_at: datetime) -> None:
        station = self.stations[command.evse]
        if command.generation != self.generation[command.evse]:
            return
        if command.layer is Layer.SAFE_SHARE:
            station.share_w, station.share_told = command.schedule.floor_w, sent_at
        elif not station.plugged or command.transaction != station.transaction:
            self.line.carry(self.agenda, lambda: self._answer(command, ev.Outcome.REJECTED))
            return
        else:
            station.schedule, station.schedule_told = [(s.start, s.limit_w) for s in command.schedule.steps], sent_at
        if self.line.carry(self.agenda, lambda: self._answer(command, ev.Outcome.ACCEPTED)):
            self.count("lost answer")

    def _answer(self, command: Command, outcome: ev.Outcome) -> None:
        waiting = self.unanswered[command.evse]
        ordered = command not in waiting[1:]
        if command in waiting:
            waiting.remove(command)
        self.step(ev.CommandAnswered(command.id, command.evse, command.generation, outcome, ordered))

    def start(self) -> None:
        self.alive = True
        self.epoch += 1
        self.state = SiteState(
            seq=self.state.seq,
            control=self.state.control,
            sources=self.state.sources,
            envelopes=self.state.envelopes,
            stations=self.state.stations,
            grants=self.state.grants,
            sessions=self.state.sessions,
        )
        self.step(ev.GatewayStarted(self.epoch, "boot", self.epoch == 1, "cfg"))

    def kill(self) -> None:
        self.count("restart")
        self.alive = False
        for evse in self.stations:
            self.linked[evse] = False
        self.agenda.after(self.random.uniform(1, 2_400), self.start)
        for evse in self.stations:
            self.agenda.after(self.random.uniform(2_401, 2_500), lambda e=evse: self.link(e))

    # --- the fleet ----

    def link(self, evse: str) -> None:
        if not self.alive:
            return
        self.generation[evse] += 1
        self.linked[evse] = True
        self.unanswered[evse] = []
        station = StationId(self.stations[evse].name)
        self.step(ev.StationConnected(station, self.generation[evse], "ocpp1.6", GATEWAY))

    def unlink(self, evse: str) -> None:
        self.count("disconnect")
        self.linked[evse] = False
        self.step(ev.StationDisconnected(StationId(self.stations[evse].name), self.generation[evse], "test"))
        self.agenda.after(self.random.uniform(1, 900), lambda: self.link(evse))

    def plug(self, evse: str) -> None:
        station = self.stations[evse]
        if station.plugged or not self.linked[evse]:
            return
        station.plugged, station.transaction = True, f"tx-{self.agenda.now}"
        self.step(ev.SessionStarted(NodeId(evse), station.transaction, self.agenda.now, message()))

    def unplug(self, evse: str) -> None:
        station = self.stations[evse]
        if not station.plugged or not self.linked[evse] or not self.alive:
            return
        station.plugged, station.schedule = False, None
        self.step(ev.SessionEnded(NodeId(evse), station.transaction, self.agenda.now, message()))

    # --- the grid party ----

    def announce(self) -> None:
        if not self.alive:
            return
        now = self.agenda.now
        start = now + timedelta(seconds=self.random.choice([0, 30, 600, 2_400, 4_000]))
        end = start + timedelta(seconds=self.random.choice([300, 1_200, 3_600]))
        watts = self.random.choice([0, 12_000, 20_000, 26_000, 30_000, 45_000, 60_000])
        self.judge.said.append(Announcement(now, start, end, max(watts, LOAD_W)))
        self.count("announcement")
        self.step(
            ev.EnvelopeRevised(
                DSO,
                MAIN,
                Direction.IMPORT,
                "oscp/G",
                BlockKind.PRIMARY,
                (Block(start, end, watts),),
                RevisionMode.OVERLAY,
                message(f"q-{now}"),
            )
        )

    def count(self, what: str) -> None:
        self.faults[what] = self.faults.get(what, 0) + 1

    def look(self) -> None:
        now = self.agenda.now
        total = LOAD_W + sum(s.draw_w(now) for s in self.stations.values())
        note = {s.name: s.draw_w(now) for s in self.stations.values()}
        self.judge.look(now, total, str(note))
        if now < T0 + timedelta(hours=HOURS):
            self.agenda.after(5, self.look)

    def live(self) -> None:
        self.start()
        for evse in self.stations:
            self.link(evse)
            self.agenda.after(self.random.uniform(150, 1_200), lambda e=evse: self.plug(e))
        actions = [
            (self.announce, 10),
            (self.kill, 1),
            (lambda: self.unlink(self._any()), 3),
            (lambda: self.plug(self._any()), 6),
            (lambda: self.unplug(self._any()), 3),
        ]
        pool = [a for a, weight in actions for _ in range(weight)]
        for _ in range(40):
            self.agenda.after(self.random.uniform(0, HOURS * 3_600), self.random.choice(pool))
        self.agenda.after(120, self.look)
        self.agenda.run(T0 + timedelta(hours=HOURS))

    def _any(self) -> str:
        return self.random.choice(list(self.stations))


@functools.cache
def lived(seed: int) -> Life:
    """A life at its end."""
    life = Life(seed)
    life.live()
    return life


SEEDS = [pytest.param(seed, marks=pytest.mark.slow if seed >= PLAIN else ()) for seed in range(SEQUENCES)]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_limit_known_in_time_is_exceeded_whatever_is_lost(seed: int) -> None:
    life = lived(seed)
    assert life.judge.worst == 0, f"seed {seed}: {life.judge.where}"


def test_the_random_lives_do_contain_the_faults_they_are_about() -> None:
    seen: dict[str, int] = {}
    for seed in range(10):
        for fault in lived(seed).faults:
            seen[fault] = seen.get(fault, 0) + 1
    assert min(seen.get(f, 0) for f in ("lost command", "restart", "disconnect", "announcement")) >= 3, seen
