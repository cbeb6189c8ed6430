"""What an operator may start: a registration, its change or end, a handshake, a request for capacity.

Every action is stored with the call that it owes; the runner delivers that like any other fact. The
port is ``gateway.ports.grid.PeerOperator``.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

from adapters.oscp import session, wire
from adapters.oscp.adjusting import MAX_ASKS, asked
from adapters.oscp.link import (
    ADAPTER_NAME,
    ADJUST,
    CALLBACK_EXPIRY,
    HANDSHAKE,
    REGISTER_END,
    REGISTER_START,
    REGISTER_UPDATE,
    Link,
    noted,
)
from adapters.oscp.relations import Relations
from adapters.oscp.session import CONNECTED, Offer, State
from adapters.oscp.vault import Vault
from gateway.domain.effects import OutboxItem
from gateway.domain.envelope import Block
from gateway.domain.errors import ActionRefused
from gateway.domain.events import SourceEnded
from gateway.domain.evidence import GATEWAY, Actor, Json, MessageRef, sha256_hex
from gateway.domain.ids import PeerId, SourceId, derive
from gateway.domain.timeline import rfc3339
from gateway.ports.clock import Clock
from gateway.ports.gate import AdapterRow

TOKEN_BYTES = 48
"""Of the tokens that we hand out; 64 characters."""

OPERATOR_ENDPOINT = "operator"
"""Channel of an operator's wish in evidence."""


