"""Builders for controller tests: small sites, messages, a driver that steps and remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gateway.app.site import Controller, SiteFacts, SiteState
from gateway.app.state import Settings
from gateway.domain import events as ev
from gateway.domain.effects import Changes, Command
from gateway.domain.envelope import BindingPolicy, Block, BlockKind, RevisionMode
from gateway.domain.evidence import GATEWAY, EvidenceDraft, MessageRef
from gateway.domain.ids import NodeId, PeerId, SiteId, SourceId, StationId
from gateway.domain.measurement import Quantity
from gateway.domain.quantities import Direction, MilliAmperes, Watts
from gateway.domain.topology import EvseFacts, Node, NodeKind, Tree

T0 = datetime(2026, 3, 1, 17, 0, tzinfo=UTC)
DSO = SourceId("dso")
MAIN = NodeId("main")


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def message(ident: str = "q1", now: datetime = T0) -> MessageRef:
    return MessageRef(PeerId("dso"), "forecast", ident, now)


def evse_node(index: int, share_w: int = 4140, max_a: int = 32) -> Node:
    facts = EvseFacts(
        station=StationId(f"CP-{index}"),
        number=1,
        max_ma=MilliAmperes(max_a * 1000),
        safe_share_w=Watts(share_w),
    )
    return Node(NodeId(f"main/garage/evse-{index}"), NodeKind.EVSE, evse=facts)


def a_tree(evses: int = 3, main_w: int = 60_000, garage_w: int | None = 44_000, share_w: int = 4140) -> Tree:
    nodes = [
        Node(MAIN, NodeKind.GRID_CONNECTION, import_max_w=Watts(main_w)),
        Node(NodeId("main/garage"), NodeKind.CIRCUIT, import_max_w=None if garage_w is None else Watts(garage_w)),
        Node(NodeId("main/house"), NodeKind.LOAD, reserve_w=Watts(8_000)),
        *(evse_node(i, share_w) for i in range(1, evses + 1)),
    ]
    return Tree(SiteId("depot"), {n.path: n for n in nodes}, "t1")


def forecast(
    *spans: tuple[float, float, int],
    kind: BlockKind = BlockKind.PRIMARY,
    ident: str = "q1",
    mode: RevisionMode = RevisionMode.OVERLAY,
) -> ev.EnvelopeRevised:
    blocks = tuple(Block(at(a), at(b), w) for a, b, w in spans)
    return ev.EnvelopeRevised(DSO, MAIN, Direction.IMPORT, "oscp/G", kind, blocks, mode, message(ident), "q")


def heartbeat(until_min: float) -> ev.SourceHeard:
    return ev.SourceHeard(DSO, at(until_min))


def power(node: str, watts: int, now: datetime) -> ev.TelemetryTick:
    return ev.TelemetryTick((ev.Sample(NodeId(node), Quantity.P, watts, now, now),), f"{node}-{now}")


@dataclass
class Driver:
    """A site under test: steps the controller, keeps every change, answers commands on demand."""

    tree: Tree = field(default_factory=a_tree)
    policy: BindingPolicy = BindingPolicy()
    settings: Settings = Settings()
    state: SiteState = field(default_factory=SiteState)
    now: datetime = T0
    commands: list[Command] = field(default_factory=list)
    evidence: list[EvidenceDraft] = field(default_factory=list)
    last: Changes | None = None
    obey: bool = True
    generation: int = 1

    def __post_init__(self) -> None:
        facts = SiteFacts(self.tree, {(DSO, MAIN): self.policy}, {DSO: (MAIN,)}, self.settings)
        self.controller = Controller(facts)
        self.step(ev.GatewayStarted(1, "boot", True, "cfg"))

    def step(self, *events: ev.Event, now: datetime | None = None) -> Sequence[Command]:
        self.now = now or self.now
        self.state, changes = self.controller.step(self.state, events, self.now)
        self.last = changes
        self.commands += changes.commands
        self.evidence += changes.evidence
        if self.obey:
            for command in changes.commands:
                self.answer(command)
        return changes.commands

    def answer(self, command: Command, outcome: ev.Outcome = ev.Outcome.ACCEPTED) -> None:
        self.step(ev.CommandAnswered(command.id, command.evse, command.generation, outcome))

    def connect(self, *indices: int) -> None:
        for i in indices:
            self.step(ev.StationConnected(StationId(f"CP-{i}"), self.generation, "ocpp1.6", GATEWAY))

    def plug(self, *indices: int) -> None:
        for i in indices:
            evse = NodeId(f"main/garage/evse-{i}")
            self.step(ev.SessionStarted(evse, f"tx-{i}", self.now, message(f"start-{i}")))

    def run_to(self, minutes: float) -> None:
        """Let time pass through every deadline; one that was served is over."""
        end = at(minutes)
        while self.state.next_deadline <= end:
            self.step(ev.DeadlineReached(), now=max(self.state.next_deadline, self.now + timedelta(milliseconds=1)))
            assert self.state.next_deadline > self.now, f"{self.now}: due again at once"
        self.step(ev.DeadlineReached(), now=end)

    def envelope(self):
        return max(self.state.envelopes.values(), key=lambda e: e.id)

    def target(self, index: int) -> int:
        return self.state.grants[f"main/garage/evse-{index}"].target_w

    def types(self) -> list[str]:
        return [e.type for e in self.evidence]
