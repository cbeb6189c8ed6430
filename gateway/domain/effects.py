"""What a step wants done: rows, evidence, outgoing facts, commands. Data only.

Rows, evidence and outgoing facts commit in one transaction; commands leave after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec

from gateway.domain.evidence import EvidenceDraft, Json
from gateway.domain.ids import CommandId, EvidenceId, NodeId, PeerId, SiteId, StationId
from gateway.domain.quantities import Watts
from gateway.domain.schedule import Schedule


class Layer(StrEnum):
    """Which of the two things a station holds per EVSE (ledger: dead-man's schedules)."""

    SAFE_SHARE = "safe_share"
    """Permanent default profile: one constant, open-ended."""
    SESSION = "session"
    """Absolute schedule of the running session over the permanent share."""


class Command(msgspec.Struct, frozen=True, gc=False):
    """A limit on its way to one EVSE. Levels, not facts: a newer one replaces a waiting one.

    ``transaction`` is the protocol's id of the session (SESSION layer only). ``tightens`` gives
    it the first place in every queue; ``sent`` is the evidence id of its intent.
    """

    id: CommandId
    evse: NodeId
    station: StationId
    layer: Layer
    version: int
    schedule: Schedule
    generation: int
    tightens: bool
    transaction: str | None = None
    phases: int | None = None
    sent: EvidenceId = EvidenceId("")


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A fact owed to a peer: delivered in order per peer, at least once, with one message id.

    ``kind``: ``measurements``, ``compliance_error``, ... ; ``correlation`` is the peer's message id
    that it answers; ``expires_at`` when nobody wants it any more.
    """

    id: str
    peer: PeerId
    kind: str
    body: Mapping[str, Json]
    correlation: str = ""
    cause: tuple[EvidenceId, ...] = ()
    expires_at: datetime | None = None
    not_before: datetime | None = None


class RowChange(msgspec.Struct, frozen=True, gc=False):
    """One row of the site's state; ``value`` None deletes it. ``value`` is a frozen row."""

    section: str
    key: str
    value: object | None


@dataclass(frozen=True, slots=True)
class Record:
    """A document too large for an entry, kept under its digest like a raw message."""

    sha256: str
    media: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything one step wants. ``urgent`` asks the writer not to wait for more."""

    site: SiteId
    seq: int
    rows: tuple[RowChange, ...] = ()
    evidence: tuple[EvidenceDraft, ...] = ()
    outbox: tuple[OutboxItem, ...] = ()
    commands: tuple[Command, ...] = ()
    records: tuple[Record, ...] = ()
    reasons: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Incident:
    """A standing problem with its cause; closes itself. Values in W."""

    code: str
    node: NodeId
    since: datetime
    size_w: Watts = Watts(0)
    detail: str = ""