class Operator:
    """Starts what is ours to start. Every method returns the request id of the call that is owed."""

    def __init__(self, relations: Relations, clock: Clock, vault: Vault) -> None:
        self._relations = relations
        self._clock = clock
        self._vault = vault

    async def register(self, peer: PeerId, *, actor: Actor = GATEWAY) -> str:
        """Start a registration: with the peer's onboarding token, or anew with the current one.

        Raises:
            ActionRefused: it is not known where the peer is, or it is provisioned.
            StoreError: not stored, nothing will be sent.
        """
        link = self._link(peer)
        if link.dialect.onboarding != "register":
            raise ActionRefused(f"{peer} is provisioned by the configuration and does not register")
        async with self._relations.lock(link):
            if not (link.relation.base_url or link.address):
                raise ActionRefused(f"where {peer} is, is not known: set options.address to its OSCP address")
            if not (link.relation.token_out_sealed or link.settings.token):
                raise ActionRefused(f"{peer} has given no token to register with: set token")
            return await self._offer(link, "POST", REGISTER_START, actor)

    async def renew(self, peer: PeerId, *, actor: Actor = GATEWAY) -> str:
        """Give the peer a new token and our present address, without a new handshake (``PUT``).

        Raises:
            ActionRefused: there is no relation.
            StoreError: not stored, nothing will be sent.
        """
        link = self._connected(peer)
        async with self._relations.lock(link):
            return await self._offer(link, "PUT", REGISTER_UPDATE, actor)

    async def end(self, peer: PeerId, *, actor: Actor = GATEWAY) -> str:
        """End the relation here and now, and tell the peer (``DELETE``). Its fallback stays in force.

        Raises:
            ActionRefused: there is no relation.
            StoreError: not stored, nothing ends.
        """
        link = self._connected(peer)
        async with self._relations.lock(link):
            relation = link.relation
            item = self._item(
                link, REGISTER_END, {"token": relation.token_out_sealed, "base_url": relation.base_url}, expires=True
            )
            message = self._wish(item, actor)
            ended = SourceEnded(SourceId(link.id), "relation ended by the operator", message)
            await self._relations.settle(link, session.ended(relation), events=(ended,), outbox=(item,))
            return item.id

    async def handshake(self, peer: PeerId, *, actor: Actor = GATEWAY) -> str:
        """Start a handshake, for peers that expect it of us.

        Raises:
            ActionRefused: there is no relation.
            StoreError: not stored, nothing will be sent.
        """
        link = self._connected(peer)
        async with self._relations.lock(link):
            item = self._item(link, HANDSHAKE, {}, expires=True)
            relation = session.begin_handshake(link.relation, item.id, self._clock.now())
            event = noted(HANDSHAKE, self._wish(item, actor), "started here")
            await self._relations.settle(link, relation, events=(event,), outbox=(item,))
            return item.id

    async def adjust(
        self, peer: PeerId, group: str, type_: str, blocks: Sequence[Block], *, actor: Actor = GATEWAY
    ) -> str:
        """Ask for another capacity, in total, on these blocks. Later forecasts say what came of it.

        Raises:
            ActionRefused: there is no relation, no such group, no such type, or nothing to ask for.
            StoreError: not stored, nothing will be sent.
        """
        link = self._connected(peer)
        if group not in link.groups:
            raise ActionRefused(f"{group} is no group of {peer}")
        if type_ not in set(wire.ForecastType) or not blocks or len(blocks) > wire.MAX_BLOCKS:
            raise ActionRefused(f"{type_}: a type of forecast and 1 to {wire.MAX_BLOCKS} blocks are needed")
        async with self._relations.lock(link):
            if len(link.asks) >= MAX_ASKS:
                raise ActionRefused(f"{MAX_ASKS} requests to {peer} are open")
            written: list[Json] = [
                {
                    "start": rfc3339(b.start),
                    "end": rfc3339(b.end),
                    "value": b.value,
                    "dimension": b.dimension.value,
                }
                for b in blocks
            ]
            item = self._item(
                link,
                ADJUST,
                {"group": group, "type": type_, "blocks": written},
                expires_at=max(b.end for b in blocks),
            )
            ask = asked(item.id, item.body, link.heard_blocks)
            event = noted("oscp.adjust_requested", self._wish(item, actor), f"{item.id}: {group} {type_}")
            row = AdapterRow(ADAPTER_NAME, ask.key(link.id), ask.to_row())
            await self._relations.set_asks(link, (*link.asks, ask), (row,), events=(event,), outbox=(item,))
            return item.id

    # --- parts ----------------------------------------------------------------------------------

    async def _offer(self, link: Link, method: str, kind: str, actor: Actor) -> str:
        now = self._clock.now()
        item = self._item(link, kind, {}, expires=True)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        offer = Offer(
            request_id=item.id,
            method=method,
            token_sha256=sha256_hex(token.encode()),
            token_sealed=self._vault.seal(token, link.record("in")),
            until=now + CALLBACK_EXPIRY,
        )
        # An offer that is still open gives way: the peer has not taken it.
        relation = session.begin_offer(session.abandon_offer(link.relation), offer)
        event = noted(kind, self._wish(item, actor), "started here")
        await self._relations.settle(link, relation, events=(event,), outbox=(item,))
        return item.id

    def _item(
        self,
        link: Link,
        kind: str,
        body: dict[str, Json],
        *,
        expires: bool = False,
        expires_at: datetime | None = None,
    ) -> OutboxItem:
        now = self._clock.now()
        return OutboxItem(
            id=derive("msg", now, link.id, kind, secrets.token_hex(8)),
            peer=link.id,
            kind=kind,
            body=body,
            expires_at=now + CALLBACK_EXPIRY if expires else expires_at,
        )

    def _wish(self, item: OutboxItem, actor: Actor) -> MessageRef:
        return MessageRef(item.peer, OPERATOR_ENDPOINT, item.id, self._clock.now(), None, actor)

    def _link(self, peer: PeerId) -> Link:
        link = self._relations.links.get(peer)
        if link is None:
            raise ActionRefused(f"{peer} is no OSCP peer of this site")
        return link

    def _connected(self, peer: PeerId) -> Link:
        link = self._link(peer)
        if link.relation.state not in CONNECTED or not link.has_token:
            raise ActionRefused(f"there is no relation to {peer}; it is {link.relation.state}")
        return link


def wants_our_registration(link: Link) -> bool:
    """Whether a registration is due that we have to start by ourselves."""
    return (
        link.dialect.registration_start == "fp"
        and link.relation.state is State.UNREGISTERED
        and link.relation.offer is None
        and bool(link.address and link.settings.token)
        and not link.is_refused
    )


def wants_our_handshake(link: Link) -> bool:
    """Whether a handshake is due that we have to start by ourselves: the first, or one that brings the peer back."""
    due = {State.REGISTERED, State.OFFLINE} if link.dialect.handshake_required else {State.REGISTERED}
    return (
        link.dialect.handshake_start == "fp"
        and link.relation.state in due
        and not link.relation.shaking
        and not link.is_rebuffed
    )
