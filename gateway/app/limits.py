"""What limits every node now and at each coming edge, and the load nobody controls. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.app.envelopes import Surroundings, edges, limits_at
from gateway.app.loads import NOMINAL_DECIVOLTS, Load, counted_load, sums
from gateway.app.state import Work
from gateway.domain.envelope import LimitValue, OperatingEnvelope
from gateway.domain.ids import NodeId, SourceId
from gateway.domain.quantities import ALL_PHASES, Dimension, Direction, Phase
from gateway.domain.topology import Node, Tree

MAX_EDGES = 256
"""Edges looked at in one decision; 30 minutes of one-minute blocks of several sources fit.

Beyond the last of them nothing is granted."""

_PHASE_OF = {
    Dimension.L1_A: Phase.L1,
    Dimension.L2_A: Phase.L2,
    Dimension.L3_A: Phase.L3,
    Dimension.L1_W: Phase.L1,
    Dimension.L2_W: Phase.L2,
    Dimension.L3_W: Phase.L3,
}


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit on a node's import. ``label`` names it; ``revision`` the message behind it.

    W on the sum where ``phase`` is None, else mA on that phase.
    """

    label: str
    value: int
    revision: str = ""
    phase: Phase | None = None


@dataclass(frozen=True)
class Picture:
    """Limits over the coming edges. ``instants[0]`` is now; a value holds until the next instant.

    ``bounds[node][k]`` are the limits at ``instants[k]``, all of them known until ``until``.
    ``loads[node]`` is what is counted for uncontrolled load at and below the node, ``own_loads``
    at the node itself.
    """

    instants: tuple[datetime, ...]
    until: datetime
    bounds: Mapping[NodeId, tuple[tuple[Bound, ...], ...]]
    loads: Mapping[NodeId, Load]
    own_loads: Mapping[NodeId, Load]

    def limit_w(self, node: NodeId, k: int) -> int | None:
        """The tightest on the sum at ``instants[k]``; None where nothing limits it."""
        return self.limit(node, k, None)

    def limit(self, node: NodeId, k: int, phase: Phase | None) -> int | None:
        """The same, or the tightest on a phase, mA."""
        return min((b.value for b in self.bounds[node][k] if b.phase is phase), default=None)

    def has_phases(self) -> bool:
        """Whether anything limits a phase anywhere."""
        return any(b.phase is not None for rows in self.bounds.values() for row in rows for b in row)

    def index(self, instant: datetime) -> int:
        """Which ``k`` holds at ``instant``; the first one before now."""
        return max(bisect_right(self.instants, instant) - 1, 0)


def surroundings(work: Work, envelope: OperatingEnvelope) -> Surroundings:
    """What the moves of an envelope depend on."""
    return Surroundings(
        now=work.now,
        source=work.sources.get(envelope.source),
        policy=work.facts.policy(SourceId(envelope.source), envelope.node),
        node=work.facts.tree.node(envelope.node),
    )


def picture(work: Work) -> Picture:
    """Limits from now to the end of what a schedule granted now could reach."""
    tree, settings = work.facts.tree, work.settings
    horizon = work.now + timedelta(seconds=settings.validity_s + 2 * settings.guard_s)
    by_node: dict[NodeId, list[tuple[OperatingEnvelope, Surroundings]]] = {}
    instants = {work.now}
    for envelope in work.envelopes.values():
        if envelope.direction is Direction.IMPORT and envelope.node in tree.nodes:
            around = surroundings(work, envelope)
            by_node.setdefault(envelope.node, []).append((envelope, around))
            instants.update(e for e in edges(envelope, around) if e <= horizon)
    every = sorted(instants)
    ordered, until = tuple(every[:MAX_EDGES]), every[MAX_EDGES] if len(every) > MAX_EDGES else horizon
    static = {path: static_bounds(node) for path, node in tree.nodes.items()}
    bounds = {
        path: tuple(
            static[path] + tuple(b for pair in by_node.get(path, ()) for b in _envelope_bounds(tree, pair, instant))
            for instant in ordered
        )
        if path in by_node
        else (static[path],) * len(ordered)
        for path in tree.nodes
    }
    own = {path: counted_load(work, node) for path, node in tree.nodes.items()}
    return Picture(ordered, until, bounds, sums(tree, own), own)


