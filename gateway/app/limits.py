"""What limits every node now and at each coming edge, and the load nobody controls. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from gateway.app.envelopes import Surroundings, edges, limits_at
from gateway.app.loads import NOMINAL_DECIVOLTS, Load, counted_load, departing_loads, plus, sums
from gateway.app.state import Work
from gateway.domain.calendar import QUARTER, WHOLE, quarters
from gateway.domain.envelope import LimitValue, OperatingEnvelope
from gateway.domain.ids import NodeId, SourceId
from gateway.domain.measurement import Quality, Quantity
from gateway.domain.quantities import ALL_PHASES, Dimension, Direction, Phase
from gateway.domain.topology import Node, StaticLimit, Tree

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


def picture(work: Work, until: datetime | None = None, also: Iterable[datetime] = ()) -> Picture:
    """Limits from now to ``until``, at first the end of what a schedule granted now could reach.

    ``also`` are instants to look at beside those at which a limit may change.
    """
    tree = work.facts.tree
    horizon = until or work.now + timedelta(seconds=work.settings.reach_s)
    by_node: dict[NodeId, list[tuple[OperatingEnvelope, Surroundings]]] = {}
    instants = {work.now, *also}
    for envelope in work.envelopes.values():
        if envelope.direction is Direction.IMPORT and envelope.node in tree.nodes:
            around = surroundings(work, envelope)
            by_node.setdefault(envelope.node, []).append((envelope, around))
            instants.update(e for e in edges(envelope, around) if e <= horizon)
    instants |= _dated_edges(tree, work.now, horizon)
    every = sorted(instants)
    ordered, known = tuple(every[:MAX_EDGES]), every[MAX_EDGES] if len(every) > MAX_EDGES else horizon
    static = {path: _static_rows(work, node, ordered) for path, node in tree.nodes.items()}
    bounds = {
        path: tuple(
            own + tuple(b for pair in by_node[path] for b in _envelope_bounds(tree, pair, instant))
            for instant, own in zip(ordered, rows, strict=True)
        )
        if path in by_node
        else rows
        for path, rows in static.items()
    }
    own = {path: counted_load(work, node) for path, node in tree.nodes.items()}
    own |= {path: plus(own[path], load) for path, load in departing_loads(work).items() if path in own}
    return Picture(ordered, known, bounds, sums(tree, own), own)


_LABELS = {"import_max_w": "w", "apparent_max_va": "va", "import_max_a": "a"}


def static_bounds(node: Node, factor: int = WHOLE) -> tuple[Bound, ...]:
    """The node's own limits, of which derating leaves ``factor`` thousandths; then they are ``derated_*``."""
    return _static(node.limits(factor), "limit" if factor == WHOLE else "derated")


def _static(limits: Sequence[StaticLimit], word: str) -> tuple[Bound, ...]:
    return tuple(
        Bound(f"{word}_{_LABELS[x.key]}{'' if x.phase is None else f':{x.phase}'}", x.value, phase=x.phase)
        for x in limits
    )


def factor_at(work: Work, node: Node, instant: datetime) -> int:
    """What derating leaves of a node's limits at ``instant``, thousandths; the temperature is that of now."""
    return WHOLE if node.derate is None else node.derate.at(instant, _temperature_cc(work, node.path, work.now))


def _temperature_cc(work: Work, path: NodeId, now: datetime) -> int | None:
    """The temperature of a node, if it is measured and no older than is believed."""
    point = work.points.get((path, Quantity.TEMPERATURE))
    believed = timedelta(seconds=work.settings.temperature_s)
    if point is None or point.quality is not Quality.GOOD or now >= point.received_at + believed:
        return None
    return point.value


def _static_rows(work: Work, node: Node, instants: Sequence[datetime]) -> tuple[tuple[Bound, ...], ...]:
    if node.derate is None:
        return (static_bounds(node),) * len(instants)
    return tuple(static_bounds(node, factor_at(work, node, instant)) for instant in instants)


def _dated_edges(tree: Tree, now: datetime, horizon: datetime) -> set[datetime]:
    """Instants at which a season begins or ends that derates a node."""
    derates = [node.derate for node in tree.nodes.values() if node.derate is not None and node.derate.seasons]
    if not derates:
        return set()
    instants = (now, *quarters(now, horizon))
    return {b for a, b in pairwise(instants) if any(derate.at(a) != derate.at(b) for derate in derates)}


def has_changed(work: Work) -> bool:
    """Whether the calendar or an old temperature has changed a node's limits or reserve since the last decision."""
    since, now, reach = work.looked_at, work.now, timedelta(seconds=work.settings.reach_s)
    varying = work.facts.tree.varying
    if any(at is not None and since < at <= now for at in (_ages_at(work, node) for node in varying)):
        return True
    if not (quarters(since, now) or quarters(since + reach, now + reach)):
        return False
    return any(
        (node.derate is not None and node.derate.at(since) != node.derate.at(now))
        or node.reserve_from(since, since + reach) != node.reserve_from(now, now + reach)
        for node in varying
    )


def next_change(work: Work) -> datetime | None:
    """When :func:`has_changed` has to be asked again; None where nothing varies."""
    varying, now = work.facts.tree.varying, work.now
    if not varying:
        return None
    reach = timedelta(seconds=work.settings.reach_s)
    due = [*quarters(now, now + QUARTER), *(at - reach for at in quarters(now + reach, now + reach + QUARTER))]
    due += [at for at in (_ages_at(work, node) for node in varying) if at is not None and at > now]
    return min(due)


def _ages_at(work: Work, node: Node) -> datetime | None:
    """When the temperature that a node is derated by is no longer believed."""
    point = work.points.get((node.path, Quantity.TEMPERATURE))
    if node.derate is None or not node.derate.heats or point is None:
        return None
    return point.received_at + timedelta(seconds=work.settings.temperature_s)


def known_bounds(work: Work, path: NodeId) -> dict[Phase | None, int]:
    """The lowest limits on a node at any known time, fallbacks included: what safe shares must fit.

    By phase in mA, and under None on the sum in W.
    """
    tree = work.facts.tree
    found = list(_static(tree.node(path).least_limits(), "limit"))
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
