"""Carrying facts: order, back-fill after an outage, and that a slow peer is nobody else's trouble."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.domain import events as ev
from gateway.domain.effects import OutboxItem
from gateway.domain.ids import EvidenceId, PeerId, SiteId
from gateway.infra.outbox import BACKFILL_EVERY_S, Courier
from gateway.ports.grid import Delivery, DeliveryStatus
from gateway.ports.store import CommitUnit, OutboxRow

pytestmark = pytest.mark.anyio

T0 = datetime(2026, 3, 1, tzinfo=UTC)
DSO = PeerId("dso")


class Time:
    """Seconds that pass when everything waits: the clock, and the sleep that is handed in."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed

    def wall_seconds(self, story_s: float) -> float:
        return story_s

    async def sleep(self, seconds: float) -> None:
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.elapsed + seconds, next(self._order), sleeper))
        await sleeper

    async def sleep_until(self, instant: datetime) -> None:
        await self.sleep(max((instant - self.now()).total_seconds(), 0.0))

    async def run(self, seconds: float) -> None:
        """Let so much time pass, waking every sleeper at its instant."""
        end = self.elapsed + seconds
        await _rest()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, sleeper = heapq.heappop(self._sleepers)
            self.elapsed = max(at, self.elapsed)
            if not sleeper.done():
                sleeper.set_result(None)
                await _rest()
        self.elapsed = end
        await _rest()


async def _rest() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


@dataclass
class Ledger:
    """Remembers at once."""

    site: SiteId = SiteId("depot")
    epoch: int = 1
    noted: list[ev.Event] = field(default_factory=list)

    def note(self, events: Sequence[ev.Event]) -> None:
        self.noted += events

    def commit_outbox(self, unit: CommitUnit) -> Future[tuple[EvidenceId, ...]]:
        done: Future[tuple[EvidenceId, ...]] = Future()
        done.set_result(())
        return done


class Carrier:
    """Takes ``takes_s`` per call and peer; ``away`` peers do not answer."""

    def __init__(self, time: Time, **takes_s: float) -> None:
        self._time = time
        self._takes_s = takes_s
        self.away: set[str] = set()
        self.calls: list[tuple[float, str, str]] = []
        self.done: list[tuple[float, str, str]] = []

    def serves(self, _: PeerId) -> bool:
        return True

    async def deliver(self, item: OutboxItem) -> Delivery:
        self.calls.append((self._time.elapsed, item.peer, item.id))
        await self._time.sleep(self._takes_s.get(item.peer, 0.0))  # virtual time, no real sleep
        if item.peer in self.away:
            return Delivery(DeliveryStatus.RETRY, "no answer")
        self.done.append((self._time.elapsed, item.peer, item.id))
        return Delivery(DeliveryStatus.DONE)

    def order(self) -> list[str]:
        return [ident for _, _, ident in self.done]


def a_fact(ident: str, peer: str = "dso", kind: str = "compliance_error") -> OutboxItem:
    return OutboxItem(ident, PeerId(peer), kind, {})


def a_report(minute: int, peer: str = "dso") -> OutboxItem:
    return a_fact(f"m{minute}", peer, "measurements")


def a_courier(time: Time, carrier: Carrier, owed: Sequence[OutboxItem] = ()) -> Courier:
    clock: Any = time
    rows = [OutboxRow(item, 0, None) for item in owed]
    courier = Courier(Ledger(), clock, rows, sleep=time.sleep)
    courier.attach([carrier])
    courier.start()
    return courier


async def test_facts_leave_in_the_order_in_which_they_are_owed() -> None:
    time = Time()
    carrier = Carrier(time)
    courier = a_courier(time, carrier)
    courier.take([a_report(1), a_fact("c1"), a_report(2), a_fact("c2")])
    await time.run(1)
    assert carrier.order() == ["m1", "c1", "m2", "c2"]
    await courier.stop()


async def test_after_an_outage_the_newest_report_goes_first_and_the_rest_oldest_first() -> None:
    time = Time()
    carrier = Carrier(time)
    courier = a_courier(time, carrier)
    carrier.away.add("dso")
    for minute in range(10):
        courier.take([a_report(minute)])
        await time.run(60)
    assert carrier.order() == []
    carrier.away.clear()
    await time.run(600)
    assert carrier.order() == ["m9", *(f"m{n}" for n in range(9))]
    assert courier.depth() == {"dso": 0}
    await courier.stop()


async def test_the_past_is_told_at_a_limited_rate() -> None:
    time = Time()
    carrier = Carrier(time)
    courier = a_courier(time, carrier, [a_report(n) for n in range(20)])
    await time.run(60)
    instants = [at for at, _, _ in carrier.done[1:]]
    assert all(b - a >= BACKFILL_EVERY_S for a, b in itertools.pairwise(instants))
    assert len(carrier.done) == 20
    await courier.stop()


async def test_what_is_new_does_not_wait_for_what_is_past() -> None:
    time = Time()
    carrier = Carrier(time)
    courier = a_courier(time, carrier, [a_report(n) for n in range(50)])
    await time.run(5.5)
    courier.take([a_fact("urgent"), a_report(50)])
    await time.run(0)
    assert carrier.order()[-2:] == ["urgent", "m50"]
    assert courier.depth()["dso"] > 0
    await courier.stop()


async def test_an_outage_in_the_middle_of_the_past_loses_nothing_and_repeats_nothing() -> None:
    time = Time()
    carrier = Carrier(time)
    courier = a_courier(time, carrier, [a_report(n) for n in range(10)])
    await time.run(4.5)
    carrier.away.add("dso")
    await time.run(30)
    courier.take([a_report(10)])
    await time.run(60)
    carrier.away.clear()
    await time.run(600)
    assert sorted(carrier.order()) == sorted(f"m{n}" for n in range(11))
    rest = carrier.order()[carrier.order().index("m10") + 1 :]
    assert rest == sorted(rest, key=lambda ident: int(ident[1:]))
    await courier.stop()


async def test_facts_that_wait_for_each_other_keep_their_order_through_an_outage() -> None:
    time = Time()
    carrier = Carrier(time)
    courier = a_courier(time, carrier)
    carrier.away.add("dso")
    courier.take([a_fact("register"), a_report(1), a_fact("ack"), a_report(2), a_fact("error")])
    await time.run(30)
    carrier.away.clear()
    await time.run(600)
    assert carrier.order() == ["register", "ack", "m2", "error", "m1"]
    await courier.stop()


def p99(latencies: Sequence[float]) -> float:
    return sorted(latencies)[int(len(latencies) * 0.99) - 1]


async def latencies(slow_s: float) -> list[float]:
    """Seconds from owed to delivered, of 30 quick peers beside one that takes ``slow_s`` per call."""
    time = Time()
    carrier = Carrier(time, slow=slow_s, **{f"p{n}": 0.05 for n in range(30)})
    courier = a_courier(time, carrier)
    owed_at: dict[str, float] = {}
    for second in range(60):
        for peer in ("slow", *(f"p{n}" for n in range(30))):
            ident = f"{peer}-{second}"
            owed_at[ident] = time.elapsed
            courier.take([a_fact(ident, peer)])
        await time.run(1)
    await courier.stop()
    return [at - owed_at[ident] for at, peer, ident in carrier.done if peer != "slow"]


async def test_a_peer_that_takes_12_s_delays_nobody_else_by_more_than_a_fifth_at_p99() -> None:
    alone, beside = await latencies(0.05), await latencies(12.0)
    assert len(alone) == len(beside) == 1_800
    assert p99(beside) <= 1.2 * p99(alone)
