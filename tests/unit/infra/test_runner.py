"""The runner: what waits together is one decision and one commit, and nobody hears before it is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.domain import events as ev
from gateway.domain.effects import Changes, RowChange
from gateway.domain.errors import LocalError, StoreError
from gateway.domain.evidence import EvidenceDraft, MessageRef
from gateway.domain.ids import EvidenceId, PeerId, SiteId
from gateway.domain.timeline import FOREVER
from gateway.infra.runner import Runner
from gateway.ports.gate import Inbound, Receipt, Verdict
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
        return Count(seq), Changes(DEPOT, seq, (RowChange("demo", "seq", seq),), drafts)


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


async def test_a_message_that_comes_twice_at_once_is_stored_once() -> None:
    store = FakeStore()
    runner, stepper = await a_runner(store)
    receipts = await send(runner, "a", "a")
    assert sorted(r.verdict.value for r in receipts if isinstance(r, Receipt)) == ["duplicate", "stored"]
    assert sum(stepper.steps) == 1
    await runner.stop("test")
