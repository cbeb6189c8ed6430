"""The state of a site: frozen rows in small maps, rebuilt from storage at start. No I/O.

Each section below is stored row by row; what is not in ``SECTIONS`` (points, history) is memory
only and starts empty after a restart, which the rules treat as unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from gateway.app.registers import Finished
from gateway.domain.allocation import Ask, Place, Policy, Workspace
from gateway.domain.effects import Command, OutboxItem, Record, RowChange
from gateway.domain.envelope import BindingPolicy, OperatingEnvelope
from gateway.domain.evidence import GATEWAY, Actor, EvidenceDraft, Json, MessageRef, Way
from gateway.domain.ids import CommandId, EvidenceId, NodeId, PeerId, SessionId, SiteId, SourceId, StationId, derive
from gateway.domain.measurement import Quality, Quantity
from gateway.domain.quantities import WattHours, Watts
from gateway.domain.schedule import Schedule
from gateway.domain.timeline import EPOCH
from gateway.domain.topology import Tree


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations of the controller, in seconds of site time. Defaults are the product's.

    ``guard_s`` is clock skew plus a station's reaction time: cuts inside schedules are placed
    early by it and installed schedules are read late by it. ``validity_s`` is how far a session
    schedule reaches before it falls to the safe share. ``gather_ms``: so long an accepted command
    waits for others before what it leaves free is given out. ``temperature_s``: so long a measured
    temperature is believed.
    """

    guard_s: int = 10
    validity_s: int = 1_800
    confirm_s: int = 20
    retry_s: int = 30
    settle_s: int = 30
    period_s: int = 10
    increase_every_s: int = 15
    deadband_w: int = 100
    fresh_s: int = 60
    load_margin_w: int = 300
    load_margin_pct: int = 5
    lying_w: int = 300
    lying_pct: int = 5
    silence_s: int = 1_800
    report_s: int = 60
    dead_frame_s: int = 120
    late_data_s: int = 5
    gather_ms: int = 200
    temperature_s: int = 900

    @property
    def reach_s(self) -> int:
        """How far ahead of now limits and loads matter to what is granted now."""
        return self.validity_s + 2 * self.guard_s


