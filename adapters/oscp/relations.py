"""The peers' relations and their rows: read at start, stored before they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from adapters.oscp import session
from adapters.oscp.core import ADAPTER_NAME, ROW_PREFIX, Decision, Link, Request
from adapters.oscp.session import Relation, State
from gateway.domain.ids import PeerId
from gateway.ports.adapter import AdapterContext
from gateway.ports.gate import AdapterRow, Inbound, Receipt, Verdict


class Relations:
    """Every change of a relation goes through here, one at a time per peer."""

    def __init__(self, context: AdapterContext, links: Mapping[PeerId, Link]) -> None:
        self._gate = context.gate
        self._clock = context.clock
        self._locks = {peer: asyncio.Lock() for peer in links}
        self._changed = {peer: asyncio.Event() for peer in links}
        self.links = links

    def load(self) -> None:
        """Find everything again after a restart.

        A peer that was online gets two intervals to be heard; the controller keeps the deadline
        that decides about limits.
        """
        rows = self._gate.adapter_rows(ADAPTER_NAME, ROW_PREFIX)
        now = self._clock.now()
        for peer, link in self.links.items():
            row = rows.get(f"{ROW_PREFIX}{peer}")
            link.relation = Relation.from_row(row) if row else Relation()
            if link.relation.state is State.ONLINE:
                link.listening = link.listening.heard(now + 2 * link.interval)

    def lock(self, link: Link) -> asyncio.Lock:
        """Held while a relation is read and changed; never while a peer is called."""
        return self._locks[link.id]

    def changed(self, link: Link) -> asyncio.Event:
        """Set whenever a relation may have changed; its one waiter clears it."""
        return self._changed[link.id]

    async def take(self, link: Link, decision: Decision, request: Request) -> Verdict:
        """Store a decision with its message, then let it hold.

        Raises:
            StoreError: not durable; nothing changed.
        """
        if not decision.durable:
            self._gate.note(decision.events)
            self._adopt(link, decision)
            return Verdict.STORED
        stored = decision.relation
        receipt = await self._gate.submit(
            decision.events,
            inbound=_inbound(decision, request),
            rows=(link.row(stored),) if stored is not None and stored != link.relation else (),
            outbox=decision.outbox,
        )
        if receipt.verdict is Verdict.STORED:
            self._adopt(link, decision)
        return receipt.verdict

    async def promote(self, link: Link) -> None:
        """The peer has used C: the registration's answer has arrived, whatever its reply says.

        Raises:
            StoreError: not durable; nothing changed.
        """
        async with self.lock(link):
            if link.relation.swap is not None:
                await self.settle(link, session.finish_swap(link.relation, link.onboarding_sha256))

    async def settle(self, link: Link, relation: Relation) -> None:
        """Store a relation that changed without a message; the caller holds the lock.

        Raises:
            StoreError: not durable; nothing changed.
        """
        await self._store((link.row(relation),))
        link.relation = relation
        self.changed(link).set()

    async def _store(self, rows: Sequence[AdapterRow]) -> Receipt:
        return await self._gate.submit((), rows=rows)

    def _adopt(self, link: Link, decision: Decision) -> None:
        if decision.listening is not None:
            link.listening = decision.listening
        if decision.relation is not None:
            link.relation = decision.relation
            self.changed(link).set()


def _inbound(decision: Decision, request: Request) -> Inbound:
    message = decision.message
    return Inbound(message.peer, message.endpoint, message.message_id, request.body, message.received_at)
