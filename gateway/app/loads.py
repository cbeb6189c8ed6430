"""Uncontrolled load as it is counted: power, and current on each phase. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from gateway.app.state import Point, Work
from gateway.domain.ids import NodeId
from gateway.domain.measurement import CURRENT, Quality, Quantity
from gateway.domain.quantities import ALL_PHASES, NOMINAL_VOLTAGE_V, Phase
from gateway.domain.topology import Node, NodeKind, Tree

NOMINAL_DECIVOLTS = round(NOMINAL_VOLTAGE_V * 10)

_USABLE = (Quality.GOOD, Quality.ESTIMATED)


class Load(NamedTuple):
    """W on the sum, and mA on L1, L2 and L3."""

    power_w: int
    l1_ma: int
    l2_ma: int
    l3_ma: int

    def current_ma(self, phase: Phase) -> int:
        """On one phase."""
        return self[1 + ALL_PHASES.index(phase)]


NOTHING = Load(0, 0, 0, 0)


def counted_load(work: Work, node: Node) -> Load:
    """Uncontrolled load counted at the node itself.

    Measured: the last good value with a margin, at least the reserve. Never seen: the reserve; a
    LOAD without even that counts as everything its parents allow, so that nothing is handed out
    (``NO_LOAD_MODEL``). Of a reserve by the time of day counts the most within the reach of what
    is granted now. A reserve lies evenly on the phases that are there, as the configuration is
    checked; a measured power whose currents are not known may all be on any one of them.
    """
    if node.kind is not NodeKind.LOAD and not node.reserve_w:
        return NOTHING
    phases = work.facts.tree.phases(node.path)
    reserve = _evenly(node.reserve_from(work.now, work.now + timedelta(seconds=work.settings.reach_s)), phases)
    if node.kind is not NodeKind.LOAD:
        return reserve
    point = _usable(work, node.path, Quantity.P)
    if point is not None:
        return _at_least(reserve, _measured(work, node.path, point.value, phases))
    if node.reserve_w:
        return reserve
    tree = work.facts.tree
    above = (tree.node(path).power_max_w for path in tree.ancestors(node.path))
    return on_any_phase(next((limit_w for limit_w in above if limit_w is not None), 0), phases)


def sums(tree: Tree, own: Mapping[NodeId, Load]) -> dict[NodeId, Load]:
    """By node, the load at and below it."""
    total = dict.fromkeys(tree.nodes, NOTHING)
    for path, load in own.items():
        if load is not NOTHING:
            for above in tree.ancestors(path):
                total[above] = plus(total[above], load)
    return total


def departing_loads(work: Work) -> dict[NodeId, Load]:
    """By node, what EVSEs that the configuration no longer has below it may still draw."""
    found: dict[NodeId, Load] = {}
    for gone in work.control.departing.values():
        found[gone.node] = plus(found.get(gone.node, NOTHING), on_any_phase(gone.power_w, ALL_PHASES))
    return found


def plus(a: Load, b: Load) -> Load:
    """Both together."""
    return Load(*(x + y for x, y in zip(a, b, strict=True)))


def _measured(work: Work, path: NodeId, power_w: int, phases: tuple[Phase, ...]) -> Load:
    counted_w = max(power_w + _margin_w(work, power_w), 0)
    known = {phase: point for phase in ALL_PHASES if (point := _usable(work, path, CURRENT[phase])) is not None}
    seen_ma = sum(abs(point.value) for point in known.values())
    rest = on_any_phase(max(counted_w - seen_ma * NOMINAL_DECIVOLTS // 10_000, 0), phases)
    currents = (
        rest.current_ma(phase) if phase not in known else _with_margin_ma(work, abs(known[phase].value))
        for phase in ALL_PHASES
    )
    return Load(counted_w, *currents)


def _margin_w(work: Work, power_w: int) -> int:
    return max(work.settings.load_margin_w, abs(power_w) * work.settings.load_margin_pct // 100)


def _with_margin_ma(work: Work, current_ma: int) -> int:
    least = work.settings.load_margin_w * 10_000 // NOMINAL_DECIVOLTS // len(ALL_PHASES)
    return current_ma + max(least, current_ma * work.settings.load_margin_pct // 100)


def _usable(work: Work, path: NodeId, quantity: Quantity) -> Point | None:
    point = work.points.get((path, quantity))
    return point if point is not None and point.quality in _USABLE else None


def _at_least(a: Load, b: Load) -> Load:
    return Load(*(max(x, y) for x, y in zip(a, b, strict=True)))


def _evenly(power_w: int, phases: tuple[Phase, ...]) -> Load:
    return _on(phases, power_w, -(-power_w * 10_000 // (NOMINAL_DECIVOLTS * len(phases))))


def on_any_phase(power_w: int, phases: tuple[Phase, ...]) -> Load:
    """A power of which any one of the phases may carry all."""
    return _on(phases, power_w, -(-power_w * 10_000 // NOMINAL_DECIVOLTS))


def _on(phases: tuple[Phase, ...], power_w: int, current_ma: int) -> Load:
    """A power with the same current on each of the phases that are there."""
    if not power_w:
        return NOTHING
    return Load(power_w, *(current_ma if phase in phases else 0 for phase in ALL_PHASES))
