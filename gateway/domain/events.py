"""What happened to a site: the closed list of inputs of its controller. Frozen, no behaviour.

Adapters make the first groups, the runner the last. Protocol identity has been resolved before:
an event knows sources, nodes, stations and opaque correlation ids only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.domain.envelope import Block, BlockKind, RevisionMode
from gateway.domain.evidence import Actor, MessageRef
from gateway.domain.ids import CommandId, NodeId, SourceId, StationId
from gateway.domain.measurement import Quality, Quantity
from gateway.domain.quantities import Direction, WattHours, Watts

# --- grid side ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EnvelopeRevised:
    """A source said something about a node. ``blocks`` carry no revision yet: ``step`` sets it."""

    source: SourceId
    node: NodeId
    direction: Direction
    key: str
    kind: BlockKind
    blocks: tuple[Block, ...]
    mode: RevisionMode
    message: MessageRef
    correlation: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvelopeWithdrawn:
    """A source takes back what it said under ``key``."""

    source: SourceId
    node: NodeId
    direction: Direction
    key: str
    cause: str
    message: MessageRef | None = None


@dataclass(frozen=True, slots=True)
class SourceHeard:
    """A source lives, at least until ``alive_until`` (None: until further notice)."""

    source: SourceId
    alive_until: datetime | None
    message: MessageRef | None = None


@dataclass(frozen=True, slots=True)
class SourceEnded:
    """The relation to a source ended; its envelopes are withdrawn."""

    source: SourceId
    cause: str
    message: MessageRef | None = None


@dataclass(frozen=True, slots=True)
class MessageNoted:
    """An inbound message without effect on limits (registration, handshake) worth evidence."""

    type: str
    message: MessageRef
    detail: str = ""


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """An inbound message that was refused: the code and text that its sender got."""

    message: MessageRef
    code: str
    text: str


class OperatorAction(StrEnum):
    """What a person may do to a running site.

    The subject is an envelope's id, an EVSE's node, a peer's id, what a station calls itself,
    or the site's id.
    """

    WITHDRAW = "envelope.withdraw"
    RELEASE = "fallback.release"
    TRUST = "device.trust"
    APPROVE = "station.approve"
    REVOKE = "station.revoke"
    REGISTER = "peer.register"
    RENEW = "peer.renew"
    END = "peer.end"
    HANDSHAKE = "peer.handshake"
    ADJUST = "peer.adjust"
    RELOAD = "site.reload"


@dataclass(frozen=True, slots=True)
class OperatorActed:
    """An operator did something, and said why. ``subject`` as the action needs it.

    ``evses`` are those whose station is another one from now on; ``detail`` is for evidence.
    """

    action: OperatorAction
    subject: str
    reason: str
    message: MessageRef
    evses: tuple[NodeId, ...] = ()
    detail: tuple[tuple[str, str], ...] = ()


# --- fleet side -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StationConnected:
    """A station's line is usable. ``generation`` counts its connections and never repeats.

    ``clock_skew_s`` is None until it is known; ``protocol`` is for display only.
    """

    station: StationId
    generation: int
    protocol: str
    actor: Actor
    clock_skew_s: int | None = None


@dataclass(frozen=True, slots=True)
class StationDisconnected:
    """The line of ``generation`` is gone. A later generation may already live."""

    station: StationId
    generation: int
    cause: str


@dataclass(frozen=True, slots=True)
class StationNoted:
    """Something a station said about itself that is worth evidence (boot, firmware, security)."""

    station: StationId
    type: str
    detail: tuple[tuple[str, str], ...]
    message: MessageRef


@dataclass(frozen=True, slots=True)
class EvseStatus:
    """Whether a vehicle occupies an EVSE, and whether it wants power.

    ``wants_power`` None: not known. ``fault`` is empty when there is none.
    """

    evse: NodeId
    occupied: bool
    wants_power: bool | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """A charging session began. ``transaction`` is the protocol's own id, opaque here.

    ``user_hmac`` stands for the user: never the token itself.
    """

    evse: NodeId
    transaction: str
    started_at: datetime
    message: MessageRef
    meter_wh: WattHours | None = None
    user_hmac: str = ""
    departure_at: datetime | None = None
    energy_asked_wh: WattHours | None = None


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """Something about a running session changed."""

    evse: NodeId
    transaction: str
    message: MessageRef
    wants_power: bool | None = None
    phases_used: int | None = None
    max_w: Watts | None = None


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A charging session is over."""

    evse: NodeId
    transaction: str
    ended_at: datetime
    message: MessageRef
    meter_wh: WattHours | None = None
    reason: str = ""


