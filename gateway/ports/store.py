"""Durable state. Driven port; the runner is its only writer.

One file, one writer thread, group commit: what is queued goes into one transaction, each unit in
a savepoint of its own, each future resolves after the COMMIT, in the order of submission.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.domain.effects import OutboxItem, Record
from gateway.domain.evidence import EvidenceDraft
from gateway.domain.ids import EvidenceId, PeerId, SiteId
from gateway.domain.measurement import Measurement
from gateway.ports.gate import AdapterRow, Inbound


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row of state as bytes; None deletes."""

    section: str
    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class OutboxUpdate:
    """Progress of one outgoing fact. ``status``: ``done``, ``dead`` or ``ready`` (again)."""

    id: str
    status: str
    attempts: int
    not_before: datetime | None
    error: str


@dataclass(frozen=True, slots=True)
class Journal:
    """The tick that entered the controller, so that replay is exact; kept 7 days."""

    at: datetime
    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class CommitUnit:
    """One step's worth of durable change.

    ``seq`` is the site's new sequence number: the store refuses (StoreError) a unit whose
    predecessor is not ``seq - 1`` or whose ``epoch`` is older than the stored one. ``seq`` 0
    means that no state changes (outbox progress only).
    """

    site: SiteId
    epoch: int
    seq: int
    at: datetime
    rows: Sequence[EncodedRow] = ()
    evidence: Sequence[EvidenceDraft] = ()
    outbox: Sequence[OutboxItem] = ()
    outbox_updates: Sequence[OutboxUpdate] = ()
    inbounds: Sequence[Inbound] = ()
    adapter_rows: Sequence[AdapterRow] = ()
    records: Sequence[Record] = ()
    journal: Journal | None = None
    lazy: bool = False


@dataclass(frozen=True, slots=True)
class InboxHit:
    """A message seen before: the digest of its body and the answer it got."""

    sha256: str
    answer: bytes


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A fact that is still owed."""

    item: OutboxItem
    attempts: int
    not_before: datetime | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A site as it was last committed: section -> key -> bytes. ``epoch`` is already raised."""

    seq: int
    epoch: int
    cold: bool
    sections: Mapping[str, Mapping[str, bytes]]
    outbox: Sequence[OutboxRow]
    adapter_rows: Mapping[tuple[str, str], bytes]


@dataclass(frozen=True, slots=True)
class LogHead:
    """Where the evidence log stands. ``root`` is hex."""

    size: int
    root: str


class Store(Protocol):
    """Everything durable."""

    def open_site(self, site: SiteId) -> Loaded:
        """Load a site and take it over with a new epoch (blocking; at start only)."""
        ...

    def commit(self, unit: CommitUnit) -> Future[tuple[EvidenceId, ...]]:
        """Queue a unit; the future resolves after the FULL commit.

        It fails with ``StoreError`` when the unit was not (or may not have been) committed.
        ``lazy`` units need not cause a commit of their own for up to 1 s, yet keep their place
        in the order.
        """
        ...

    def record_samples(self, site: SiteId, samples: Sequence[Measurement]) -> Future[None]:
        """Queue telemetry rows; resolves after their (NORMAL) commit, at most 50 ms later."""
        ...

    def inbox(self, peer: PeerId, endpoint: str, message_id: str) -> InboxHit | None:
        """A committed message under this key."""
        ...

    def head(self) -> LogHead:
        """The committed head of the log."""
        ...

    def close(self) -> None:
        """Finish what is queued, sign a last checkpoint, close."""
        ...
