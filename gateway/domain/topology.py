"""The electrical tree of a site and what may be said about it. Pure data and validation.

Paths are addresses: ``main/garage/evse-1`` lies below ``main/garage``. Above the grid
connections (paths without a slash) stands one virtual root without limits of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.domain.errors import InvalidTopology, UnknownNode
from gateway.domain.ids import NodeId, SiteId, StationId
from gateway.domain.quantities import ALL_PHASES, NOMINAL_VOLTAGE_V, MilliAmperes, Phase, Volts, Watts

ROOT = NodeId("")
"""The virtual root above the grid connections."""

MAX_NODES = 200_000
"""Bound of a tree: twice the largest fleet that is benchmarked."""

MAX_DEPTH = 16


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


@dataclass(frozen=True, slots=True)
class EvseFacts:
    """What an EVSE leaf can do.

    ``phases`` are site phases in the order of the EVSE's terminals 1, 2, 3; ``min_a_ma`` is the
    smallest current that charges at all (IEC 61851-1: 6 A), below it only 0 exists.
    ``safe_share_w`` is what the EVSE may draw for ever without us; None lets the loader choose.
    ``told_power``: its station is told watts, not amperes, so that one phase may carry all of them.
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
class Node:
    """One node. ``None`` is no statement, 0 is nothing allowed."""

    path: NodeId
    kind: NodeKind
    import_max_w: Watts | None = None
    export_max_w: Watts | None = None
    import_max_ma: Mapping[Phase, MilliAmperes] | None = None
    reserve_w: Watts = Watts(0)
    evse: EvseFacts | None = None

    @property
    def parent(self) -> NodeId:
        """Path of the node above; the virtual root for a grid connection."""
        return NodeId(self.path.rpartition("/")[0])


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

    def __post_init__(self) -> None:
        _validate(self.nodes)
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

    def node(self, path: NodeId) -> Node:
        """The node at ``path``.

        Raises:
            UnknownNode: there is none.
        """
        try:
            return self.nodes[path]
        except KeyError:
            raise UnknownNode(f'no node "{path}" in site {self.site}') from None

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


def _refuse(code: str, text: str) -> InvalidTopology:
    return InvalidTopology(text, code=code)


def _validate(nodes: Mapping[NodeId, Node]) -> None:
    if not nodes:
        raise _refuse("TOPOLOGY_EMPTY", "the tree has no nodes")
    if len(nodes) > MAX_NODES:
        raise _refuse("TOPOLOGY_TOO_LARGE", f"{len(nodes)} nodes, at most {MAX_NODES}")
    for path, node in nodes.items():
        if path != node.path or not path or path.startswith("/") or path.endswith("/") or "//" in path:
            raise _refuse("TOPOLOGY_PATH", f'"{path}" is not a path')
        if path.count("/") >= MAX_DEPTH:
            raise _refuse("TOPOLOGY_TOO_DEEP", f'"{path}" lies deeper than {MAX_DEPTH} levels')
        _validate_place(nodes, node)
        _validate_limits(node)


def _validate_place(nodes: Mapping[NodeId, Node], node: Node) -> None:
    if node.parent == ROOT:
        if node.kind is not NodeKind.GRID_CONNECTION:
            raise _refuse("TOPOLOGY_ROOT", f'"{node.path}" stands at the root and is no GRID_CONNECTION')
        if node.import_max_w is None:
            raise _refuse("TOPOLOGY_NO_ROOT_LIMIT", f'grid connection "{node.path}" has no import_max_w')
    else:
        parent = nodes.get(node.parent)
        if parent is None:
            raise _refuse("TOPOLOGY_UNKNOWN_PARENT", f'"{node.path}" has no parent "{node.parent}"')
        if parent.kind.is_leaf:
            raise _refuse("TOPOLOGY_LEAF_WITH_CHILD", f'"{node.parent}" is a leaf and has the child "{node.path}"')
        if node.kind is NodeKind.GRID_CONNECTION:
            raise _refuse("TOPOLOGY_MULTI_ROOT", f'grid connection "{node.path}" lies below another node')
    if (node.kind is NodeKind.EVSE) != (node.evse is not None):
        raise _refuse("TOPOLOGY_EVSE_FACTS", f'"{node.path}": exactly the nodes of kind EVSE have EVSE facts')


def _validate_limits(node: Node) -> None:
    for name, value in (("import_max_w", node.import_max_w), ("export_max_w", node.export_max_w)):
        if value is not None and value < 0:
            raise _refuse("TOPOLOGY_NEGATIVE_LIMIT", f'"{node.path}": {name} is {value}')
    for phase, limit in (node.import_max_ma or {}).items():
        if limit < 0:
            raise _refuse("TOPOLOGY_NEGATIVE_LIMIT", f'"{node.path}": limit of {phase} is {limit} mA')
    if node.reserve_w < 0:
        raise _refuse("TOPOLOGY_NEGATIVE_LIMIT", f'"{node.path}": reserve_w is {node.reserve_w}')
    facts = node.evse
    if facts is not None:
        if facts.min_ma > facts.max_ma:
            raise _refuse("TOPOLOGY_MIN_ABOVE_MAX", f'"{node.path}": {facts.min_ma} mA > {facts.max_ma} mA')
        if not facts.phases or len(set(facts.phases)) != len(facts.phases):
            raise _refuse("PHASE_NOT_PRESENT", f'"{node.path}": phases must be one to three distinct ones')
