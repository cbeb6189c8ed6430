"""Carrying facts to grid parties: in order per peer, at least once, with one id per fact.

A fact is stored with the state that it comes from; here it is tried until it is delivered, dead or
not wanted any more. The runner's transaction remembers the progress.

Reports are worth most while they are new. When a peer has been away, the newest one goes first, so
that it knows the present; the older ones follow behind everything else, oldest first, so many a
second. All other facts keep their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from gateway.domain import events as ev
from gateway.domain.effects import OutboxItem
from gateway.domain.errors import GatewayError
from gateway.domain.ids import EvidenceId, PeerId, SiteId
from gateway.ports.clock import Clock
from gateway.ports.grid import Delivery, DeliveryStatus, FactCarrier
from gateway.ports.store import CommitUnit, OutboxRow, OutboxUpdate

log = logging.getLogger("gridgate.outbox")

MAX_ATTEMPTS = 50
"""With the delays below about a day; then the fact is dead and says so in evidence."""

DELAYS_S = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0)
"""Real seconds before the next attempt; the last one repeats. Half of each is random."""

BACKFILLED = frozenset({"measurements"})
"""Kinds of facts that only tell what was: after an outage they give way to what is."""

BACKFILL_EVERY_S = 1.0
"""Real seconds between two reports of the past: a day of minutes takes less than half an hour."""

MAX_WAITING = 10_000
"""Facts per peer held in memory; more are in the store and taken after a restart."""


Sleep = Callable[[float], Awaitable[None]]
"""Waits so many real seconds; tests bring their own."""


class Ledger(Protocol):
    """What the courier needs of the runner."""

    site: SiteId

    @property
    def epoch(self) -> int: ...
    def note(self, events: Sequence[ev.Event]) -> None: ...
    def commit_outbox(self, unit: CommitUnit) -> Future[tuple[EvidenceId, ...]]: ...


@dataclass(slots=True)
class _Owed:
    item: OutboxItem
    attempts: int
    not_before: datetime | None


@dataclass(slots=True)
class _Line:
    """What is owed to one peer: ``now`` in order, ``past`` what is back-filled once ``now`` is empty."""

    now: deque[_Owed] = field(default_factory=deque)
    past: deque[_Owed] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.now) + len(self.past)

    def shelve(self) -> None:
        """Leave the newest report where it is and put the older ones behind everything."""
        reports = [owed for owed in self.now if owed.item.kind in BACKFILLED]
        if len(reports) > 1:
            newest = reports[-1]
            self.past.extend(reports[:-1])
            self.now = deque(o for o in self.now if o is newest or o.item.kind not in BACKFILLED)


class Courier:
    """One task per peer, so that a peer that takes its time delays nobody else."""

    def __init__(self, ledger: Ledger, clock: Clock, owed: Sequence[OutboxRow], sleep: Sleep = asyncio.sleep) -> None:
        self._ledger = ledger
        self._clock = clock
        self._carriers: list[FactCarrier] = []
        self._sleep = sleep
        self._waiting: dict[PeerId, _Line] = {}
        self._news: dict[PeerId, asyncio.Event] = {}
        self._tasks: dict[PeerId, asyncio.Task[None]] = {}
        self._running = False
        self._jitter = random.Random()  # delays only, never a secret
        for row in owed:
            self._line(row.item.peer).now.append(_Owed(row.item, row.attempts, row.not_before))
        for line in self._waiting.values():
            line.shelve()

    def attach(self, carriers: Iterable[FactCarrier]) -> None:
        """Name who carries."""
        self._carriers = list(carriers)

    def start(self) -> None:
        """Begin with what was owed before."""
        self._running = True
        for peer in tuple(self._waiting):
            self._ensure(peer)

    async def stop(self) -> None:
        """End; what is owed stays in the store."""
        self._running = False
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def take(self, items: Sequence[OutboxItem]) -> None:
        """Owe committed facts."""
        for item in items:
            line = self._line(item.peer)
            if len(line) >= MAX_WAITING:
                log.warning("outbox of %s is full in memory; the store keeps %s", item.peer, item.id)
                continue
            line.now.append(_Owed(item, 0, item.not_before))
            self._ensure(item.peer)

    def depth(self) -> dict[str, int]:
        """Facts owed per peer."""
        return {peer: len(line) for peer, line in self._waiting.items()}

    def _line(self, peer: PeerId) -> _Line:
        return self._waiting.setdefault(peer, _Line())

    def _ensure(self, peer: PeerId) -> None:
        if not self._running:
            return
        self._news.setdefault(peer, asyncio.Event()).set()
        if peer not in self._tasks:
            self._tasks[peer] = asyncio.get_running_loop().create_task(self._serve(peer), name=f"outbox {peer}")

    async def _serve(self, peer: PeerId) -> None:
        line, news = self._line(peer), self._news[peer]
        while self._running:
            if not line.now and line.past:
                await self._pause(news)
            queue = line.now or line.past
            if not queue:
                news.clear()
                await news.wait()
                continue
            owed = queue[0]
            if owed.not_before is not None:
                await self._clock.sleep_until(owed.not_before)
            try:
                delivery = await self._attempt(owed)
            except Exception as problem:  # outermost loop of the task: one fact must not stop the rest
                log.exception("delivery of %s failed", owed.item.id)
                delivery = Delivery(DeliveryStatus.RETRY, f"{type(problem).__name__}: {problem}")
            owed.attempts += 1
            await self._settle(queue, owed, delivery)
            if delivery.status is DeliveryStatus.RETRY:
                line.shelve()

    async def _pause(self, news: asyncio.Event) -> None:
        """Before a report of the past: a moment, or until there is something new to tell."""
        news.clear()
        waits = [asyncio.ensure_future(self._sleep(BACKFILL_EVERY_S)), asyncio.ensure_future(news.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _attempt(self, owed: _Owed) -> Delivery:
        if owed.item.expires_at is not None and self._clock.now() >= owed.item.expires_at:
            return Delivery(DeliveryStatus.DEAD, "obsolete")
        carrier = next((c for c in self._carriers if c.serves(owed.item.peer)), None)
        if carrier is None:
            return Delivery(DeliveryStatus.DEAD, "no adapter serves this peer")
        return await carrier.deliver(owed.item)

    async def _settle(self, queue: deque[_Owed], owed: _Owed, delivery: Delivery) -> None:
        status = delivery.status
        if status is DeliveryStatus.RETRY and owed.attempts >= MAX_ATTEMPTS:
            status = DeliveryStatus.DEAD
        if status is DeliveryStatus.RETRY:
            wait_s = self._delay_s(owed.attempts, delivery.after_s)
            await self._remember(owed, "ready", delivery.detail, self._clock.now() + timedelta(seconds=wait_s))
            await self._sleep(wait_s)
            return
        queue.popleft()
        await self._remember(owed, "done" if status is DeliveryStatus.DONE else "dead", delivery.detail, None)
        self._ledger.note(
            [
                ev.ReportDelivered(
                    work=owed.item.id,
                    peer=owed.item.peer,
                    kind=owed.item.kind,
                    delivered=status is DeliveryStatus.DONE,
                    detail=delivery.detail,
                    cause=tuple(owed.item.cause),
                )
            ]
        )

    def _delay_s(self, attempts: int, wish_s: float | None) -> float:
        base = DELAYS_S[min(attempts - 1, len(DELAYS_S) - 1)]
        return max(base / 2 + self._jitter.random() * base / 2, min(wish_s or 0.0, 3_600.0))

    async def _remember(self, owed: _Owed, status: str, error: str, not_before: datetime | None) -> None:
        update = OutboxUpdate(owed.item.id, status, owed.attempts, not_before, error[:500])
        unit = CommitUnit(
            site=self._ledger.site,
            epoch=self._ledger.epoch,
            seq=0,
            at=self._clock.now(),
            outbox_updates=(update,),
            lazy=True,
        )
        with contextlib.suppress(GatewayError):
            # A progress that is not remembered means one more delivery with the same id.
            await asyncio.wrap_future(self._ledger.commit_outbox(unit))
