"""What a tree may be: every broken rule is named, with its code, node and field."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.calendar import WHOLE, Derate
from gateway.domain.errors import InvalidTopology
from gateway.domain.ids import NodeId, SiteId, StationId
from gateway.domain.measurement import CURRENT, Measurement, Quantity, on_site_phases
from gateway.domain.quantities import ALL_PHASES, MilliAmperes, Phase, Watts
from gateway.domain.topology import EvseFacts, Node, NodeKind, Supply, Tree, mistakes
from tests.unit.app.builders import T0

L1, L2, L3 = Phase
K = NodeKind


def nodes(*given: Node) -> Mapping[NodeId, Node]:
    return {node.path: node for node in given}


def a_node(path: str, kind: NodeKind = K.CIRCUIT, **fields: object) -> Node:
    return Node(NodeId(path), kind, **fields)  # type: ignore[arg-type]  # fields of Node by name


def a_main(**fields: object) -> Node:
    return a_node("main", K.GRID_CONNECTION, **{"import_max_w": Watts(10_000), **fields})


def an_evse(path: str = "main/e", *, supply: Supply | None = None, **fields: object) -> Node:
    facts = EvseFacts(StationId("CP-1"), 1, **fields)  # type: ignore[arg-type]  # fields of EvseFacts by name
    return Node(NodeId(path), K.EVSE, evse=facts, supply=supply)


def limits(*phases: Phase) -> Mapping[Phase, MilliAmperes]:
    return dict.fromkeys(phases, MilliAmperes(16_000))


BROKEN = [
    ("TOPOLOGY_EMPTY", "", "", ()),
    ("TOPOLOGY_PATH", "main//a", "path", (a_main(), a_node("main//a"))),
    ("TOPOLOGY_ROOT", "shed", "kind", (a_main(), a_node("shed"))),
    ("TOPOLOGY_NO_ROOT_LIMIT", "main", "import_max_w", (a_main(import_max_w=None),)),
    ("TOPOLOGY_MULTI_ROOT", "main/second", "kind", (a_main(), a_node("main/second", K.GRID_CONNECTION))),
    ("TOPOLOGY_UNKNOWN_PARENT", "main/a/b", "path", (a_main(), a_node("main/a/b"))),
    ("TOPOLOGY_LEAF_WITH_CHILD", "main/a/b", "path", (a_main(), a_node("main/a", K.LOAD), a_node("main/a/b"))),
    ("TOPOLOGY_EVSE_FACTS", "main/e", "kind", (a_main(), a_node("main/e", K.EVSE))),
    ("TOPOLOGY_NEGATIVE_LIMIT", "main", "export_max_w", (a_main(export_max_w=Watts(-1)),)),
    ("TOPOLOGY_NEGATIVE_LIMIT", "main", "apparent_max_va", (a_main(apparent_max_va=-1),)),
    ("TOPOLOGY_NEGATIVE_LIMIT", "main", "import_max_a", (a_main(import_max_ma={L1: MilliAmperes(-1)}),)),
    ("TOPOLOGY_MIN_ABOVE_MAX", "main/e", "min_a", (a_main(), an_evse(min_ma=MilliAmperes(33_000)))),
    ("TOPOLOGY_EFFICIENCY", "main/e", "efficiency", (a_main(), an_evse(efficiency=950))),
    ("TOPOLOGY_EFFICIENCY", "main", "efficiency", (a_main(efficiency=0),)),
    ("PHASE_NOT_PRESENT", "main/e", "phases", (a_main(phases=(L1,)), an_evse())),
    ("PHASE_NOT_PRESENT", "main/e", "phases", (a_main(), an_evse(phases=(L1, L1)))),
    ("PHASE_NOT_PRESENT", "main/a", "phase_map", (a_main(phases=(L1, L2)), a_node("main/a", phases=(L3,)))),
    ("PHASE_NOT_PRESENT", "main/a", "import_max_a", (a_main(phases=(L1,)), a_node("main/a", import_max_ma=limits(L2)))),
    ("TOPOLOGY_SUPPLY", "main/a", "supply", (a_main(), a_node("main/a", supply=Supply.AC1))),
    ("TOPOLOGY_SUPPLY", "main/a", "supply", (a_main(), a_node("main/a", supply=Supply.AC3, phases=(L1, L2)))),
    (
        "TOPOLOGY_SUPPLY",
        "main/a",
        "import_max_a",
        (a_main(), a_node("main/a", supply=Supply.DC, import_max_ma=limits(L1))),
    ),
    (
        "TOPOLOGY_SUPPLY",
        "main/a/e",
        "supply",
        (a_main(), a_node("main/a", supply=Supply.DC), an_evse("main/a/e", supply=Supply.AC3)),
    ),
]


@pytest.mark.parametrize(("code", "node", "key", "given_nodes"), BROKEN)
def test_a_broken_rule_is_named_with_its_node_and_field(
    code: str, node: str, key: str, given_nodes: tuple[Node, ...]
) -> None:
    assert {(m.code, m.node, m.key) for m in mistakes(nodes(*given_nodes))} == {(code, node, key)}
    with pytest.raises(InvalidTopology) as caught:
        Tree(SiteId("s"), nodes(*given_nodes))
    assert caught.value.code == code


def test_all_mistakes_are_found_at_once_and_a_missing_parent_once() -> None:
    wrong = nodes(
        a_main(import_max_w=Watts(-5), export_max_w=Watts(-1)),
        a_node("main/x/a"),
        a_node("main/x/b"),
        an_evse("main/e", min_ma=MilliAmperes(40_000), efficiency=2_000),
    )
    assert [(m.code, m.node) for m in mistakes(wrong)] == [
        ("TOPOLOGY_NEGATIVE_LIMIT", "main"),
        ("TOPOLOGY_NEGATIVE_LIMIT", "main"),
        ("TOPOLOGY_UNKNOWN_PARENT", "main/x/a"),
        ("TOPOLOGY_MIN_ABOVE_MAX", "main/e"),
        ("TOPOLOGY_EFFICIENCY", "main/e"),
    ]


def test_a_site_may_have_several_grid_connections() -> None:
    tree = Tree(SiteId("s"), nodes(a_main(), a_node("annex", K.GRID_CONNECTION, import_max_w=Watts(5_000))))
    assert tree.children(NodeId("")) == ("annex", "main")


def test_a_node_has_the_phases_of_what_feeds_it_unless_it_says_so() -> None:
    tree = Tree(
        SiteId("s"),
        nodes(a_main(), a_node("main/a", supply=Supply.AC2, phases=(L3, L1)), a_node("main/a/b"), a_node("main/c")),
    )
    assert [tree.phases(NodeId(path)) for path in ("main", "main/a/b", "main/c")] == [
        ALL_PHASES,
        (L3, L1),
        ALL_PHASES,
    ]


def test_direct_current_below_a_charger_on_three_phases_is_sound() -> None:
    dc = an_evse("main/c/e", supply=Supply.DC, told_power=True, efficiency=930)
    charger = a_node("main/c", K.CHARGER, supply=Supply.AC3, efficiency=930, derate=Derate(UTC))
    assert not list(mistakes(nodes(a_main(), charger, dc)))


@given(st.permutations(ALL_PHASES), st.integers(0, 2))
def test_a_meters_terminal_is_the_site_phase_that_feeds_it(order: list[Phase], terminal: int) -> None:
    read = Measurement(NodeId("main"), CURRENT[ALL_PHASES[terminal]], 5_000, T0, T0)
    placed = on_site_phases(read, tuple(order))
    assert placed is not None
    assert placed.quantity is CURRENT[order[terminal]]
    assert on_site_phases(read, tuple(order[:terminal])) is None


def test_what_is_of_no_phase_is_left_alone() -> None:
    power = Measurement(NodeId("main"), Quantity.P, 5_000, T0, T0)
    assert on_site_phases(power, (L2,)) is power


@given(st.integers(0, 10**9), st.integers(1, WHOLE))
def test_derating_rounds_every_limit_towards_tighter(limit_w: int, factor: int) -> None:
    node = a_main(import_max_w=Watts(limit_w), apparent_max_va=limit_w)
    for whole, left in zip(node.limits(), node.limits(factor), strict=True):
        assert left.value * WHOLE <= whole.value * factor < (left.value + 1) * WHOLE
