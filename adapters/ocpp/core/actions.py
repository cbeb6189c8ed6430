"""What a connection asks of its transport, and what it is given. Data only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

import msgspec
from msgspec import structs

from adapters.ocpp.core.intake import OpenTransaction
from adapters.ocpp.core.quirks import Quirk
from adapters.ocpp.session import Diagnosis, Received, Send
from adapters.ocpp.translate.profile import Capability
from gateway.domain.events import Event
from gateway.domain.evidence import sha256_hex
from gateway.domain.measurement import Measurement
from gateway.ports.gate import AdapterRow, Inbound

ADAPTER = "ocpp"
"""Under which name our rows are kept."""


class Purpose(StrEnum):
    """Why something is stored."""

    MESSAGE = "message"
    BOOT = "boot"
    ANNOUNCE = "announce"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Note:
    """Events for the gate, stored lazily."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection after what was sent before."""

    code: int
    reason: str


class Job(msgspec.Struct, frozen=True):
    """Something that must be durable first; ``StationCore.done`` says what follows.

    ``submit`` False: samples alone, after the telemetry commit.
    """

    purpose: Purpose
    raw_id: bytes = b""
    answer: bytes = b""
    submit: bool = True
    events: tuple[Event, ...] = ()
    samples: tuple[Measurement, ...] = ()
    inbound: Inbound | None = None
    rows: tuple[AdapterRow, ...] = ()
    opened: tuple[str, OpenTransaction] | None = None
    closed: tuple[str, ...] = ()

    def renamed(self) -> Job:
        """The same under a key that includes its body: for a station that reuses its keys."""
        if self.inbound is None:
            return self
        key = f"{self.inbound.message_id}|{sha256_hex(self.inbound.body)[:16]}"
        return structs.replace(self, inbound=replace(self.inbound, message_id=key))


Action = Send | Note | Close | Job | Received


@dataclass
class Memory:
    """What is known of a station between its connections, as last stored."""

    booted: bool = False
    capability: Capability | None = None
    transactions: dict[str, OpenTransaction] = field(default_factory=dict)
    skew_s: int | None = None
    """Seconds that its clock was said to be ahead; None: not said yet."""
    wired: dict[int, str] = field(default_factory=dict)
    """What it said of its terminals against the configuration, as noted, by connector or EVSE."""
    about: dict[str, str] = field(default_factory=dict)
    """Vendor, model, firmware as its last boot said."""
    distrusted: set[int] = field(default_factory=set)
    """Connectors or EVSEs that said they allow more than they accepted: each limit needs proof."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What purity forbids to make here. ``user_key`` turns tokens into pseudonyms."""

    new_id: Callable[[], str]
    draw_transaction: Callable[[], int]
    diagnose: Diagnosis
    user_key: bytes = field(repr=False)
    quirks: tuple[Quirk, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """``assumed_periods``: for stations that do not say how many periods they keep."""

    heartbeat_s: int = 300
    meter_interval_s: int = 10
    assumed_periods: int = 1
