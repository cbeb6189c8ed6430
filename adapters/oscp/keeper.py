"""What is due by time: messages that stay incomplete, registrations and handshakes without answer, old requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import datetime

from adapters.oscp import forecasts, session
from adapters.oscp.adjusting import AskState
from adapters.oscp.link import (
    ACKNOWLEDGE,
    ADAPTER_NAME,
    ADJUST,
    HANDSHAKE,
    REGISTER_CALLBACK,
    REGISTER_START,
    REGISTER_UPDATE,
    Link,
)
from adapters.oscp.relations import Relations
from adapters.oscp.session import Trigger
from gateway.domain.events import ReportDelivered
from gateway.domain.evidence import MessageRef
from gateway.domain.timeline import FOREVER
from gateway.ports.clock import Clock
from gateway.ports.gate import AdapterRow

log = logging.getLogger("gridgate.oscp")

KEEPER_ENDPOINT = "deadline"

_RETRY_S = 5.0
"""Pause after a fault (the store, most likely), in real seconds."""


class Keeper:
    """Serves the adapter's deadlines. They are stored, so a restart serves what is overdue first."""

    def __init__(self, relations: Relations, clock: Clock) -> None:
        self._relations = relations
        self._clock = clock

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            try:
                self._relations.owing.clear()
                await self.serve()
                await self._rest()
            except Exception:  # outermost loop of the task: it must not die of one bad round
                log.exception("oscp: serving deadlines failed; again in %g s", _RETRY_S)
                await asyncio.sleep(_RETRY_S)

    async def serve(self) -> None:
        """Do everything that is due now.

        Raises:
            StoreError: not durable; what is left is due again.
        """
        for link in self._relations.links.values():
            if min(deadlines(link), default=FOREVER) <= self._clock.now():
                async with self._relations.lock(link):
                    await self.serve_link(link)

    async def serve_link(self, link: Link) -> None:
        """The same for one peer; the caller holds its lock."""
        now = self._clock.now()
        due = link.pending.due(now)
        if due:
            log.warning("oscp %s: %d messages stayed incomplete and are dropped", link.id, len(due))
            message = MessageRef(link.id, KEEPER_ENDPOINT, due[0].segments[0].id, now)
            await self._relations.keep(link, forecasts.dropped(link, due, message))
        await self._end_registrations(link, now)
        await self._end_handshakes(link, now)
        await self._end_asks(link, now)

    async def _end_registrations(self, link: Link, now: datetime) -> None:
        offer = link.relation.offer
        if offer is not None and offer.until <= now:
            kind = REGISTER_START if offer.method == "POST" else REGISTER_UPDATE
            event = _given_up(link, offer.request_id, kind, "not answered in time")
            await self._relations.settle(link, session.abandon_offer(link.relation), events=(event,))
        swap = link.relation.swap
        if swap is not None and swap.until is not None and swap.until <= now:
            event = _given_up(link, swap.request_id, REGISTER_CALLBACK, "the answer could not be delivered in time")
            await self._relations.settle(link, session.abandon_swap(link.relation), events=(event,))

    async def _end_handshakes(self, link: Link, now: datetime) -> None:
        relation = link.relation
        if relation.shaking and relation.shaking_until is not None and relation.shaking_until <= now:
            log.warning("oscp %s: our handshake was not acknowledged in time", link.id)
            event = _given_up(link, relation.shaking, HANDSHAKE, "not acknowledged in time")
            await self._relations.settle(link, session.unshaken(relation), events=(event,))
        relation = link.relation
        until = relation.acknowledging_until
        if relation.acknowledging and until is not None and until <= now:
            log.warning("oscp %s: its handshake could not be acknowledged in time", link.id)
            event = _given_up(link, relation.acknowledging, ACKNOWLEDGE, "could not be delivered in time")
            dead = session.acknowledged(relation, Trigger.ACK_DEAD)
            await self._relations.settle(link, dead, events=(event,))

    async def _end_asks(self, link: Link, now: datetime) -> None:
        over = [a for a in link.asks if a.deadline <= now]
        if over:
            rows = [AdapterRow(ADAPTER_NAME, a.key(link.id), None) for a in over]
            events = [
                _given_up(link, a.id, ADJUST, f"{AskState.EXPIRED}: {a.state} when its last block ended") for a in over
            ]
            await self._relations.set_asks(link, tuple(a for a in link.asks if a not in over), rows, events=events)

    async def _rest(self) -> None:
        """Until the next deadline, or until there may be an earlier one."""
        due = min((d for link in self._relations.links.values() for d in deadlines(link)), default=FOREVER)
        waiter = asyncio.ensure_future(self._relations.owing.wait())
        timer = asyncio.ensure_future(self._clock.sleep_until(due)) if due != FOREVER else None
        try:
            await asyncio.wait([w for w in (waiter, timer) if w is not None], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            if timer is not None:
                timer.cancel()


def deadlines(link: Link) -> Iterator[datetime]:
    """Everything of a peer that becomes due by time."""
    if link.pending.deadline is not None:
        yield link.pending.deadline
    if link.relation.offer is not None:
        yield link.relation.offer.until
    if link.relation.swap is not None and link.relation.swap.until is not None:
        yield link.relation.swap.until
    if link.relation.shaking and link.relation.shaking_until is not None:
        yield link.relation.shaking_until
    if link.relation.acknowledging and link.relation.acknowledging_until is not None:
        yield link.relation.acknowledging_until
    yield from (ask.deadline for ask in link.asks)


def _given_up(link: Link, work: str, kind: str, detail: str) -> ReportDelivered:
    return ReportDelivered(work=work, peer=link.id, kind=kind, delivered=False, detail=detail)
