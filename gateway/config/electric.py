"""The tree of a site from its rows, and whether everybody's safe share fits it. No I/O."""

from __future__ import annotations

import zoneinfo
from collections.abc import Collection, Mapping
from datetime import UTC, tzinfo
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from hashlib import sha256

from gateway.config.document import EvseRow, NodeRow, PhaseCurrents
from gateway.config.parse import Document
from gateway.config.problems import Place, Problems, nearest
from gateway.domain.calendar import WHOLE, DayProfile, Derate, Hot, Season
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
from gateway.domain.topology import (
    ASSUMED_PF,
    ROOT,
    EvseFacts,
    Mistake,
    Node,
    NodeKind,
    StaticLimit,
    Tree,
    mistakes,
    phases_at,
)


def build_tree(document: Document, problems: Problems) -> Tree | None:
    """The tree; None where a row or the whole is wrong (mistakes are noted)."""
    if not (document.nodes.is_known and document.evses.is_known):
        return None
    nodes: dict[NodeId, Node] = {}
    places: dict[NodeId, Place] = {}
    zone = site_zone(document)
    rows = [(place, _node(row, zone)) for place, row in document.nodes]
    told_power = {row.id for _, row in document.stations if row.rate_unit == "W"}
    above = {node.path: node for _, node in rows}
    rows += [(place, _evse(row, above, told_power=row.station in told_power)) for place, row in document.evses]
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
    every = {**{path: _stub(path) for path in broken}, **nodes}
    found = tuple(mistakes(every))
    for mistake in found:
        _note(mistake, every, nodes, places, problems)
    site = SiteId(document.site.id if document.site else "")
    return None if broken or found else Tree(site, nodes, _version(nodes, document))


def _version(nodes: Mapping[NodeId, Node], document: Document) -> str:
    """Names the electrical tree and who may limit what in it: another one, another version."""
    bound = [row for _, row in document.bindings]
    said = repr((sorted(nodes.items(), key=lambda item: item[0]), bound, document.site and document.site.timezone))
    return f"top_{sha256(said.encode()).hexdigest()[:16]}"


def site_zone(document: Document) -> tzinfo:
    """The site's time zone; UTC where it is not known (which is a mistake of its own)."""
    name = document.site.timezone if document.site else "UTC"
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def check_shares(tree: Tree, document: Document, problems: Problems) -> None:
    """Safe shares and reserves, all together, fit every static limit; in W and on each phase in A.

    A safe share and a reserve count evenly on the phases that are there, at nominal voltage.
    """
    places = {NodeId(row.path): place for place, row in document.nodes}
    watts: dict[NodeId, int] = {}
    amperes: dict[NodeId, dict[Phase, Fraction]] = {}
    for path, node in tree.nodes.items():
        own = node.reserve_w + (node.evse.safe_share_w or 0 if node.evse else 0)
        for above in tree.ancestors(path):
            watts[above] = watts.get(above, 0) + own
            phases = amperes.setdefault(above, {})
            for phase, current_ma in _currents_ma(node, tree.phases(path)).items():
                phases[phase] = phases.get(phase, Fraction(0)) + current_ma
    for path, node in tree.nodes.items():
        place = places.get(path)
        if place is None:
            continue
        hint = "lower safe_share_w or reserve_w, or raise the limit"
        what = f"safe shares and reserves at and below {path} need"
        for limit in node.least_limits():
            need = Fraction(watts[path]) if limit.phase is None else amperes[path].get(limit.phase, Fraction(0))
            if need > limit.value:
                key = (limit.key,) if limit.phase is None else (limit.key, limit.phase.value)
                text, found = f"{what} {_needed(need, limit)}", f"a limit of {_allowed(node, limit)}"
                problems.add("safe-shares", (*place, *key), text, found=found, suggestion=hint)


def _needed(need: Fraction, limit: StaticLimit) -> str:
    return f"{need} W" if limit.phase is None else f"{_tenths_up(need)} A on {limit.phase}"


def _allowed(node: Node, limit: StaticLimit) -> str:
    """The limit in the unit of the file; where derating lowers it, that is said."""
    value = f"{limit.value} W" if limit.phase is None else f"{limit.value / 1000:g} A"
    return f"{value}, derated" if node.derate is not None and node.derate.least() < WHOLE else value


def _node(row: NodeRow, zone: tzinfo) -> Node:
    profile = _profile(row, zone)
    return Node(
        path=NodeId(row.path),
        kind=row.kind,
        import_max_w=_watts(row.import_max_w),
        export_max_w=_watts(row.export_max_w),
        import_max_ma=_phase_limits(row.import_max_a),
        reserve_w=Watts(row.reserve_w) if profile is None else profile.peak_w,
        apparent_max_va=row.apparent_max_va,
        assumed_pf=ASSUMED_PF if row.assumed_pf is None else _thousandths(row.assumed_pf),
        derate=_derate(row, zone),
        reserve_profile=profile,
        supply=row.supply,
        phases=row.phase_map,
        efficiency=WHOLE if row.efficiency is None else _thousandths(row.efficiency),
        unbalance_max_ma=None if row.unbalance_max_a is None else milliamperes_down(Decimal(str(row.unbalance_max_a))),
    )


