"""The electrical tree of a site and what may be said about it. Pure data and validation.

Paths are addresses: ``main/garage/evse-1`` lies below ``main/garage``. Above the grid
connections (paths without a slash) stands one virtual root without limits of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gateway.domain.calendar import WHOLE, DayProfile, Derate
from gateway.domain.errors import InvalidTopology, UnknownNode
from gateway.domain.ids import NodeId, SiteId, StationId
from gateway.domain.quantities import ALL_PHASES, NOMINAL_VOLTAGE_V, MilliAmperes, Phase, Volts, Watts

ROOT = NodeId("")
"""The virtual root above the grid connections."""

MAX_NODES = 200_000
"""Bound of a tree: twice the largest fleet that is benchmarked."""

MAX_DEPTH = 16

ASSUMED_PF = 980
"""Power factor where none is measured, thousandths."""


class NodeKind(StrEnum):
    """`specs` words of the microgrid model."""

    SITE = "SITE"
    GRID_CONNECTION = "GRID_CONNECTION"
    CIRCUIT = "CIRCUIT"
    CHARGER_GROUP = "CHARGER_GROUP"
    CHARGER = "CHARGER"
    EVSE = "EVSE"
    STORAGE = "STORAGE"
    GENERATION = "GENERATION"
    LOAD = "LOAD"
    METER_POINT = "METER_POINT"

    @property
    def is_leaf(self) -> bool:
        """Whether nodes of this kind have no children."""
        return self in _LEAVES


_LEAVES = frozenset({NodeKind.EVSE, NodeKind.STORAGE, NodeKind.GENERATION, NodeKind.LOAD})


class Supply(StrEnum):
    """Alternating current on one, two or three phases, or direct current."""

    AC1 = "AC1"
    AC2 = "AC2"
    AC3 = "AC3"
    DC = "DC"

    @property
    def phases(self) -> int:
        """How many phases are there; 0 for direct current."""
        return {Supply.AC1: 1, Supply.AC2: 2, Supply.AC3: 3}.get(self, 0)


@dataclass(frozen=True, slots=True)
class EvseFacts:
    """What an EVSE leaf can do.

    ``phases`` are site phases in the order of the EVSE's terminals 1, 2, 3; ``min_a_ma`` is the
    smallest current that charges at all (IEC 61851-1: 6 A), below it only 0 exists.
    ``safe_share_w`` is what the EVSE may draw for ever without us; None lets the loader choose.
    ``told_power``: its station is told watts, not amperes, so that one phase may carry all of them.
    ``efficiency`` (thousandths) is what arrives at the vehicle's side of what the grid gives, over
    all that lies between: everything here and in every limit is the grid's side, what a station is
    told and measures is the vehicle's.
    """

    station: StationId
    number: int
    phases: tuple[Phase, ...] = ALL_PHASES
    min_ma: MilliAmperes = MilliAmperes(6_000)
    max_ma: MilliAmperes = MilliAmperes(32_000)
    voltage_v: Volts = NOMINAL_VOLTAGE_V
    safe_share_w: Watts | None = None
    weight: int = 1
    priority: int = 0
    told_power: bool = False
    efficiency: int = WHOLE

    def current_ma(self, power_w: int) -> int:
        """The most that a limit of ``power_w`` lets flow on any one of its phases, mA, rounded up."""
        current_ma = -(-power_w * 10_000 // self._deciwatts_per_ampere)
        return min(current_ma, self.max_ma) if self.told_power else current_ma

    def power_w(self, current_ma: int) -> int:
        """The largest limit that lets no more than ``current_ma`` flow on any one of its phases, W."""
        if self.told_power and current_ma >= self.max_ma:
            return self.max_w
        return current_ma * self._deciwatts_per_ampere // 10_000

    @property
    def _deciwatts_per_ampere(self) -> int:
        """Tenths of a watt for each ampere on a phase; a watt limit says nothing about the other phases."""
        return round(self.voltage_v * 10) * (1 if self.told_power else len(self.phases))

    @property
    def min_w(self) -> Watts:
        """Least power that charges, at nominal voltage, rounded up."""
        return Watts(-(-self.min_ma * round(self.voltage_v * 10) * len(self.phases) // 10_000))

    @property
    def max_w(self) -> Watts:
        """Most power, at nominal voltage, rounded down."""
        return Watts(self.max_ma * round(self.voltage_v * 10) * len(self.phases) // 10_000)


@dataclass(frozen=True, slots=True)
class StaticLimit:
    """One limit of a node on its import: W, or mA where ``phase`` is given.

    ``key`` says from which field it comes: ``import_max_w``, ``apparent_max_va``, ``import_max_a``.
    """

    key: str
    value: int
    phase: Phase | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One node. ``None`` is no statement, 0 is nothing allowed.

    ``apparent_max_va`` allows its product with ``assumed_pf`` (thousandths) as power: nobody
    measures reactive power here. ``derate`` is what is left of every one of these limits.
    ``phases`` are the site phases at its terminals 1, 2, 3; None where they are those of what feeds
    it. ``efficiency`` (thousandths) is what it passes on of what it takes.
    ``unbalance_max_ma`` is how far two of its phases may differ.
    ``reserve_w`` is kept free for load that nobody controls; with ``reserve_profile`` it is the
    most of that.
    """

    path: NodeId
    kind: NodeKind
    import_max_w: Watts | None = None
    export_max_w: Watts | None = None
    import_max_ma: Mapping[Phase, MilliAmperes] | None = None
    reserve_w: Watts = Watts(0)
    evse: EvseFacts | None = None
    apparent_max_va: int | None = None
    assumed_pf: int = ASSUMED_PF
    derate: Derate | None = None
    reserve_profile: DayProfile | None = None
    supply: Supply | None = None
    phases: tuple[Phase, ...] | None = None
    efficiency: int = WHOLE
    unbalance_max_ma: MilliAmperes | None = None

    @property
    def parent(self) -> NodeId:
        """Path of the node above; the virtual root for a grid connection."""
        return NodeId(self.path.rpartition("/")[0])

    @property
    def varies(self) -> bool:
        """Whether its limits or its reserve change without anybody saying so."""
        derated = self.derate is not None and bool(self.derate.seasons or self.derate.heats)
        return derated or self.reserve_profile is not None

    def limits(self, factor: int = WHOLE) -> tuple[StaticLimit, ...]:
        """Its limits on import, of which derating leaves ``factor`` thousandths, rounded down."""
        found = []
        if self.import_max_w is not None:
            found.append(StaticLimit("import_max_w", self.import_max_w * factor // WHOLE))
        if self.apparent_max_va is not None:
            apparent_w = self.apparent_max_va * self.assumed_pf // WHOLE
            found.append(StaticLimit("apparent_max_va", apparent_w * factor // WHOLE))
        for phase, current_ma in (self.import_max_ma or {}).items():
            found.append(StaticLimit("import_max_a", current_ma * factor // WHOLE, phase))
        return tuple(found)

    def least_limits(self) -> tuple[StaticLimit, ...]:
        """The lowest that they can become by derating."""
        return self.limits(WHOLE if self.derate is None else self.derate.least())

    @property
    def power_max_w(self) -> Watts | None:
        """The most that its limits on power allow, derated by nothing, W; None where there is none."""
        return min((Watts(limit.value) for limit in self.limits() if limit.phase is None), default=None)

    def reserve_from(self, since: datetime, until: datetime) -> Watts:
        """The most that is kept free from ``since`` to ``until``, W."""
        profile = self.reserve_profile
        return self.reserve_w if profile is None else profile.highest(since, until)


@dataclass(frozen=True)
class Tree:
    """A validated tree, in an order where parents come before children.

    Raises:
        InvalidTopology: with the reason code of the broken rule.
    """

    site: SiteId
    nodes: Mapping[NodeId, Node]
    version: str = ""
    _children: Mapping[NodeId, tuple[NodeId, ...]] = field(init=False, repr=False, default_factory=dict)
    _ancestors: Mapping[NodeId, tuple[NodeId, ...]] = field(init=False, repr=False, default_factory=dict)
    _evses: Mapping[NodeId, tuple[Node, ...]] = field(init=False, repr=False, default_factory=dict)
    _facts: Mapping[NodeId, EvseFacts] = field(init=False, repr=False, default_factory=dict)
    varying: tuple[Node, ...] = field(init=False, repr=False, default=())
    """Nodes whose limits or reserve change by the calendar or with heat."""

    def __post_init__(self) -> None:
        for mistake in mistakes(self.nodes):
            raise InvalidTopology(mistake.text, code=mistake.code)
        children: dict[NodeId, list[NodeId]] = {ROOT: []}
        ancestors: dict[NodeId, tuple[NodeId, ...]] = {}
        ordered = dict(sorted(self.nodes.items(), key=lambda item: (item[0].count("/"), item[0])))
        for path, node in ordered.items():
            children.setdefault(path, [])
            children[node.parent].append(path)
            ancestors[path] = (path, *ancestors.get(node.parent, ()))
        object.__setattr__(self, "nodes", ordered)
        object.__setattr__(self, "_children", {k: tuple(v) for k, v in children.items()})
        object.__setattr__(self, "_ancestors", ancestors)
        object.__setattr__(self, "_evses", self._evses_below())
        object.__setattr__(self, "_facts", {path: node.evse for path, node in ordered.items() if node.evse})
        varying = tuple(node for node in ordered.values() if node.varies)
        object.__setattr__(self, "varying", varying)

    def node(self, path: NodeId) -> Node:
        """The node at ``path``.

        Raises:
            UnknownNode: there is none.
        """
        try:
            return self.nodes[path]
        except KeyError:
            raise UnknownNode(f'no node "{path}" in site {self.site}') from None

    def phases(self, path: NodeId) -> tuple[Phase, ...]:
        """Site phases at the terminals 1, 2, 3 of a node, as far as there are any."""
        return phases_at(self.nodes, path)

    def children(self, path: NodeId) -> tuple[NodeId, ...]:
        """Direct children, in order of their names."""
        return self._children[path]

    def ancestors(self, path: NodeId) -> tuple[NodeId, ...]:
        """The node itself, then its parents up to the grid connection."""
        return self._ancestors[path]

    def subtree(self, path: NodeId) -> Iterator[NodeId]:
        """The node itself and everything below it, parents first."""
        yield path
        for child in self._children[path]:
            yield from self.subtree(child)

    def evses(self, below: NodeId = ROOT) -> tuple[Node, ...]:
        """EVSE leaves at or below a node."""
        return self._evses.get(below, ())

    def facts(self, evse: NodeId) -> EvseFacts:
        """What an EVSE leaf can do.

        Raises:
            UnknownNode: no EVSE stands there.
        """
        try:
            return self._facts[evse]
        except KeyError:
            raise UnknownNode(f'no EVSE "{evse}" in site {self.site}') from None

    def _evses_below(self) -> dict[NodeId, tuple[Node, ...]]:
        below: dict[NodeId, list[Node]] = {}
        for path in self.subtree(ROOT):
            node = self.nodes.get(path)
            if node is not None and node.kind is NodeKind.EVSE:
                for above in (*self._ancestors[path], ROOT):
                    below.setdefault(above, []).append(node)
        return {path: tuple(found) for path, found in below.items()}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One broken rule. ``node`` is empty where the tree as a whole is wrong; ``key`` names the field."""

    code: str
    node: NodeId
    key: str
    text: str


def mistakes(nodes: Mapping[NodeId, Node]) -> Iterator[Mistake]:
    """Every rule that the nodes break as a tree, node by node; of one cause that hits many, the first."""
    if not nodes:
        yield Mistake("TOPOLOGY_EMPTY", ROOT, "", "the tree has no nodes")
    if len(nodes) > MAX_NODES:
        yield Mistake("TOPOLOGY_TOO_LARGE", ROOT, "", f"{len(nodes)} nodes, at most {MAX_NODES}")
    blamed: set[NodeId] = set()
    for path, node in nodes.items():
        if path != node.path or not path or path.startswith("/") or path.endswith("/") or "//" in path:
            yield Mistake("TOPOLOGY_PATH", path, "path", f'"{path}" is not a path')
            continue
        if path.count("/") >= MAX_DEPTH:
            if node.parent.count("/") < MAX_DEPTH:
                yield Mistake("TOPOLOGY_TOO_DEEP", path, "path", f'"{path}" lies deeper than {MAX_DEPTH} levels')
            continue
        yield from _place_mistakes(nodes, node, blamed)
        yield from _limit_mistakes(node)
        yield from _phase_mistakes(nodes, node)


def phases_at(nodes: Mapping[NodeId, Node], path: NodeId) -> tuple[Phase, ...]:
    """Site phases that are there, in the order of the terminals: the node's own, else those of what feeds it."""
    while path in nodes:
        node = nodes[path]
        own = node.phases if node.evse is None else node.evse.phases
        if own is not None and _are_distinct(own):
            return own
        path = node.parent
    return ALL_PHASES


def _are_distinct(phases: tuple[Phase, ...]) -> bool:
    return 0 < len(phases) == len(set(phases))


def _place_mistakes(nodes: Mapping[NodeId, Node], node: Node, blamed: set[NodeId]) -> Iterator[Mistake]:
    path, parent = node.path, nodes.get(node.parent)
    if node.parent == ROOT:
        if node.kind is not NodeKind.GRID_CONNECTION:
            yield Mistake("TOPOLOGY_ROOT", path, "kind", f'"{path}" stands at the root and is no GRID_CONNECTION')
        elif node.import_max_w is None:
            yield Mistake(
                "TOPOLOGY_NO_ROOT_LIMIT", path, "import_max_w", f'grid connection "{path}" has no import_max_w'
            )
    else:
        if node.kind is NodeKind.GRID_CONNECTION:
            yield Mistake("TOPOLOGY_MULTI_ROOT", path, "kind", f'grid connection "{path}" lies below another node')
        if node.parent not in blamed and (parent is None or parent.kind.is_leaf):
            blamed.add(node.parent)
            yield (
                Mistake("TOPOLOGY_UNKNOWN_PARENT", path, "path", f'"{path}" has no parent "{node.parent}"')
                if parent is None
                else Mistake(
                    "TOPOLOGY_LEAF_WITH_CHILD", path, "path", f'"{node.parent}" is a leaf and has the child "{path}"'
                )
            )
    if (node.kind is NodeKind.EVSE) != (node.evse is not None):
        yield Mistake("TOPOLOGY_EVSE_FACTS", path, "kind", f'"{path}": exactly the nodes of kind EVSE have EVSE facts')


def _limit_mistakes(node: Node) -> Iterator[Mistake]:
    path = node.path
    values: dict[str, int | None] = {
        "import_max_w": node.import_max_w,
        "export_max_w": node.export_max_w,
        "apparent_max_va": node.apparent_max_va,
        "reserve_w": node.reserve_w,
        "unbalance_max_a": node.unbalance_max_ma,
        **{f"import_max_a of {phase}": limit for phase, limit in (node.import_max_ma or {}).items()},
    }
    for name, value in values.items():
        if value is not None and value < 0:
            yield Mistake("TOPOLOGY_NEGATIVE_LIMIT", path, name.partition(" ")[0], f'"{path}": {name} is {value}')
    facts = node.evse
    if facts is not None and facts.min_ma > facts.max_ma:
        yield Mistake(
            "TOPOLOGY_MIN_ABOVE_MAX", path, "min_a", f'"{path}": {facts.min_ma} mA at least, {facts.max_ma} mA at most'
        )
    efficiency = node.efficiency if facts is None else facts.efficiency
    if not 0 < efficiency <= WHOLE:
        yield Mistake("TOPOLOGY_EFFICIENCY", path, "efficiency", f'"{path}": efficiency is {efficiency} thousandths')
    elif efficiency < WHOLE and facts is not None and not facts.told_power:
        text = f'"{path}": what is lost on the way to a vehicle is known of power alone; tell its station watts'
        yield Mistake("TOPOLOGY_EFFICIENCY", path, "efficiency", text)


def _phase_mistakes(nodes: Mapping[NodeId, Node], node: Node) -> Iterator[Mistake]:
    path, own = node.path, node.phases if node.evse is None else node.evse.phases
    key = "phase_map" if node.evse is None else "phases"
    if own is not None and not _are_distinct(own):
        yield Mistake("PHASE_NOT_PRESENT", path, key, f'"{path}": {key} must be one to three distinct ones')
        return
    fed = phases_at(nodes, node.parent)
    for phase in own or ():
        if phase not in fed:
            text = f'"{path}" is on {phase}, and what feeds it has {", ".join(fed)} alone'
            yield Mistake("PHASE_NOT_PRESENT", path, key, text)
    here = fed if own is None else own
    if node.unbalance_max_ma is not None and len(here) == 1:
        text = f'"{path}" has {here[0]} alone: there is nothing to differ from it'
        yield Mistake("PHASE_NOT_PRESENT", path, "unbalance_max_a", text)
    for phase in node.import_max_ma or ():
        if phase not in here:
            text = f'"{path}" limits {phase}, and has {", ".join(here)} alone'
            yield Mistake("PHASE_NOT_PRESENT", path, "import_max_a", text)
    yield from _supply_mistakes(nodes, node, here)


def _supply_mistakes(nodes: Mapping[NodeId, Node], node: Node, here: tuple[Phase, ...]) -> Iterator[Mistake]:
    path, parent = node.path, nodes.get(node.parent)
    is_dc = parent is not None and parent.supply is Supply.DC
    if node.supply is Supply.DC:
        if node.import_max_ma:
            text = f'"{path}": direct current has no phases that import_max_a could limit'
            yield Mistake("TOPOLOGY_SUPPLY", path, "import_max_a", text)
    elif is_dc and node.supply is not None:
        yield Mistake(
            "TOPOLOGY_SUPPLY", path, "supply", f'"{path}" is {node.supply} below "{node.parent}", which is DC'
        )
    elif node.supply is not None and node.supply.phases != len(here):
        text = f'"{path}" is {node.supply} and has {len(here)} phases: {", ".join(here)}'
        yield Mistake("TOPOLOGY_SUPPLY", path, "supply", text)