def static_bounds(node: Node) -> tuple[Bound, ...]:
    """The node's own limits."""
    power = () if node.import_max_w is None else (Bound("limit_w", node.import_max_w),)
    currents = node.import_max_ma or {}
    return (*power, *(Bound(f"limit_a:{phase}", value, phase=phase) for phase, value in currents.items()))


def known_bounds(work: Work, path: NodeId) -> dict[Phase | None, int]:
    """The lowest limits on a node at any known time, fallbacks included: what safe shares must fit.

    By phase in mA, and under None on the sum in W.
    """
    tree = work.facts.tree
    found = list(static_bounds(tree.node(path)))
    for envelope in work.envelopes.values():
        if envelope.node == path and envelope.direction is Direction.IMPORT:
            for value in _known_values(envelope, work.now):
                found += bounds_of(tree, path, value, "")
    lowest: dict[Phase | None, int] = {}
    for bound in found:
        lowest[bound.phase] = min(bound.value, lowest.get(bound.phase, bound.value))
    return lowest


def _known_values(envelope: OperatingEnvelope, now: datetime) -> list[LimitValue]:
    if envelope.state.is_final:
        return list(envelope.fallen) if envelope.stale else []
    blocks = (*envelope.primary, *envelope.fallback)
    coming = [LimitValue(b.dimension, b.value) for b in blocks if b.end > now]
    return [*envelope.held, *envelope.fallen, *coming]


def _envelope_bounds(tree: Tree, pair: tuple[OperatingEnvelope, Surroundings], instant: datetime) -> list[Bound]:
    envelope, around = pair
    return [
        bound
        for value in limits_at(envelope, instant, around)
        for bound in bounds_of(tree, envelope.node, value, f"envelope:{envelope.id}")
    ]


def bounds_of(tree: Tree, path: NodeId, value: LimitValue, label: str) -> list[Bound]:
    """A limit value as bounds of a node: on the sum, or on each phase that it names.

    Power on one phase becomes current at the highest nominal voltage below the node, so that it
    holds for all.
    """
    match value.dimension:
        case Dimension.SUM_W:
            return [Bound(label, value.value, value.revision)]
        case Dimension.EACH_A:
            return [Bound(f"{label}:{phase}", value.value, value.revision, phase) for phase in ALL_PHASES]
        case Dimension.L1_A | Dimension.L2_A | Dimension.L3_A:
            phase = _PHASE_OF[value.dimension]
            return [Bound(f"{label}:{phase}", value.value, value.revision, phase)]
        case Dimension.L1_W | Dimension.L2_W | Dimension.L3_W:
            phase = _PHASE_OF[value.dimension]
            current_ma = value.value * 10_000 // highest_decivolts(tree, path)
            return [Bound(f"{label}:{phase}", current_ma, value.revision, phase)]


def highest_decivolts(tree: Tree, path: NodeId) -> int:
    """The highest nominal voltage below a node, phase to neutral, tenths of a volt."""
    return max((round(n.evse.voltage_v * 10) for n in tree.evses(path) if n.evse), default=NOMINAL_DECIVOLTS)


def as_watts(tree: Tree, path: NodeId, value: LimitValue, taken: Load) -> int:
    """A limit value as watts on the node's sum, seen from what is taken: that less what is too much."""
    excess_w = [
        taken.power_w - bound.value
        if bound.phase is None
        else (taken.current_ma(bound.phase) - bound.value) * highest_decivolts(tree, path) // 10_000
        for bound in bounds_of(tree, path, value, "")
    ]
    return max(taken.power_w - max(excess_w, default=0), 0)


def with_shares(tree: Tree, path: NodeId, load: Load, shares: Mapping[NodeId, int]) -> Load:
    """The load of a node and the safe shares below it: what it takes although nothing is given out."""
    currents = {phase: load.current_ma(phase) for phase in ALL_PHASES}
    power_w = load.power_w
    for node in tree.evses(path):
        if node.evse is not None:
            power_w += shares[node.path]
            for phase in node.evse.phases:
                currents[phase] += node.evse.current_ma(shares[node.path])
    return Load(power_w, *currents.values())
