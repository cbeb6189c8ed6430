"""What a station's message amounts to: events, samples, an answer, and how durable it must be."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from adapters.ocpp.translate.meter import MeterPoint
from gateway.domain.events import Event, StationNoted
from gateway.domain.evidence import Actor, MessageRef, RawRef, sha256_hex
from gateway.domain.ids import PeerId
from gateway.domain.measurement import Measurement
from gateway.domain.quantities import NOMINAL_VOLTAGE_V
from gateway.ports.fleet import EvseBinding, StationSettings

MAX_DETAIL_CHARS = 64
"""Of a station's own words in evidence."""


class Durability(StrEnum):
    """When the station may be answered (the closed table of the design)."""

    AT_ONCE = "at_once"
    TELEMETRY = "telemetry"
    FULL = "full"


class OpenTransaction(msgspec.Struct, frozen=True, omit_defaults=True):
    """A running transaction as its row keeps it. ``number``: connector (1.6) or EVSE (2.x)."""

    number: int
    started: str
    charging_state: str | None = None
    phases_used: int | None = None


class Facts(msgspec.Struct, frozen=True):
    """What a handler may know. ``now`` is ours; ``raw_id`` and ``payload`` are the message's."""

    settings: StationSettings
    actor: Actor
    now: datetime
    raw_id: bytes
    payload: bytes
    transactions: Mapping[str, OpenTransaction]
    user_key: bytes
    draw_transaction: Callable[[], int]
    points: Mapping[int, MeterPoint]

    def binding(self, number: int) -> EvseBinding | None:
        """The EVSE that the station numbers so."""
        return next((b for b in self.settings.evses if b.number == number), None)

    def point(self, number: int) -> MeterPoint | None:
        """Where values of connector or EVSE ``number`` belong; 0 is the station's own meter."""
        return self.points.get(number)

    def message(self, action: str, message_id: str) -> MessageRef:
        """A reference to this message for evidence."""
        raw = RawRef(sha256_hex(self.payload), len(self.payload), "application/json")
        return MessageRef(
            PeerId(str(self.settings.id)), endpoint(action), message_id, self.now, raw=raw, actor=self.actor
        )

    def noted(self, kind: str, action: str, **detail: object) -> StationNoted:
        """Something about the station, worth evidence."""
        words = tuple((key, clean(str(value))) for key, value in detail.items() if value is not None)
        return StationNoted(self.settings.id, kind, words, self.message(action, clean(self.raw_id.decode())))

    def pseudonym(self, token: str) -> str:
        """A token as HMAC-SHA-256 under the site's erasable key; empty stays empty."""
        return hmac.new(self.user_key, token.encode(), hashlib.sha256).hexdigest() if token else ""


class Intake(msgspec.Struct, frozen=True):
    """What to do with a message before ``answer`` may leave.

    ``dedup``: natural key of a message that must not count twice. ``opened`` and ``closed`` change
    the table of transactions once everything is durable.
    """

    answer: bytes
    durability: Durability = Durability.AT_ONCE
    events: tuple[Event, ...] = ()
    samples: tuple[Measurement, ...] = ()
    dedup: str = ""
    opened: tuple[str, OpenTransaction] | None = None
    closed: tuple[str, ...] = ()


def meter_points(settings: StationSettings) -> dict[int, MeterPoint]:
    """Where a station's values belong, by the number that it gives them."""
    source = str(settings.id)
    points = {b.number: MeterPoint(b.evse, b.phases, b.voltage_v, source, b.efficiency) for b in settings.evses}
    if settings.meter_node is not None:
        points[0] = MeterPoint(settings.meter_node, settings.meter_phases, NOMINAL_VOLTAGE_V, source)
    else:
        points.pop(0, None)
    return points


def endpoint(action: str) -> str:
    """Name of an action in references and in the inbox."""
    return f"ocpp/{action}"


def clean(text: str) -> str:
    """A peer's words, printable and short."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_DETAIL_CHARS]
