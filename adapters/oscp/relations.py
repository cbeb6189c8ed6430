"""The peers' relations and their rows: read at start, stored before they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from adapters.oscp import forecasts, session
from adapters.oscp.adjusting import MAX_ASKS, Ask, asked
from adapters.oscp.adjusting import ROW_PREFIX as ASK_PREFIX
from adapters.oscp.link import ADAPTER_NAME, ROW_PREFIX, Credential, Decision, Link, Request
from adapters.oscp.segments import ROW_PREFIX as SEGMENT_PREFIX
from adapters.oscp.session import Relation, State
from gateway.domain.effects import OutboxItem
from gateway.domain.events import Event
from gateway.domain.ids import PeerId
from gateway.ports.adapter import AdapterContext
from gateway.ports.gate import AdapterRow, Inbound, Verdict


class Relations:
    """Every change of a relation goes through here, one at a time per peer."""

    def __init__(self, context: AdapterContext, links: Mapping[PeerId, Link]) -> None:
        self._gate = context.gate
        self._clock = context.clock
        self._locks = {peer: asyncio.Lock() for peer in links}
        self._changed = {peer: asyncio.Event() for peer in links}
        self.links = links
        self.owing = asyncio.Event()
        """Set whenever a deadline of the adapter may have been added; its one waiter clears it."""

    def load(self, provisioned: Callable[[Link, Relation], Relation]) -> None:
        """Find everything again after a restart.

        A peer that was online gets two intervals to be heard; the controller keeps the deadline
        that decides about limits. ``provisioned`` puts in what the configuration alone says.
        """
        now = self._clock.now()
        rows = self._gate.adapter_rows(ADAPTER_NAME)
        for peer, link in self.links.items():
            row = rows.get(f"{ROW_PREFIX}{peer}")
            link.relation = provisioned(link, Relation.from_row(row) if row else Relation())
            if link.relation.state is State.ONLINE:
                link.listening = link.listening.heard(now + 2 * link.interval)
            asks = [Ask.from_row(value) for value in _of(rows, f"{ASK_PREFIX}{peer}/").values()]
            link.asks = tuple(sorted(asks, key=lambda a: a.id))
            gone = rows.get(f"{forecasts.DROPPED_PREFIX}{peer}", b"").decode().split("\n")
            parts = _of(rows, f"{SEGMENT_PREFIX}{peer}/")
            link.pending = forecasts.restored(self.links, link, parts, [g for g in gone if g])

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
            GatewayError: the message is refused; the consequences are stored.
        """
        if decision.refusal is not None:
            # The message itself is not kept: it may come again in a better form.
            await self.keep(link, decision)
            raise decision.refusal
        if not decision.durable:
            self._gate.note(decision.events)
            self._adopt(link, decision)
            return Verdict.STORED
        receipt = await self._gate.submit(
            decision.events,
            inbound=_inbound(decision, request),
            rows=self._rows(link, decision),
            outbox=decision.outbox,
        )
        if receipt.verdict is Verdict.STORED:
            self._adopt(link, decision)
        return receipt.verdict

    async def keep(self, link: Link, decision: Decision) -> None:
        """Store what is decided without a message of the peer; the caller holds the lock.

        Raises:
            StoreError: not durable; nothing changed.
        """
        rows = self._rows(link, decision)
        if decision.events or rows or decision.outbox:
            await self._gate.submit(decision.events, rows=rows, outbox=decision.outbox)
        self._adopt(link, decision)

    async def promote(self, link: Link, credential: Credential) -> Credential:
        """The peer has used a token that is on its way to it: it has arrived, whatever its reply says.

        Raises:
            StoreError: not durable; nothing changed.
        """
        async with self.lock(link):
            relation = link.relation
            if credential is Credential.PENDING and relation.swap is not None:
                await self.settle(link, session.finish_swap(relation, link.onboarding_sha256))
                return Credential.CURRENT
            if credential is Credential.OFFERED and relation.offer is not None and relation.offer.method == "PUT":
                await self.settle(link, session.take_offer(relation))
                return Credential.CURRENT
        return credential

    async def settle(
        self,
        link: Link,
        relation: Relation,
        *,
        events: Sequence[Event] = (),
        outbox: Sequence[OutboxItem] = (),
    ) -> None:
        """Store a relation that changed without a message; the caller holds the lock.

        Raises:
            StoreError: not durable; nothing changed.
        """
        await self._gate.submit(events, rows=(link.row(relation),), outbox=outbox)
        link.relation = relation
        self._tell(link)

    async def set_asks(
        self,
        link: Link,
        asks: tuple[Ask, ...],
        rows: Sequence[AdapterRow],
        *,
        events: Sequence[Event] = (),
        outbox: Sequence[OutboxItem] = (),
    ) -> None:
        """Store what we ask the peer for; the caller holds the lock.

        Raises:
            StoreError: not durable; nothing changed.
        """
        await self._gate.submit(events, rows=rows, outbox=outbox)
        link.asks = asks
        self._tell(link)

    async def track(self, link: Link, item: OutboxItem) -> None:
        """Remember what the controller asks for, unless it is known; the caller holds the lock.

        Raises:
            StoreError: not durable; nothing changed.
        """
        if any(ask.id == item.id for ask in link.asks) or len(link.asks) >= MAX_ASKS:
            return
        ask = asked(item.id, item.body, link.heard_blocks)
        if ask.deadline > self._clock.now():
            row = AdapterRow(ADAPTER_NAME, ask.key(link.id), ask.to_row())
            await self.set_asks(link, (*link.asks, ask), (row,))

    async def forget(self, link: Link, ask_id: str) -> None:
        """The peer refused to be asked; the caller holds the lock.

        Raises:
            StoreError: not durable; nothing changed.
        """
        gone = [ask for ask in link.asks if ask.id == ask_id]
        if gone:
            rows = [AdapterRow(ADAPTER_NAME, ask.key(link.id), None) for ask in gone]
            await self.set_asks(link, tuple(a for a in link.asks if a not in gone), rows)

    def _rows(self, link: Link, decision: Decision) -> tuple[AdapterRow, ...]:
        stored = decision.relation
        mine = (link.row(stored),) if stored is not None and stored != link.relation else ()
        return (*mine, *decision.rows)

    def _adopt(self, link: Link, decision: Decision) -> None:
        if decision.listening is not None:
            link.listening = decision.listening
        if decision.pending is not None:
            link.pending = decision.pending
            self.owing.set()
        if decision.asks is not None:
            link.asks = decision.asks
        if decision.told is not None:
            link.remember(*decision.told)
        if decision.relation is not None:
            link.relation = decision.relation
            self._tell(link)

    def _tell(self, link: Link) -> None:
        self.changed(link).set()
        self.owing.set()


def _of(rows: Mapping[str, bytes], prefix: str) -> dict[str, bytes]:
    """Rows directly below a prefix: no name of a peer reaches into those of another."""
    return {k: v for k, v in rows.items() if k.startswith(prefix) and "/" not in k[len(prefix) :]}


def _inbound(decision: Decision, request: Request) -> Inbound:
    message = decision.message
    return Inbound(
        message.peer,
        message.endpoint,
        message.message_id,
        request.body,
        message.received_at,
        # A registration carries the token that we shall call with.
        has_secret=request.endpoint == "register",
    )
