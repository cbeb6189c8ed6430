"""What limits every node now and at each coming edge, and the load nobody controls. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.app.envelopes import Surroundings, edges, limits_at
from gateway.app.state import Work
from gateway.domain.envelope import LimitValue, OperatingEnvelope
from gateway.domain.ids import NodeId, SourceId
from gateway.domain.measurement import Quality, Quantity
from gateway.domain.quantities import Dimension, Direction
from gateway.domain.topology import Node, NodeKind, Tree

MAX_EDGES = 256
"""Edges looked at in one decision; 30 minutes of one-minute blocks of several sources fit."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit on a node's import in W. ``label`` names it; ``revision`` the message behind it."""

    label: str
    value_w: int
    revision: str = ""


@dataclass(frozen=True)
class Picture:
    """Limits over the coming edges. ``instants[0]`` is now; a value holds until the next instant.

    ``bounds[node][k]`` are the limits at ``instants[k]``; ``loads[node]`` the W that are counted
    for uncontrolled load at and below the node; ``own_loads`` those at the node itself.
    """

    instants: tuple[datetime, ...]
    bounds: Mapping[NodeId, tuple[tuple[Bound, ...], ...]]
    loads: Mapping[NodeId, int]
    own_loads: Mapping[NodeId, int]

    def limit_w(self, node: NodeId, k: int) -> int | None:
        """The tightest at ``instants[k]``; None where nothing limits the node."""
        return min((b.value_w for b in self.bounds[node][k]), default=None)

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
    ordered = tuple(sorted(instants)[:MAX_EDGES])
    static = {path: static_bounds(tree, node) for path, node in tree.nodes.items()}
    bounds = {
        path: tuple(
            static[path] + tuple(b for pair in by_node.get(path, ()) for b in _envelope_bounds(tree, pair, instant))
            for instant in ordered
        )
        if path in by_node
        else (static[path],) * len(ordered)
        for path in tree.nodes
    }
    own = {path: counted_load_w(work, node) for path, node in tree.nodes.items()}
    return Picture(ordered, bounds, _sums(tree, own), own)


def static_bounds(tree: Tree, node: Node) -> tuple[Bound, ...]:
    """The node's own limits; per-phase amperes as the watts that keep every phase."""
    out = []
    if node.import_max_w is not None:
        out.append(Bound("limit_w", node.import_max_w))
    if node.import_max_ma:
        out.append(Bound("limit_a", phase_cap_w(tree, node.path, min(node.import_max_ma.values()))))
    return tuple(out)


def phase_cap_w(tree: Tree, path: NodeId, current_ma: int) -> int:
    """Watts of controllable load below ``path`` that cannot exceed ``current_ma`` on any phase.

    An EVSE on k phases puts P/(k U) on each: with the fewest phases below, all on one phase.
    """
    facts = [node.evse for node in tree.evses(path) if node.evse is not None]
    fewest = min((len(f.phases) for f in facts), default=3)
    voltage = min((f.voltage_v for f in facts), default=230.0)
    return int(fewest * voltage * current_ma / 1000)


def counted_load_w(work: Work, node: Node) -> int:
    """Uncontrolled load counted at the node itself, W.

    Fresh: the measured value with a margin, at least the reserve. Stale: the last good value
    with its margin, at least the reserve. Never seen: the reserve; a LOAD without even that
    counts as everything its parent allows, so that nothing is handed out (``NO_LOAD_MODEL``).
    """
    if node.kind is not NodeKind.LOAD:
        return node.reserve_w
    point = work.points.get((node.path, Quantity.P))
    if point is not None and point.quality in (Quality.GOOD, Quality.ESTIMATED):
        margin = max(work.settings.load_margin_w, abs(point.value) * work.settings.load_margin_pct // 100)
        return max(node.reserve_w, point.value + margin, 0)
    if node.reserve_w:
        return node.reserve_w
    return next(
        (
            bound.value_w
            for above in work.facts.tree.ancestors(node.path)
            for bound in static_bounds(work.facts.tree, work.facts.tree.node(above))
        ),
        0,
    )


def lowest_known_w(work: Work, path: NodeId) -> int | None:
    """The lowest limit on a node at any known time, fallbacks included: what safe shares must fit."""
    tree = work.facts.tree
    values = [b.value_w for b in static_bounds(tree, tree.node(path))]
    for envelope in work.envelopes.values():
        if envelope.node != path or envelope.direction is not Direction.IMPORT or envelope.state.is_final:
            if envelope.node == path and envelope.stale:
                values += [as_watts(tree, path, v) for v in envelope.fallen]
            continue
        known = [*envelope.held, *envelope.fallen]
        values += [as_watts(tree, path, v) for v in known]
        values += [
            as_watts(tree, path, LimitValue(b.dimension, b.value))
            for b in (*envelope.primary, *envelope.fallback)
            if b.end > work.now
        ]
    return min(values, default=None)


def _envelope_bounds(tree: Tree, pair: tuple[OperatingEnvelope, Surroundings], instant: datetime) -> tuple[Bound, ...]:
    envelope, around = pair
    return tuple(
        Bound(f"envelope:{envelope.id}", as_watts(tree, envelope.node, value), value.revision)
        for value in limits_at(envelope, instant, around)
    )


def as_watts(tree: Tree, path: NodeId, value: LimitValue) -> int:
    """A limit value as watts on the node's sum that keep it whatever the phases."""
    match value.dimension:
        case Dimension.SUM_W:
            return value.value
        case Dimension.L1_W | Dimension.L2_W | Dimension.L3_W:
            facts = [node.evse for node in tree.evses(path) if node.evse is not None]
            return value.value * min((len(f.phases) for f in facts), default=3)
        case Dimension.EACH_A | Dimension.L1_A | Dimension.L2_A | Dimension.L3_A:
            return phase_cap_w(tree, path, value.value)


def _sums(tree: Tree, own: Mapping[NodeId, int]) -> dict[NodeId, int]:
    sums = dict.fromkeys(tree.nodes, 0)
    for path, value in own.items():
        if value:
            for above in tree.ancestors(path):
                sums[above] += value
    return sums
