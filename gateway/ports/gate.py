"""The door into a site: how every adapter hands in what happened. Driving port.

``submit`` returns only when state and evidence are durable, so that the caller may acknowledge.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from gateway.domain.effects import OutboxItem
from gateway.domain.events import Event
from gateway.domain.ids import EvidenceId, NodeId, PeerId
from gateway.domain.measurement import Measurement
from gateway.domain.quantities import Watts


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message as it came: the key of its deduplication and its exact bytes.

    Uniqueness holds per (peer, endpoint, message_id). ``answer`` is what a repetition shall be
    told again (e.g. a transaction id chosen for it). ``has_secret``: the bytes are not kept, their
    digest is.
    """

    peer: PeerId
    endpoint: str
    message_id: str
    body: bytes
    received_at: datetime
    media: str = "application/json"
    answer: bytes = b""
    has_secret: bool = False


@dataclass(frozen=True, slots=True)
class AdapterRow:
    """A fact of an adapter's own (tokens, sessions), committed with the event. None deletes."""

    adapter: str
    key: str
    value: bytes | None


class Verdict(StrEnum):
    """What became of a submitted message."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Receipt:
    """``answer`` is the stored one for a duplicate; a conflict had no effect."""

    verdict: Verdict
    answer: bytes = b""
    evidence: tuple[EvidenceId, ...] = ()


@dataclass(frozen=True, slots=True)
class EvseView:
    """What an adapter may ask about an EVSE: values of the controller's current state."""

    evse: NodeId
    limit_w: Watts
    safe_share_w: Watts
    transaction: str | None


class SiteGate(Protocol):
    """One site's door. All methods are called on the event loop's thread."""

    async def submit(
        self,
        events: Sequence[Event],
        *,
        inbound: Inbound | None = None,
        rows: Sequence[AdapterRow] = (),
        outbox: Sequence[OutboxItem] = (),
    ) -> Receipt:
        """Step the controller with ``events`` in order and wait for the FULL commit.

        Raises:
            StoreError: not durable; do not acknowledge.
        """
        ...

    def note(self, events: Sequence[Event]) -> None:
        """As ``submit`` for what is acknowledged at once and stored lazily (status, answers)."""
        ...

    def measure(self, samples: Sequence[Measurement]) -> Awaitable[None]:
        """Hand in measured values; done after the telemetry commit.

        Raises:
            StoreError: not stored; do not acknowledge.
        """
        ...

    def adapter_rows(self, adapter: str, prefix: str = "") -> dict[str, bytes]:
        """Committed rows of an adapter whose key starts with ``prefix``."""
        ...

    def evse(self, evse: NodeId) -> EvseView:
        """Current values of one EVSE."""
        ...
