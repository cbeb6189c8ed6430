"""The runner: what waits together is one decision and one commit, and nobody hears before it is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.domain import events as ev
from gateway.domain.effects import Changes, Command, Layer, RowChange
from gateway.domain.errors import LocalError, StoreError
from gateway.domain.evidence import EvidenceDraft, MessageRef
from gateway.domain.ids import CommandId, EvidenceId, NodeId, PeerId, SiteId, StationId
from gateway.domain.measurement import Measurement, Quantity
from gateway.domain.quantities import Watts
from gateway.domain.schedule import constant
from gateway.domain.timeline import FOREVER
from gateway.infra.runner import MAX_GATHERED, Runner
from gateway.ports.gate import Inbound, Receipt, Verdict
from gateway.ports.store import CommitUnit
from gateway.testing.clock import ManualClock
from gateway.testing.fakes import FakeStore

DEPOT = SiteId("depot")
NOON = datetime(2031, 3, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Count:
    """A state that knows how many notes it has seen."""

    seq: int = 0
    next_deadline: datetime = FOREVER
    grants: dict[str, Any] = field(default_factory=dict)
    sessions: dict[str, Any] = field(default_factory=dict)


@dataclass
class Counting:
    """Seals one entry per noted message; chokes on the type ``poison``. Remembers its steps."""

    steps: list[int] = field(default_factory=list)

    def step(self, state: Count, events: Sequence[ev.Event], now: datetime) -> tuple[Count, Changes]:
        noted = [e for e in events if isinstance(e, ev.MessageNoted)]
        if any(e.type == "poison" for e in noted):
            raise ValueError("cannot be digested")
        self.steps.append(len(noted))
        seq = state.seq + 1
        drafts = tuple(
            EvidenceDraft(EvidenceId(f"evd_{e.message.message_id}"), e.type, now, {"request_id": e.message.message_id})
            for e in noted
        )
        commands = tuple(a_limit(e.message.message_id, e.type) for e in noted if e.type in ("raise", "cut"))
        return Count(seq), Changes(DEPOT, seq, (RowChange("demo", "seq", seq),), drafts, commands=commands)


@dataclass
class Listening:
    """A station's end; keeps the ids of what it is told."""

    commands: list[str] = field(default_factory=list)

    def serves(self, _station: StationId) -> bool:
        return True

    def apply(self, command: Command) -> None:
        self.commands.append(str(command.id))


def a_limit(ident: str, what: str) -> Command:
    schedule = constant(Watts(22_000 if what == "raise" else 11_000))
    station = StationId("CP-1")
    return Command(
        CommandId(ident), NodeId("main/evse-1"), station, Layer.SESSION, 1, schedule, 1, tightens=what == "cut"
    )


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def noted(ident: str, type_: str = "demo.noted") -> ev.MessageNoted:
    return ev.MessageNoted(type_, MessageRef(PeerId("dso"), "demo", ident, NOON))


def inbound(ident: str) -> Inbound:
    return Inbound(PeerId("dso"), "demo", ident, b"{}", NOON, answer=ident.encode())


async def a_runner(store: FakeStore) -> tuple[Runner, Counting]:
    stepper = Counting()
    loaded = store.open_site(DEPOT)
    runner = Runner(
        DEPOT, stepper=stepper, state=Count(), loaded=loaded, store=store, clock=ManualClock(NOON), boot="b"
    )
    await runner.start("0" * 64)
    stepper.steps.clear()
    return runner, stepper


async def send(runner: Runner, *idents: str, type_: str = "demo.noted") -> list[Receipt | BaseException]:
    calls = [runner.submit([noted(i, type_)], inbound=inbound(i)) for i in idents]
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_messages_that_wait_together_are_one_step_and_one_commit() -> None:
    store = FakeStore()
    runner, stepper = await a_runner(store)
    before = len(store.units)
    receipts = await send(runner, "a", "b", "c")
    assert stepper.steps == [3]
    [unit] = store.units[before:]
    assert [m.message_id for m in unit.inbounds] == ["a", "b", "c"]
    assert [r.answer for r in receipts if isinstance(r, Receipt)] == [b"a", b"b", b"c"]
    await runner.stop("test")