@dataclass(slots=True)
class Drafts:
    """What the allocator was asked last, by node beside what it was made of: what is the same is not made again.

    No answer depends on it.
    """

    workspace: Workspace | None = None
    places: dict[NodeId, tuple[object, Place]] = field(default_factory=dict)
    asks: dict[NodeId, tuple[object, Ask]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What does not change while a configuration lives.

    ``sharing``: the policy by which scarce power is shared; ``None`` leaves it to what is known of the cars.
    """

    tree: Tree
    policies: Mapping[tuple[SourceId, NodeId], BindingPolicy]
    reporting: Mapping[SourceId, tuple[NodeId, ...]] = field(default_factory=dict)
    settings: Settings = Settings()
    sharing: Policy | None = None
    drafts: Drafts = field(default_factory=Drafts, init=False, repr=False, compare=False)

    def workspace(self, places: Sequence[Place]) -> Workspace:
        """The allocator's, of these places: the same for a whole life, so made once. No answer depends on it."""
        if self.drafts.workspace is None:
            self.drafts.workspace = Workspace(places)
        return self.drafts.workspace

    def policy(self, source: SourceId, node: NodeId) -> BindingPolicy:
        """Policy of a binding; the default one for a source that no binding names."""
        return self.policies.get((source, node), BindingPolicy())


class Row(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A stored row, or a part of one: immutable and without cycles, so nothing for the garbage collector."""


class Source(Row, frozen=True):
    """A grid party's life signs. ``alive_until`` None: until further notice."""

    id: SourceId
    heard_at: datetime
    alive_until: datetime | None
    alive_since: datetime
    by_heartbeat: bool = False
    lost_at: datetime | None = None
    ended: bool = False

    def is_alive(self, now: datetime) -> bool:
        """Whether its word counts at ``now``."""
        return not self.ended and (self.alive_until is None or now < self.alive_until)


class Sent(Row, frozen=True):
    """A command whose fate is not known: its schedule may be installed."""

    command: CommandId
    version: int
    schedule: Schedule
    sent_at: datetime
    generation: int
    open: bool = True
    """Still waiting for its answer; False when it timed out or its line broke."""
    alone: bool = False
    """Nothing else was open for this layer when it was sent."""


class Fading(Row, frozen=True):
    """A schedule that has been replaced: a car may take until ``until`` to leave it."""

    schedule: Schedule
    until: datetime


class Held(Row, frozen=True):
    """One layer of one EVSE: the schedule last proven installed, those that may be, those being left."""

    confirmed: Schedule | None = None
    confirmed_at: datetime | None = None
    maybe: tuple[Sent, ...] = ()
    fading: tuple[Fading, ...] = ()
    confirmed_version: int = 0

    def waits(self) -> bool:
        """Whether an answer is outstanding."""
        return any(sent.open for sent in self.maybe)


class Grant(Row, frozen=True):
    """What an EVSE may hold, and what we want it to. ``target_w`` is the last allocation.

    ``device`` is the station and the number of the EVSE there that this was learned of.
    """

    evse: NodeId
    device: str = ""
    share: Held = Held()
    session: Held = Held()
    version: int = 0
    target_w: Watts = Watts(0)
    binding: str = ""
    binding_node: NodeId = NodeId("")
    binding_envelope: str = ""
    decision: EvidenceId = EvidenceId("")
    increased_at: datetime = EPOCH
    uncommandable_since: datetime | None = None
    retry_at: datetime | None = None
    lying: bool = False
    settling: tuple[tuple[datetime, int], ...] = ()
    """Until when a meter may still show a draw of so many W that was right before a decrease."""
    wrong_clock: bool = False
    """Its station's clock is off by more than the guard: no time in a schedule means anything there."""
    occupied: bool = False
    wants_power: bool | None = None
    withheld_mws: Mapping[str, int] = msgspec.field(default_factory=dict)
    """From the session that runs here, per envelope (or limit) label: mW·s; integer so that replay is exact."""
    withheld_at: datetime = EPOCH
    """Until when that is counted; since then the target and what binds it have been the same."""


class Session(Row, frozen=True):
    """A running charging session at an EVSE."""

    id: SessionId
    evse: NodeId
    transaction: str
    started_at: datetime
    evidence: EvidenceId
    meter_start_wh: WattHours | None = None
    asked_wh: WattHours | None = None
    departure_at: datetime | None = None
    max_w: Watts | None = None
    wants_power: bool | None = None


class Station(Row, frozen=True):
    """A station's line. ``connected`` is False after every start of the gateway."""

    id: StationId
    generation: int = 0
    connected: bool = False
    protocol: str = ""
    since: datetime = EPOCH


class Departing(Row, frozen=True):
    """What an EVSE that the configuration no longer has may draw until its schedules have ended, below ``node``."""

    node: NodeId
    power_w: int
    until: datetime


class Control(Row, frozen=True):
    """One row of its own: what belongs to no other section."""

    epoch: int = 0
    boot: str = ""
    started_at: datetime = EPOCH
    last_now: datetime = EPOCH
    decision: EvidenceId = EvidenceId("")
    decided_at: datetime = EPOCH
    limits: Mapping[str, int] = msgspec.field(default_factory=dict)
    standing: Mapping[str, int] = msgspec.field(default_factory=dict)
    reported: Mapping[str, datetime] = msgspec.field(default_factory=dict)
    complained: Mapping[str, int] = msgspec.field(default_factory=dict)
    judged_until: Mapping[str, datetime] = msgspec.field(default_factory=dict)
    finished: Mapping[str, Finished] = msgspec.field(default_factory=dict)
    nonflexible: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Told last per node, Wh: a difference of two meters must not step back."""
    topology: str = ""
    """Version of the tree that the other rows fit."""
    leaving: tuple[NodeId, ...] = ()
    """EVSEs that are about to be taken out of the configuration."""
    departing: Mapping[str, Departing] = msgspec.field(default_factory=dict)


class Point(Row, frozen=True):
    """Last value of a quantity at a node."""

    value: int
    measured_at: datetime
    received_at: datetime
    quality: Quality = Quality.GOOD


AppliedStep: TypeAlias = tuple[datetime, int | None, tuple[EvidenceId, ...]]
"""Since when which limit on the sum was in force, W (None: none), and the revisions that said so."""

SECTIONS: dict[str, type[Any]] = {
    "control": Control,
    "sources": Source,
    "envelopes": OperatingEnvelope,
    "stations": Station,
    "grants": Grant,
    "sessions": Session,
}


@dataclass(frozen=True, slots=True)
class SiteState:
    """A whole site at one instant. Never mutated."""

    seq: int = 0
    control: Control = Control()
    sources: Mapping[str, Source] = field(default_factory=dict)
    envelopes: Mapping[str, OperatingEnvelope] = field(default_factory=dict)
    stations: Mapping[str, Station] = field(default_factory=dict)
    grants: Mapping[str, Grant] = field(default_factory=dict)
    sessions: Mapping[str, Session] = field(default_factory=dict)
    points: Mapping[tuple[NodeId, Quantity], Point] = field(default_factory=dict)
    history: Mapping[str, tuple[tuple[datetime, int], ...]] = field(default_factory=dict)
    """Measured W per judged node, oldest first."""
    applied: Mapping[str, tuple[AppliedStep, ...]] = field(default_factory=dict)
    """Limit in force per envelope id, oldest first."""
    ticks: tuple[str, ...] = ()
    looked_at: datetime = EPOCH
    """When the last decision was taken, whether or not it changed anything."""
    decide_at: datetime | None = None
    """When one is due for what could wait for company."""
    causes: tuple[EvidenceId, ...] = ()
    """Entries that the next decision follows from."""
    next_deadline: datetime = EPOCH


def from_sections(seq: int, sections: Mapping[str, Mapping[str, Any]]) -> SiteState:
    """The state as storage has it."""
    return SiteState(
        seq=seq,
        control=sections.get("control", {}).get("control", Control()),
        sources=dict(sections.get("sources", {})),
        envelopes=dict(sections.get("envelopes", {})),
        stations=dict(sections.get("stations", {})),
        grants=dict(sections.get("grants", {})),
        sessions=dict(sections.get("sessions", {})),
    )


class Section(dict[str, Any]):
    """Rows of one section while a step changes them: remembers which were written or dropped, in order."""

    __slots__ = ("touched",)

    def __init__(self, rows: Mapping[str, Any]) -> None:
        super().__init__(rows)
        self.touched: dict[str, None] = {}

    def __setitem__(self, key: str, row: Any) -> None:
        self.touched[key] = None
        super().__setitem__(key, row)

    def __delitem__(self, key: str) -> None:
        self.touched[key] = None
        super().__delitem__(key)

    def pop(self, key: str, default: Any = None) -> Any:
        """Drop a row, if it is there."""
        self.touched[key] = None
        return super().pop(key, default)


class Work:
    """A step in the making: reads the old state, collects what changes. Lives for one step."""

    def __init__(self, facts: SiteFacts, state: SiteState, now: datetime) -> None:
        self.facts = facts
        self.state = state
        self.now = now
        self.seq = state.seq + 1
        self.control = state.control
        self.sources: dict[str, Source] = Section(state.sources)
        self.envelopes: dict[str, OperatingEnvelope] = Section(state.envelopes)
        self.stations: dict[str, Station] = Section(state.stations)
        self.grants: dict[str, Grant] = Section(state.grants)
        self.sessions: dict[str, Session] = Section(state.sessions)
        self.points = dict(state.points)
        self.history = dict(state.history)
        self.applied = dict(state.applied)
        self.ticks = state.ticks
        self.looked_at = state.looked_at
        self.decide_at = state.decide_at
        self.evidence: list[EvidenceDraft] = []
        self.outbox: list[OutboxItem] = []
        self.commands: list[Command] = []
        self.records: list[Record] = []
        self.causes: list[EvidenceId] = list(state.causes)
        self.dirty = False
        self.slack = False
        self._ordinal = 0

    @property
    def site(self) -> SiteId:
        """Whose step this is."""
        return self.facts.tree.site

    @property
    def settings(self) -> Settings:
        """Durations and margins."""
        return self.facts.settings

    def new_id(self, prefix: str) -> str:
        """The next id of this step: derived, so that replay gives the same."""
        self._ordinal += 1
        return derive(prefix, self.now, self.site, self.seq, self._ordinal)

    def seal(  # noqa: PLR0913  keyword-only parts of one entry
        self,
        type_: str,
        *,
        subject: Mapping[str, str] | None = None,
        cause: tuple[EvidenceId, ...] = (),
        body: Mapping[str, Json] | None = None,
        message: MessageRef | None = None,
        way: Way = Way.INTERNAL,
        reason: str = "",
        as_id: EvidenceId | None = None,
        place: int | None = None,
    ) -> EvidenceId:
        """Add an entry and return its id.

        ``as_id`` gives it an id that was derived before; ``place`` puts it there among the step's
        entries. A ``reason`` on an inbound message means that it was refused.
        """
        named = dict(subject or {})
        actor: Actor = GATEWAY
        if message is not None:
            named.setdefault("peer", message.peer)
            named.setdefault("request_id", message.message_id)
            way, actor = Way.IN, message.actor
        draft = EvidenceDraft(
            id=as_id or EvidenceId(self.new_id("evd")),
            type=type_,
            at=self.now,
            subject=named,
            cause=tuple(dict.fromkeys(c for c in cause if c)),
            way=way,
            actor=actor,
            raw=message.raw if message is not None else None,
            body=body or {},
            result="refused" if reason and message is not None else "ok",
            reason=reason,
        )
        self.evidence.insert(len(self.evidence) if place is None else place, draft)
        return draft.id

    def owe(self, peer: PeerId, kind: str, body: Mapping[str, Json], **extra: Any) -> None:
        """Put a fact into the outbox."""
        self.outbox.append(OutboxItem(id=self.new_id("out"), peer=peer, kind=kind, body=body, **extra))

    def grant(self, evse: NodeId) -> Grant:
        """The grant of an EVSE; an untouched one when there is none yet."""
        return self.grants.get(evse) or Grant(evse=evse)

    def set_grant(self, grant: Grant) -> None:
        """Replace a grant."""
        self.grants[grant.evse] = grant

    def set_control(self, **changes: Any) -> None:
        """Replace fields of the control row."""
        self.control = replace(self.control, **changes)

    def changed_rows(self) -> Iterator[RowChange]:
        """Every stored row that differs from the old state."""
        if self.control is not self.state.control:
            yield RowChange("control", "control", self.control)
        for section in SECTIONS:
            rows = getattr(self, section)
            if isinstance(rows, Section):
                old: Mapping[str, object] = getattr(self.state, section)
                for key in rows.touched:
                    value, before = rows.get(key), old.get(key)
                    if value is not before and value != before:
                        yield RowChange(section, key, value)
