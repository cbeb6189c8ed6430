"""A site's door that remembers, for tests of the OCPP adapter."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from gateway.domain.effects import Command, Layer, OutboxItem
from gateway.domain.errors import StoreError
from gateway.domain.events import Event
from gateway.domain.ids import CommandId, NodeId, SiteId, StationId
from gateway.domain.measurement import Measurement
from gateway.domain.quantities import ALL_PHASES, MilliAmperes, Volts, Watts
from gateway.domain.schedule import Schedule, Step, constant
from gateway.domain.topology import Node, NodeKind, Tree
from gateway.ports.adapter import AdapterContext, ListenerSettings, Trust
from gateway.ports.clock import Clock
from gateway.ports.fleet import EvseBinding, StationSettings
from gateway.ports.gate import AdapterRow, EvseView, Inbound, Receipt, Verdict

T0 = datetime(2031, 3, 1, 17, tzinfo=UTC)
EVSE = NodeId("main/evse-1")
PATIENCE_S = 20.0
"""Real seconds until something that only a busy machine delays counts as never happening."""

E = TypeVar("E")


@dataclass
class FakeGate:
    """Keeps everything in order. ``broken`` refuses to store; ``pause`` holds commits back."""

    events: list[Event] = field(default_factory=list)
    samples: list[Measurement] = field(default_factory=list)
    rows: dict[str, bytes] = field(default_factory=dict)
    inbox: dict[tuple[str, str, str], tuple[str, bytes]] = field(default_factory=dict)
    broken: bool = False
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    on_event: Callable[[Event], None] | None = None

    async def submit(
        self,
        events: Sequence[Event],
        *,
        inbound: Inbound | None = None,
        rows: Sequence[AdapterRow] = (),
        outbox: Sequence[OutboxItem] = (),
    ) -> Receipt:
        if inbound is not None and (hold := self.held.get(str(inbound.peer))):
            await hold.wait()
        if self.broken:
            raise StoreError("disk full")
        if inbound is not None:
            key = (str(inbound.peer), inbound.endpoint, inbound.message_id)
            digest = hashlib.sha256(inbound.body).hexdigest()
            known = self.inbox.get(key)
            if known is not None:
                same = known[0] == digest
                return Receipt(Verdict.DUPLICATE, known[1]) if same else Receipt(Verdict.CONFLICT)
            self.inbox[key] = (digest, inbound.answer)
        for row in rows:
            if row.value is None:
                self.rows.pop(row.key, None)
            else:
                self.rows[row.key] = row.value
        self.note(events)
        await asyncio.sleep(0)
        return Receipt(Verdict.STORED)

    def note(self, events: Sequence[Event]) -> None:
        self.events += events
        for event in events:
            if self.on_event is not None:
                self.on_event(event)

    async def measure(self, samples: Sequence[Measurement]) -> None:
        if self.broken:
            raise StoreError("disk full")
        self.samples += samples

    def adapter_rows(self, adapter: str, prefix: str = "") -> dict[str, bytes]:
        return {key: value for key, value in self.rows.items() if key.startswith(prefix)}

    def evse(self, evse: NodeId) -> EvseView:
        return EvseView(evse, Watts(0), Watts(0), None)

    def of(self, kind: type[E]) -> list[E]:
        """Events of one class."""
        return [event for event in self.events if isinstance(event, kind)]


async def until(condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Return when ``condition`` holds; fail after ``within_s`` real seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not condition():
        assert loop.time() < end, "it did not happen in time"
        await asyncio.sleep(0.005)


def a_binding(number: int = 1, *, phases: int = 3) -> EvseBinding:
    return EvseBinding(
        NodeId(f"main/evse-{number}"),
        number,
        ALL_PHASES[:phases],
        Volts(230.0),
        MilliAmperes(32_000),
        MilliAmperes(6_000),
    )


def a_station(
    name: str = "CP-1",
    *,
    profile: int = 0,
    listener: str = "lab",
    password_sha256: str = "",
    evses: int = 1,
    rate_unit: str = "A",
) -> StationSettings:
    bindings = tuple(a_binding(number) for number in range(1, evses + 1))
    return StationSettings(
        StationId(name), f"SN-{name}", listener, profile, bindings, NodeId("main"), rate_unit, password_sha256
    )


def a_context(
    gate: FakeGate,
    clock: Clock,
    *stations: StationSettings,
    listeners: dict[str, ListenerSettings] | None = None,
    options: dict[str, str | int | bool] | None = None,
) -> AdapterContext:
    main = Node(NodeId("main"), NodeKind.GRID_CONNECTION, import_max_w=Watts(60_000))
    lab = ListenerSettings("lab", "127.0.0.1", 0, Trust.INSECURE)
    return AdapterContext(
        SiteId("depot"),
        Tree(SiteId("depot"), {main.path: main}),
        gate,
        clock,
        listeners or {"lab": lab},
        {},
        stations=stations,
        options=options or {},
    )


def a_command(
    name: str = "cmd_1",
    *,
    station: str = "CP-1",
    evse: NodeId = EVSE,
    layer: Layer = Layer.SAFE_SHARE,
    schedule: Schedule | None = None,
    limit_w: int = 11_000,
    generation: int = 1,
    tightens: bool = False,
    transaction: str | None = None,
) -> Command:
    return Command(
        CommandId(name),
        evse,
        StationId(station),
        layer,
        1,
        schedule or constant(Watts(limit_w)),
        generation,
        tightens,
        transaction,
    )


def falling(now: datetime, *points: tuple[int, int]) -> Schedule:
    """Steps at so many seconds after ``now``."""
    return Schedule(tuple(Step(now + timedelta(seconds=s), Watts(w)) for s, w in points))
