"""The process ends at every store call of a short scenario, once before the commit and once after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.app.site import Controller, SiteFacts
from gateway.domain import events as ev
from gateway.domain.effects import Command
from gateway.domain.envelope import BindingPolicy, Block, BlockKind, RevisionMode
from gateway.domain.evidence import GATEWAY, MessageRef
from gateway.domain.ids import EvidenceId, NodeId, PeerId, SourceId, StationId
from gateway.domain.quantities import Direction
from gateway.infra.evidence_read import EvidenceReader
from gateway.infra.evidence_verify import verify_log
from gateway.infra.runner import Runner
from gateway.infra.store_sql import SqliteStore
from gateway.ports.gate import Inbound, Verdict
from gateway.ports.store import CommitUnit
from gateway.runtime import decode_state
from gateway.testing.clock import ManualClock
from tests.support.store import DEPOT, a_store
from tests.unit.app.builders import a_tree

T0 = datetime(2031, 3, 1, 17, tzinfo=UTC)
DSO, MAIN, EVSE = SourceId("dso"), NodeId("main"), NodeId("main/garage/evse-1")

FORECASTS = {"limit", "cut", "raise"}

pytestmark = pytest.mark.anyio


class Aborted(Exception):
    """The process is dead; whoever waited hears nothing."""


@dataclass
class Mortal:
    """A store whose ``at``-th commit is the end: of a unit that is ``written`` all the same, or not."""

    store: SqliteStore
    at: int
    written: bool
    calls: int = 0

    def commit(self, unit: CommitUnit) -> Future[tuple[EvidenceId, ...]]:
        self.calls += 1
        if self.calls < self.at:
            return self.store.commit(unit)
        if self.calls == self.at and self.written:
            self.store.commit(unit).result()
        lost: Future[tuple[EvidenceId, ...]] = Future()
        lost.set_exception(Aborted())
        return lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@dataclass
class Obeying:
    """A station's end that accepts every command at once, unless the process is dead."""

    runner: Runner | None = None
    accepted: list[str] = field(default_factory=list)

    def serves(self, _station: StationId) -> bool:
        return True

    def apply(self, command: Command) -> None:
        self.accepted.append(str(command.id))
        assert self.runner is not None
        self.runner.note([ev.CommandAnswered(command.id, command.evse, command.generation, ev.Outcome.ACCEPTED)])


def forecast(request: str, watts: int) -> ev.EnvelopeRevised:
    blocks = (Block(T0, T0 + timedelta(hours=1), watts),)
    message = MessageRef(PeerId("dso"), "forecast", request, T0)
    return ev.EnvelopeRevised(
        DSO, MAIN, Direction.IMPORT, "oscp/G", BlockKind.PRIMARY, blocks, RevisionMode.OVERLAY, message
    )


def inbound(peer: str, endpoint: str, ident: str) -> Inbound:
    return Inbound(PeerId(peer), endpoint, ident, ident.encode(), T0, answer=b"ok")


def messages() -> Iterator[tuple[str, ev.Event, Inbound]]:
    """What the DSO and the station send, in order, each under an id that its sender keeps."""
    yield "limit", forecast("limit", 50_000), inbound("dso", "forecast", "limit")
    started = ev.SessionStarted(EVSE, "tx-1", T0, MessageRef(PeerId("CP-1"), "start", "s-1", T0))
    yield "start", started, inbound("CP-1", "start", "s-1")
    yield "cut", forecast("cut", 15_000), inbound("dso", "forecast", "cut")
    yield "raise", forecast("raise", 40_000), inbound("dso", "forecast", "raise")
    ended = ev.SessionEnded(EVSE, "tx-1", T0 + timedelta(minutes=5), MessageRef(PeerId("CP-1"), "stop", "s-2", T0))
    yield "stop", ended, inbound("CP-1", "stop", "s-2")


@dataclass
class Evening:
    """Plays the scenario over as many lives as it takes; senders repeat what nobody acknowledged."""

    folder: Path
    acknowledged: list[str] = field(default_factory=list)
    generation: int = 0

    async def live(self, at: int, *, written: bool) -> int:
        """One life that ends at its ``at``-th commit; how many it made."""
        store = a_store(self.folder)
        mortal = Mortal(store, at, written)
        loaded = store.open_site(DEPOT)
        station = Obeying()
        facts = SiteFacts(a_tree(1), {(DSO, MAIN): BindingPolicy()}, {})
        runner = station.runner = Runner(
            DEPOT,
            stepper=Controller(facts),
            state=decode_state(loaded),
            loaded=loaded,
            store=mortal,
            clock=ManualClock(T0),
            boot=f"life-{loaded.epoch}",
        )
        runner.attach([station])
        try:
            await self._play(runner)
        except Exception as problem:  # the end of this life, whatever its form
            if mortal.calls < at:
                raise AssertionError("it ended before its time") from problem
        calls = mortal.calls
        await runner.stop("end of a life")
        await asyncio.to_thread(store.close)
        return calls

    async def _play(self, runner: Runner) -> None:
        await runner.start("0" * 64)
        self.generation += 1
        await runner.submit([ev.SourceHeard(DSO, T0 + timedelta(hours=1))])
        await runner.submit([ev.StationConnected(StationId("CP-1"), self.generation, "OCPP 1.6", GATEWAY)])
        for name, event, message in messages():
            if name in self.acknowledged:
                continue
            receipt = await runner.submit([event], inbound=message)
            assert receipt.verdict in (Verdict.STORED, Verdict.DUPLICATE)
            self.acknowledged.append(name)
            await settled(runner)

    def entries(self, type_: str) -> Sequence[Any]:
        with EvidenceReader(self.folder / "gridgate.db") as reader:
            return list(reversed(reader.by_type(type_, limit=1_000)))


async def settled(runner: Runner) -> None:
    """Let commands and their answers pass through."""
    for _ in range(3):
        await runner.submit([ev.DeadlineReached()])
        await asyncio.sleep(0)


@pytest.mark.parametrize("written", [False, True], ids=["before the commit", "after the commit"])
async def test_nothing_acknowledged_is_lost_or_doubled_wherever_the_process_ends(tmp_path: Path, written: bool) -> None:
    whole = Evening(tmp_path / "whole")
    whole.folder.mkdir()
    count = await whole.live(10_000, written=False)
    assert count >= 10, "the scenario has become too short to mean anything"
    for at in range(1, count + 1):
        evening = Evening(tmp_path / str(at))
        evening.folder.mkdir()
        await evening.live(at, written=written)
        kept = {e.subject["request_id"] for e in evening.entries("envelope.revised")}
        assert FORECASTS & set(evening.acknowledged) <= kept, f"commit {at}: acknowledged and lost"
        await evening.live(10_000, written=False)
        assert evening.acknowledged == ["limit", "start", "cut", "raise", "stop"], f"commit {at}"
        revised = [e.subject["request_id"] for e in evening.entries("envelope.revised")]
        assert revised == ["limit", "cut", "raise"], f"commit {at}: each forecast once, in order"
        assert len(evening.entries("session.started")) == len(evening.entries("session.outcome")) == 1, f"commit {at}"
        commands = [e.subject["command"] for e in evening.entries("setpoint.sent")]
        assert len(set(commands)) == len(commands), f"commit {at}"
        report = verify_log(evening.folder / "gridgate.db", head_path=evening.folder / "gridgate.head")
        assert report.ok, (at, report.problems)
