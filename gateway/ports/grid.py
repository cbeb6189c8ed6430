"""Grid parties as the configuration knows them, and facts on their way to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from gateway.domain.effects import OutboxItem
from gateway.domain.envelope import BindingPolicy, Block
from gateway.domain.evidence import GATEWAY, Actor
from gateway.domain.ids import NodeId, PeerId
from gateway.domain.quantities import Phase, Volts


@dataclass(frozen=True, slots=True)
class CertificateMatch:
    """Which client certificate is this peer's: every given field must equal. None given: none."""

    san_uri: str | None = None
    subject_cn: str | None = None
    sha256: str | None = None
    spki_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """A grid party. ``dialect`` names a file of its adapter; ``options`` are the adapter's own.

    ``url_hosts`` are the only hosts (``host`` or ``host:port``) we may call for it; private
    and loopback addresses only when ``allow_private``.
    """

    id: PeerId
    adapter: str
    listener: str
    certificate: CertificateMatch | None = None
    dialect: str = "standard"
    url_hosts: tuple[str, ...] = ()
    allow_private: bool = False
    token: str = field(default="", repr=False)
    options: Mapping[str, str | int | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupBinding:
    """A peer's name for a place, bound to a node. ``phases``: its L1, L2, L3 in site phases."""

    peer: PeerId
    group: str
    node: NodeId
    policy: BindingPolicy
    phases: tuple[Phase, Phase, Phase] = (Phase.L1, Phase.L2, Phase.L3)
    voltage_v: Volts = Volts(230.0)


class DeliveryStatus(StrEnum):
    """What became of an attempt."""

    DONE = "done"
    RETRY = "retry"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Delivery:
    """``after_s``: the peer's own wish (Retry-After), in real seconds."""

    status: DeliveryStatus
    detail: str = ""
    after_s: float | None = None


class FactCarrier(Protocol):
    """Who can carry facts to a peer; driven port. The runner keeps order, retries, gives up."""

    def serves(self, peer: PeerId) -> bool:
        """Whether this carrier is the one for ``peer``."""
        ...

    async def deliver(self, item: OutboxItem) -> Delivery:
        """One attempt; ``item.id`` is the message id, the same on every attempt."""
        ...


class PeerOperator(Protocol):
    """What an operator may start with a grid party; driven port, where an adapter can.

    Every method stores its wish with the call that it owes and returns the id of that call; what
    became of it is evidence (``report.delivered``, ``report.failed``). ``actor`` is who wants it.

    Raises, all of them:
        ActionRefused: it means nothing in the present relation; nothing changed.
        StoreError: not stored, nothing will be sent.
    """

    async def register(self, peer: PeerId, *, actor: Actor = GATEWAY) -> str:
        """Start a registration."""
        ...

    async def renew(self, peer: PeerId, *, actor: Actor = GATEWAY) -> str:
        """Give the peer a new token and our present address."""
        ...

    async def end(self, peer: PeerId, *, actor: Actor = GATEWAY) -> str:
        """End the relation. What falls back, falls back now."""
        ...

    async def handshake(self, peer: PeerId, *, actor: Actor = GATEWAY) -> str:
        """Agree anew on who wants what of whom."""
        ...

    async def adjust(
        self, peer: PeerId, group: str, type_: str, blocks: Sequence[Block], *, actor: Actor = GATEWAY
    ) -> str:
        """Ask for another capacity of a group, in total, on these blocks; ``type_`` in the peer's words."""
        ...