async def test_everybody_is_told_of_their_own_evidence() -> None:
    runner, _ = await a_runner(FakeStore())
    receipts = await send(runner, "a", "b")
    assert [r.evidence for r in receipts if isinstance(r, Receipt)] == [("evd_a",), ("evd_b",)]
    await runner.stop("test")


async def test_nobody_is_told_before_the_commit() -> None:
    store = FakeStore()
    runner, _ = await a_runner(store)
    store.held = True
    call = asyncio.ensure_future(runner.submit([noted("a")], inbound=inbound("a")))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not call.done()
    store.held = False
    store.release()
    assert (await call).verdict is Verdict.STORED
    await runner.stop("test")


async def test_an_event_that_cannot_be_digested_takes_no_neighbour_along() -> None:
    runner, _ = await a_runner(FakeStore())
    good = asyncio.ensure_future(runner.submit([noted("a")], inbound=inbound("a")))
    bad = asyncio.ensure_future(runner.submit([noted("x", "poison")], inbound=inbound("x")))
    also = asyncio.ensure_future(runner.submit([noted("b")], inbound=inbound("b")))
    with pytest.raises(LocalError):
        await bad
    assert [(await call).verdict for call in (good, also)] == [Verdict.STORED, Verdict.STORED]
    await runner.stop("test")


async def test_a_commit_that_fails_acknowledges_nobody_and_is_forgotten() -> None:
    store = FakeStore()
    runner, _ = await a_runner(store)
    seq = runner.state.seq
    store.broken = True
    assert {type(r) for r in await send(runner, "a", "b")} == {StoreError}
    assert (runner.state.seq, runner.is_store_broken) == (seq, True)
    store.broken = False
    assert [r.verdict for r in await send(runner, "a", "b") if isinstance(r, Receipt)] == [Verdict.STORED] * 2
    assert not runner.is_store_broken
    await runner.stop("test")


async def test_of_decisions_that_are_not_stored_only_a_decrease_against_what_is_stored_leaves() -> None:
    store = FakeStore()
    runner, _ = await a_runner(store)
    station = Listening()
    runner.attach([station])
    store.held = True
    for what in ("raise", "cut"):  # the cut is one against the raise alone
        runner.note([noted(f"cmd_{what}", what)])
        await settled()
    store.broken = True
    store.release()
    await settled()
    assert station.commands == []
    store.held = False
    runner.note([noted("cmd_again", "cut")])
    await settled()
    assert station.commands == ["cmd_again"]
    await runner.stop("test")


async def test_the_same_decrease_leaves_once_while_nothing_can_be_stored() -> None:
    store = FakeStore()
    runner, _ = await a_runner(store)
    station = Listening()
    runner.attach([station])
    store.broken = True
    for number in range(5):
        runner.note([noted(f"cmd_{number}", "cut")])
        await settled()
    assert station.commands == ["cmd_0"]
    await runner.stop("test")


@dataclass
class Doubtful(FakeStore):
    """Refuses like the real store what does not follow; ``lies`` calls one commit failed that is not."""

    lies: bool = False
    stored: int = 1

    def commit(self, unit: CommitUnit) -> Future[tuple[EvidenceId, ...]]:
        future: Future[tuple[EvidenceId, ...]] = Future()
        if unit.seq and unit.seq != self.stored + 1:
            future.set_exception(StoreError("it does not follow", code="store.fenced"))
            return future
        self.stored = unit.seq or self.stored
        whole = super().commit(unit)
        if self.lies:
            future.set_exception(StoreError("I/O error", code="store.not-committed"))
            self.lies = False
            return future
        return whole


