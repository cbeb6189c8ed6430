"""The tree of a site from its rows, and whether everybody's safe share fits it. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction

from gateway.config.document import EvseRow, NodeRow, PhaseCurrents
from gateway.config.parse import Document
from gateway.config.problems import Place, Problems, nearest
from gateway.domain.errors import InvalidTopology
from gateway.domain.ids import NodeId, SiteId, StationId
from gateway.domain.quantities import (
    ALL_PHASES,
    NOMINAL_VOLTAGE_V,
    MilliAmperes,
    Phase,
    Volts,
    Watts,
    milliamperes_down,
)
from gateway.domain.topology import ROOT, EvseFacts, Node, NodeKind, Tree

MAX_ROUNDS = 100
"""Mistakes of a tree that are looked for: each takes one pass over its nodes."""

_QUOTED = re.compile(r'"([^"]+)"')
_KEYS = {
    "TOPOLOGY_ROOT": "kind",
    "TOPOLOGY_MULTI_ROOT": "kind",
    "TOPOLOGY_NO_ROOT_LIMIT": "import_max_w",
    "TOPOLOGY_MIN_ABOVE_MAX": "min_a",
    "PHASE_NOT_PRESENT": "phases",
}


def build_tree(document: Document, problems: Problems) -> Tree | None:
    """The tree; None where a row or the whole is wrong (mistakes are noted)."""
    if not (document.nodes.is_known and document.evses.is_known):
        return None
    nodes: dict[NodeId, Node] = {}
    places: dict[NodeId, Place] = {}
    rows = [(place, _node(row)) for place, row in document.nodes]
    told_power = {row.id for _, row in document.stations if row.rate_unit == "W"}
    rows += [(place, _evse(row, told_power=row.station in told_power)) for place, row in document.evses]
    for place, described in rows:
        node = described
        if node.kind is NodeKind.EVSE and place[0] == "nodes":
            hint = "describe it under evses"
            problems.add("evse-as-node", (*place, "kind"), "an EVSE is no plain node", found="EVSE", suggestion=hint)
            node = _stub(node.path)
        if node.path in nodes:
            key = (*place, "path" if place[0] == "nodes" else "node")
            first = f"also on line {problems.line(places[node.path])}"
            problems.add("duplicate", key, f"the node {node.path} is there twice", found=first)
            continue
        nodes[node.path], places[node.path] = node, place
    broken = _broken(document, nodes)
    site = SiteId(document.site.id if document.site else "")
    tree = _mend(site, {**{path: _stub(path) for path in broken}, **nodes}, places, problems)
    return None if broken else tree


def check_shares(tree: Tree, document: Document, problems: Problems) -> None:
    """Safe shares and reserves, all together, fit every static limit; in W and on each phase in A.

    A safe share counts evenly on the EVSE's phases and a reserve on all three, at nominal voltage.
    """
    places = {NodeId(row.path): place for place, row in document.nodes}
    watts: dict[NodeId, int] = {}
    amperes: dict[NodeId, dict[Phase, Fraction]] = {}
    for path, node in tree.nodes.items():
        own = node.reserve_w + (node.evse.safe_share_w or 0 if node.evse else 0)
        for above in tree.ancestors(path):
            watts[above] = watts.get(above, 0) + own
            phases = amperes.setdefault(above, {})
            for phase, current_ma in _currents_ma(node).items():
                phases[phase] = phases.get(phase, Fraction(0)) + current_ma
    for path, node in tree.nodes.items():
        place = places.get(path)
        if place is None:
            continue
        hint = "lower safe_share_w or reserve_w, or raise the limit"
        what = f"safe shares and reserves at and below {path} need"
        if node.import_max_w is not None and watts[path] > node.import_max_w:
            text, found = f"{what} {watts[path]} W", f"a limit of {node.import_max_w} W"
            problems.add("safe-shares", (*place, "import_max_w"), text, found=found, suggestion=hint)
        for phase, limit_ma in (node.import_max_ma or {}).items():
            need_ma = amperes[path].get(phase, Fraction(0))
            if need_ma > limit_ma:
                text, found = f"{what} {_tenths_up(need_ma)} A on {phase}", f"a limit of {limit_ma / 1000:g} A"
                problems.add("safe-shares", (*place, "import_max_a", phase.value), text, found=found, suggestion=hint)


def _node(row: NodeRow) -> Node:
    return Node(
        path=NodeId(row.path),
        kind=row.kind,
        import_max_w=_watts(row.import_max_w),
        export_max_w=_watts(row.export_max_w),
        import_max_ma=_phase_limits(row.import_max_a),
        reserve_w=Watts(row.reserve_w),
    )


def _phase_limits(row: PhaseCurrents | None) -> Mapping[Phase, MilliAmperes] | None:
    values = {} if row is None else {phase: getattr(row, phase.value) for phase in ALL_PHASES}
    limits = {phase: milliamperes_down(Decimal(str(value))) for phase, value in values.items() if value is not None}
    return limits or None


def _evse(row: EvseRow, *, told_power: bool) -> Node:
    least_ma = (Decimal(str(row.min_a)) * 1000).to_integral_value(rounding=ROUND_CEILING)
    facts = EvseFacts(
        station=StationId(row.station),
        number=row.number,
        phases=row.phases,
        min_ma=MilliAmperes(int(least_ma)),
        max_ma=milliamperes_down(Decimal(str(row.max_a))),
        voltage_v=Volts(row.voltage_v),
        safe_share_w=_watts(row.safe_share_w),
        weight=row.weight,
        priority=row.priority,
        told_power=told_power,
    )
    return Node(NodeId(row.node), NodeKind.EVSE, evse=facts)


def _watts(value: int | None) -> Watts | None:
    return None if value is None else Watts(value)


def _broken(document: Document, nodes: Mapping[NodeId, Node]) -> set[NodeId]:
    """Paths of rows that have no right shape: there, but not known well enough."""
    named = {NodeId(path) for path in (*document.nodes.named, *document.evses.named)}
    return {path for path in named - set(nodes) if path and not path.startswith("/") and "//" not in path}


def _mend(site: SiteId, nodes: dict[NodeId, Node], places: Mapping[NodeId, Place], problems: Problems) -> Tree | None:
    """Build; note what is refused, put something harmless there, and try again to find the next."""
    sound, given = True, frozenset(nodes)
    for _ in range(MAX_ROUNDS):
        try:
            tree = Tree(site, nodes)
        except InvalidTopology as problem:
            sound = False
            if not _note(problem, nodes, given, places, problems):
                break
            continue
        return tree if sound else None
    return None


def _note(
    problem: InvalidTopology,
    nodes: dict[NodeId, Node],
    given: frozenset[NodeId],
    places: Mapping[NodeId, Place],
    problems: Problems,
) -> bool:
    """Note one mistake and take it out of ``nodes``; False where nothing is left to look at.

    Only a node that is ``given`` in the file is suggested: others stand in for mistakes.
    """
    quoted = [NodeId(path) for path in _QUOTED.findall(str(problem))]
    known = [path for path in quoted if path in nodes]
    if not known:
        problems.add(_code(problem), ("nodes",), str(problem))
        return False
    at = known[-1]
    place = places.get(at)
    if place is not None:
        key = _KEYS.get(problem.code, "path" if place[0] == "nodes" else "node")
        hint = ""
        if problem.code == "TOPOLOGY_UNKNOWN_PARENT":
            hint = nearest(
                nodes[at].parent, (path for path, node in nodes.items() if path in given and not node.kind.is_leaf)
            )
        if not problems.stands_at((*place, key)):
            found = _found(problem, nodes[at])
            problems.add(_code(problem), (*place, key), str(problem), found=found, suggestion=hint)
    match problem.code:
        case "TOPOLOGY_UNKNOWN_PARENT" | "TOPOLOGY_LEAF_WITH_CHILD":
            nodes[nodes[at].parent] = _stub(nodes[at].parent)
        case "TOPOLOGY_TOO_DEEP" | "TOPOLOGY_PATH":
            for path in [path for path in nodes if path == at or path.startswith(f"{at}/")]:
                del nodes[path]
        case _:
            nodes[at] = _stub(at)
    return True


def _found(problem: InvalidTopology, node: Node) -> str:
    """The value in the unit of the file, where the tree speaks in another."""
    if problem.code != "TOPOLOGY_MIN_ABOVE_MAX" or node.evse is None:
        return ""
    return f"{node.evse.min_ma / 1000:g}, above {node.evse.max_ma / 1000:g}"


def _code(problem: InvalidTopology) -> str:
    return problem.code.lower().replace("_", "-")


def _stub(path: NodeId) -> Node:
    """A node about which the tree has nothing to say."""
    if path.rpartition("/")[0] == ROOT:
        return Node(path, NodeKind.GRID_CONNECTION, import_max_w=Watts(0))
    return Node(path, NodeKind.CIRCUIT)


def _currents_ma(node: Node) -> dict[Phase, Fraction]:
    """What the node's own safe share and reserve put on each phase."""
    out = {phase: _current_ma(node.reserve_w, NOMINAL_VOLTAGE_V, 3) for phase in ALL_PHASES}
    if node.evse is not None and node.evse.safe_share_w:
        facts = node.evse
        for phase in facts.phases:
            out[phase] += _current_ma(facts.safe_share_w or 0, facts.voltage_v, len(facts.phases))
    return out


def _current_ma(power_w: int, voltage_v: Volts, phases: int) -> Fraction:
    return Fraction(power_w * 1000) / (Fraction(str(voltage_v)) * phases)


def _tenths_up(current_ma: Fraction) -> str:
    return f"{-(-current_ma // 100) / 10:g}"