class Outcome(StrEnum):
    """How a command ended on the wire."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ERROR = "error"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    SUPERSEDED = "superseded"
    NOT_SENT = "not_sent"


@dataclass(frozen=True, slots=True)
class CommandAnswered:
    """The fate of one command.

    ``ordered``: everything sent before it on the same connection has been answered, so that the
    answer resolves what came before (ledger rule 8).
    """

    command: CommandId
    evse: NodeId
    generation: int
    outcome: Outcome
    ordered: bool = True
    detail: str = ""
    latency_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ClaimRefuted:
    """A station says that it allows more than the limits that it accepted.

    What was confirmed at this EVSE counts as never confirmed. ``detail`` is for evidence.
    """

    evse: NodeId
    generation: int
    detail: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ClockCompared:
    """A station's clock is ``ahead_s`` seconds ahead of ours, negative: behind. ``message`` shows it.

    Told once it is certain, and again when it has changed.
    """

    station: StationId
    generation: int
    ahead_s: int
    message: MessageRef


# --- made by the runner ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """One changed value of a tick."""

    node: NodeId
    quantity: Quantity
    value: int
    measured_at: datetime
    received_at: datetime
    quality: Quality = Quality.GOOD


@dataclass(frozen=True, slots=True)
class TelemetryTick:
    """All samples that changed since the last tick; ``sha256`` is over their journal row."""

    samples: tuple[Sample, ...]
    sha256: str
    first_row: int = 0
    last_row: int = 0


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """Stored time has come. Carries nothing: ``step`` knows what was due."""


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """The wall clock jumped against the monotonic one by ``by_s`` (positive: forwards)."""

    by_s: int


@dataclass(frozen=True, slots=True)
class GatewayStarted:
    """A new life of the process; nothing is connected any more. ``cold`` on an empty store."""

    epoch: int
    boot: str
    cold: bool
    config_sha256: str


@dataclass(frozen=True, slots=True)
class EvsesLeaving:
    """These EVSEs are about to be taken out of the configuration: they are told to take nothing."""

    evses: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class TopologyChanged:
    """The configuration is another one from now on. ``changes`` are (what, which) for evidence."""

    changes: tuple[tuple[str, str], ...]
    config_sha256: str


@dataclass(frozen=True, slots=True)
class TopologyRefused:
    """A configuration was not taken, and why."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GatewayStopping:
    """An orderly end."""

    cause: str


@dataclass(frozen=True, slots=True)
class ReportDelivered:
    """An outgoing fact reached its peer, or is given up. ``work`` is the outbox id."""

    work: str
    peer: str
    kind: str
    delivered: bool
    detail: str
    cause: tuple[str, ...] = ()


Event = (
    EnvelopeRevised
    | EnvelopeWithdrawn
    | SourceHeard
    | SourceEnded
    | MessageNoted
    | MessageRefused
    | OperatorActed
    | StationConnected
    | StationDisconnected
    | StationNoted
    | EvseStatus
    | SessionStarted
    | SessionUpdated
    | SessionEnded
    | CommandAnswered
    | ClaimRefuted
    | ClockCompared
    | TelemetryTick
    | DeadlineReached
    | ClockStepped
    | GatewayStarted
    | EvsesLeaving
    | TopologyChanged
    | TopologyRefused
    | GatewayStopping
    | ReportDelivered
)