async def test_a_commit_that_was_called_failed_and_is_stored_asks_for_a_new_start() -> None:
    store, asked = Doubtful(stored=0), asyncio.Event()
    runner, _ = await a_runner(store)
    runner._on_lost_track = asked.set
    store.lies = True
    assert [type(r) for r in await send(runner, "a")] == [StoreError]
    assert not asked.is_set()
    assert [type(r) for r in await send(runner, "b")] == [StoreError]
    assert asked.is_set()
    await runner.stop("test")


async def test_what_is_due_rests_a_moment_after_a_commit_has_failed() -> None:
    store = FakeStore()
    runner, stepper = await a_runner(store)
    store.broken = True
    runner._state = runner._durable = Count(runner.state.seq, next_deadline=NOON)
    runner._wake.set()
    for _ in range(100):
        await asyncio.sleep(0)
    assert stepper.steps == [0]
    await runner.stop("test")


async def test_a_message_that_comes_twice_at_once_is_stored_once() -> None:
    store = FakeStore()
    runner, stepper = await a_runner(store)
    receipts = await send(runner, "a", "a")
    assert sorted(r.verdict.value for r in receipts if isinstance(r, Receipt)) == ["duplicate", "stored"]
    assert sum(stepper.steps) == 1
    await runner.stop("test")


# --- samples --------------------------------------------------------------------------------


def a_sample(value: int) -> Measurement:
    return Measurement(NodeId("main"), Quantity.P, value, NOON, NOON)


class Telemetry(FakeStore):
    """Counts what is handed over, and keeps it until it is told how that ended."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[list[int], Future[None]]] = []

    def record_samples(self, site: SiteId, samples: Sequence[Measurement]) -> Future[None]:
        future: Future[None] = Future()
        self.calls.append(([sample.value for sample in samples], future))
        return future

    async def called(self) -> Future[None]:
        async with asyncio.timeout(5):
            while not self.calls:
                await asyncio.sleep(0)
        return self.calls[-1][1]


async def test_samples_that_come_together_are_handed_over_together_and_all_wait_for_the_commit() -> None:
    store = Telemetry()
    runner, _ = await a_runner(store)
    waiting = [asyncio.ensure_future(runner.measure([a_sample(n)])) for n in range(3)]
    commit = await store.called()
    assert [values for values, _ in store.calls] == [[0, 1, 2]]
    assert not any(call.done() for call in waiting)
    commit.set_result(None)
    assert await asyncio.gather(*waiting) == [None] * 3
    await runner.stop("test")


async def test_many_samples_wait_no_longer() -> None:
    store = Telemetry()
    runner, _ = await a_runner(store)
    waiting = [asyncio.ensure_future(runner.measure([a_sample(n)])) for n in range(MAX_GATHERED + 1)]
    assert [values for values, _ in store.calls] == [list(range(MAX_GATHERED))]
    store.calls[0][1].set_result(None)
    await asyncio.gather(*waiting[:MAX_GATHERED])
    assert not waiting[-1].done()
    await runner.stop("test")


async def test_a_telemetry_commit_that_fails_acknowledges_nobody_and_the_next_one_is_its_own() -> None:
    store = Telemetry()
    runner, _ = await a_runner(store)
    waiting = [asyncio.ensure_future(runner.measure([a_sample(n)])) for n in range(2)]
    (await store.called()).set_exception(StoreError("full"))
    assert [type(r) for r in await asyncio.gather(*waiting, return_exceptions=True)] == [StoreError] * 2
    store.calls.clear()
    again = asyncio.ensure_future(runner.measure([a_sample(7)]))
    (await store.called()).set_result(None)
    await again
    await runner.stop("test")


async def test_a_caller_that_gives_up_takes_no_other_along() -> None:
    store = Telemetry()
    runner, _ = await a_runner(store)
    gone, stays = (asyncio.ensure_future(runner.measure([a_sample(n)])) for n in range(2))
    gone.cancel()
    (await store.called()).set_result(None)
    await stays
    assert gone.cancelled()
    await runner.stop("test")