def _derate(row: NodeRow, zone: tzinfo) -> Derate | None:
    if row.derate is None and not (row.derate_seasons or row.derate_heat):
        return None
    return Derate(
        zone,
        WHOLE if row.derate is None else _thousandths(row.derate),
        tuple(Season(_day(s.start), _day(s.end), _thousandths(s.fraction)) for s in row.derate_seasons),
        tuple(Hot(int(Decimal(str(h.above_c)) * 100), _thousandths(h.fraction)) for h in row.derate_heat),
    )


def _profile(row: NodeRow, zone: tzinfo) -> DayProfile | None:
    steps = sorted((int(s.start[:2]) * 60 + int(s.start[3:]), Watts(s.w)) for s in row.reserve_profile)
    return DayProfile(zone, tuple(steps)) if steps else None


def _day(text: str) -> tuple[int, int]:
    return int(text[:2]), int(text[3:])


def _thousandths(fraction: float) -> int:
    """Rounded down: less is left."""
    return int(Decimal(str(fraction)) * WHOLE)


def _phase_limits(row: PhaseCurrents | None) -> Mapping[Phase, MilliAmperes] | None:
    values = {} if row is None else {phase: getattr(row, phase.value) for phase in ALL_PHASES}
    limits = {phase: milliamperes_down(Decimal(str(value))) for phase, value in values.items() if value is not None}
    return limits or None


def _evse(row: EvseRow, above: Mapping[NodeId, Node], *, told_power: bool) -> Node:
    least_ma = (Decimal(str(row.min_a)) * 1000).to_integral_value(rounding=ROUND_CEILING)
    facts = EvseFacts(
        station=StationId(row.station),
        number=row.number,
        phases=phases_at(above, NodeId(row.node.rpartition("/")[0])) if row.phases is None else row.phases,
        min_ma=MilliAmperes(int(least_ma)),
        max_ma=milliamperes_down(Decimal(str(row.max_a))),
        voltage_v=Volts(row.voltage_v),
        safe_share_w=_watts(row.safe_share_w),
        weight=row.weight,
        priority=row.priority,
        told_power=told_power,
        efficiency=_passed_on(row, above),
    )
    return Node(NodeId(row.node), NodeKind.EVSE, evse=facts, supply=row.supply)


def _passed_on(row: EvseRow, above: Mapping[NodeId, Node]) -> int:
    """What arrives at the vehicle's side, over all that lies between it and the grid, thousandths rounded down."""
    passed = Decimal(1) if row.efficiency is None else Decimal(str(row.efficiency))
    path = NodeId(row.node)
    while path:
        if path in above:
            passed *= Decimal(above[path].efficiency) / WHOLE
        path = NodeId(path.rpartition("/")[0])
    return int(passed * WHOLE)


def _watts(value: int | None) -> Watts | None:
    return None if value is None else Watts(value)


def _broken(document: Document, nodes: Mapping[NodeId, Node]) -> set[NodeId]:
    """Paths of rows that have no right shape: there, but not known well enough."""
    named = {NodeId(path) for path in (*document.nodes.named, *document.evses.named)}
    return {path for path in named - set(nodes) if path and not path.startswith("/") and "//" not in path}


def _note(
    mistake: Mistake,
    nodes: Mapping[NodeId, Node],
    given: Collection[NodeId],
    places: Mapping[NodeId, Place],
    problems: Problems,
) -> None:
    """Note one mistake at the row that makes it; what stands in for a broken row makes none."""
    place = places.get(mistake.node, ("nodes",) if mistake.node == ROOT else None)
    if place is None:
        return
    key = "node" if mistake.key in ("path", "kind") and place[0] == "evses" else mistake.key
    where = (*place, key) if key else place
    if problems.stands_at(where):
        return
    hint, found, code = "", "", mistake.code.lower().replace("_", "-")
    if mistake.code == "TOPOLOGY_UNKNOWN_PARENT":
        parent = nodes[mistake.node].parent
        hint = nearest(parent, (path for path, node in nodes.items() if path in given and not node.kind.is_leaf))
    elif mistake.code == "TOPOLOGY_MIN_ABOVE_MAX":
        found = _currents_found(nodes[mistake.node])
    problems.add(code, where, mistake.text, found=found, suggestion=hint)


def _currents_found(node: Node) -> str:
    """Both values in the unit of the file."""
    return "" if node.evse is None else f"{node.evse.min_ma / 1000:g}, above {node.evse.max_ma / 1000:g}"


def _stub(path: NodeId) -> Node:
    """A node about which the tree has nothing to say."""
    if path.rpartition("/")[0] == ROOT:
        return Node(path, NodeKind.GRID_CONNECTION, import_max_w=Watts(0))
    return Node(path, NodeKind.CIRCUIT)


def _currents_ma(node: Node, phases: tuple[Phase, ...]) -> dict[Phase, Fraction]:
    """What the node's own safe share and reserve put on each of its phases."""
    reserve_ma = _current_ma(node.reserve_w, NOMINAL_VOLTAGE_V, len(phases))
    facts = node.evse
    share_ma = Fraction(0)
    if facts is not None and facts.safe_share_w:
        share_ma = _current_ma(facts.safe_share_w, facts.voltage_v, len(phases))
    return dict.fromkeys(phases, reserve_ma + share_ma)


def _current_ma(power_w: int, voltage_v: Volts, phases: int) -> Fraction:
    return Fraction(power_w * 1000) / (Fraction(str(voltage_v)) * phases)


def _tenths_up(current_ma: Fraction) -> str:
    return f"{-(-current_ma // 100) / 10:g}"
