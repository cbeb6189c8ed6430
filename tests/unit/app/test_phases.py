"""Limits on phases: what an EVSE may hold puts current on its own phases, and no other."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.app.explain import explain
from gateway.app.limits import known_bounds, picture
from gateway.app.state import Work
from gateway.app.views import describe_tree
from gateway.domain import events as ev
from gateway.domain.effects import Layer
from gateway.domain.envelope import Block, BlockKind, RevisionMode
from gateway.domain.ids import NodeId, SiteId, StationId
from gateway.domain.measurement import Quantity
from gateway.domain.quantities import Dimension, Direction, MilliAmperes, Phase, Watts
from gateway.domain.topology import EvseFacts, Node, NodeKind, Tree
from tests.unit.app.builders import DSO, MAIN, Driver, at, forecast, heartbeat, message

L1, L2, L3 = Phase

Terminals = tuple[Phase, ...]


def a_site(*evses: Terminals, amperes: int | None = 40, share_w: int = 0, in_watts: bool = False) -> Tree:
    limits = None if amperes is None else {phase: MilliAmperes(amperes * 1_000) for phase in Phase}
    nodes = [
        Node(MAIN, NodeKind.GRID_CONNECTION, import_max_w=Watts(60_000)),
        Node(NodeId("main/garage"), NodeKind.CIRCUIT, import_max_ma=limits),
        Node(NodeId("main/house"), NodeKind.LOAD, reserve_w=Watts(6_900)),
    ]
    for index, phases in enumerate(evses, 1):
        facts = EvseFacts(StationId(f"CP-{index}"), 1, phases=phases, safe_share_w=Watts(share_w), told_power=in_watts)
        nodes.append(Node(NodeId(f"main/garage/evse-{index}"), NodeKind.EVSE, evse=facts))
    return Tree(SiteId("depot"), {node.path: node for node in nodes}, "t1")


def a_busy_site(tree: Tree) -> Driver:
    driver = Driver(tree=tree)
    driver.step(heartbeat(600), forecast((0, 600, 60_000)))
    indices = range(1, len(tree.evses()) + 1)
    driver.connect(*indices)
    driver.plug(*indices)
    driver.run_to(2)
    return driver


def announce(driver: Driver, dimension: Dimension, value: int, start: float = 2, end: float = 60) -> None:
    blocks = (Block(at(start), at(end), value, dimension),)
    revision = ev.EnvelopeRevised(
        DSO, MAIN, Direction.IMPORT, "oscp/G", BlockKind.PRIMARY, blocks, RevisionMode.OVERLAY, message("phase"), "q"
    )
    driver.step(revision)
    driver.step(ev.DeadlineReached(), now=driver.now + timedelta(seconds=driver.settings.guard_s))


def held_a(driver: Driver, index: int) -> float:
    """Current on each used phase that the EVSE may hold now."""
    grant = driver.state.grants[f"main/garage/evse-{index}"]
    facts = driver.tree.node(grant.evse).evse
    return facts.current_ma(grant.session.confirmed.at(driver.now)) / 1_000


def test_single_phase_evses_on_different_phases_do_not_share_a_limit() -> None:
    driver = a_busy_site(a_site((L1,), (L2,), (L3,)))
    assert [held_a(driver, n) for n in (1, 2, 3)] == [32, 32, 32]


def test_single_phase_evses_on_the_same_phase_share_it_and_others_take_what_they_can() -> None:
    driver = a_busy_site(a_site((L1,), (L1,), (L2, L3, L1), (L2,)))
    assert [held_a(driver, n) for n in (1, 2, 3)] == pytest.approx([13.333] * 3, abs=0.01)
    assert held_a(driver, 4) == pytest.approx(26.667, abs=0.01)
    assert driver.state.grants["main/garage/evse-1"].binding == "STATIC_NODE main/garage:limit_a:L1"
    assert driver.state.grants["main/garage/evse-4"].binding == "STATIC_NODE main/garage:limit_a:L2"


def test_a_rotated_evse_counts_on_the_phase_that_feeds_its_first_terminal() -> None:
    driver = a_busy_site(a_site((L3,), (L3, L1, L2), amperes=20))
    assert held_a(driver, 1) == held_a(driver, 2) == 10


def test_a_station_that_is_told_watts_may_put_all_of_them_on_any_of_its_phases() -> None:
    driver = a_busy_site(a_site((L1, L2, L3), amperes=20, in_watts=True))
    assert 20 * 230 - 1 <= driver.target(1) <= 20 * 230


@pytest.mark.parametrize(
    ("dimension", "value", "held"),
    [
        (Dimension.EACH_A, 26_000, (8, 16, 8)),
        (Dimension.L1_A, 25_000, (7.5, 32, 7.5)),
        (Dimension.L2_W, 23 * 230, (20, 13, 20)),
        (Dimension.L1_A, 10_000, (0, 32, 0)),
    ],
)
def test_an_envelope_on_a_phase_binds_those_on_that_phase(
    dimension: Dimension, value: int, held: tuple[float, ...]
) -> None:
    driver = a_busy_site(a_site((L1,), (L2,), (L1,)))
    announce(driver, dimension, value)
    assert tuple(held_a(driver, n) for n in (1, 2, 3)) == pytest.approx(held, abs=0.01)


def test_a_load_whose_currents_are_measured_counts_where_it_draws() -> None:
    driver = a_busy_site(a_site((L1,), (L2,), amperes=None))
    house = NodeId("main/house")
    values = {Quantity.P: 6_900, Quantity.I_L1: 30_000, Quantity.I_L2: 0, Quantity.I_L3: 0}
    samples = tuple(ev.Sample(house, q, v, at(2), at(2)) for q, v in values.items())
    driver.step(ev.TelemetryTick(samples, "tick"), now=at(2))
    announce(driver, Dimension.EACH_A, 40_000)
    assert held_a(driver, 1) == pytest.approx(40 - 30 * 1.05, abs=0.01)
    assert held_a(driver, 2) == pytest.approx(30, abs=0.01), "its reserve is kept free on every phase"


def test_a_load_whose_currents_are_unknown_may_be_on_any_one_phase() -> None:
    driver = a_busy_site(a_site((L1,), (L2,), amperes=None))
    sample = ev.Sample(NodeId("main/house"), Quantity.P, 4_300, at(2), at(2))
    driver.step(ev.TelemetryTick((sample,), "tick"), now=at(2))
    announce(driver, Dimension.EACH_A, 40_000)
    assert held_a(driver, 1) == held_a(driver, 2) == pytest.approx(20, abs=0.01)


def test_safe_shares_fit_every_known_limit_on_their_own_phases() -> None:
    driver = a_busy_site(a_site((L1,), (L1,), (L2,), share_w=1_380))
    announce(driver, Dimension.L1_A, 17_000, start=30, end=60)
    floors = [driver.state.grants[f"main/garage/evse-{n}"].share.confirmed.floor_w for n in (1, 2, 3)]
    assert floors == [1_380, 0, 1_380]


def test_a_phase_that_its_load_alone_exceeds_is_a_standing_violation_with_its_name() -> None:
    driver = a_busy_site(a_site((L1,), (L2,)))
    announce(driver, Dimension.L1_A, 4_000)
    assert list(driver.state.control.standing) == ["main@L1"]
    sealed = next(e for e in driver.evidence if e.type == "violation.standing" and e.body.get("phase") == "L1")
    assert sealed.reason == "LOAD_EXCEEDS_LIMIT"


def test_a_safe_share_below_the_least_that_charges_counts_and_makes_no_minimum() -> None:
    """One and a half amperes on three phases let no car charge; they must not reserve six."""
    driver = a_busy_site(a_site((L1, L2, L3), (L1, L2, L3), amperes=None, share_w=1_000))
    driver.step(forecast((2, 60, 6_900 + 5_500), ident="less"), now=at(2))
    driver.run_to(3)
    allowed = [driver.state.grants[f"main/garage/evse-{n}"].session.confirmed.at(driver.now) for n in (1, 2)]
    assert sorted(allowed) == [1_000, 4_500]


def test_the_picture_names_a_phase_limit_and_the_tree_shows_it() -> None:
    driver = a_busy_site(a_site((L1,)))
    announce(driver, Dimension.L2_W, 2_300)
    work = Work(driver.controller.facts, driver.state, driver.now)
    assert picture(work).limit(MAIN, 0, L2) == 10_000
    assert known_bounds(work, NodeId("main/garage")) == dict.fromkeys(Phase, 40_000)
    nodes = {n["node"]: n for n in describe_tree(driver.controller.facts, driver.state, driver.now)["nodes"]}
    assert nodes["main"]["limit_ma"] == {"L2": 10_000}
    assert nodes["main/garage"]["limit_w"] is None


def test_no_schedule_is_granted_beyond_the_last_edge_that_was_looked_at() -> None:
    driver = a_busy_site(a_site((L1,), amperes=None))
    spans = [(2 + n / 15, 2 + (n + 1) / 15, 50_000 + n % 2) for n in range(440)]
    driver.step(forecast(*spans, ident="fine"), now=at(2))
    driver.run_to(3)
    session = [c for c in driver.commands if c.layer is Layer.SESSION][-1]
    assert session.schedule.ends_at < at(3 + 256 / 15)


@pytest.mark.parametrize(("value", "complaints"), [(12_000, 0), (8_000, 1)])
def test_a_phase_limit_is_complained_about_when_the_load_alone_exceeds_it(value: int, complaints: int) -> None:
    """The house takes ten amperes on each phase."""
    driver = a_busy_site(a_site((L1,), (L2,)))
    driver.obey = False
    blocks = (Block(at(2), at(60), value, Dimension.L1_A),)
    driver.step(
        ev.EnvelopeRevised(
            DSO, MAIN, Direction.IMPORT, "oscp/G", BlockKind.PRIMARY, blocks, RevisionMode.OVERLAY, message("m"), "q"
        )
    )
    assert len([item for item in driver.last.outbox if item.kind == "compliance_error"]) == complaints


def test_a_load_on_one_phase_takes_nothing_from_the_others() -> None:
    tree = a_site((L1,), (L2,), amperes=None)
    house = Node(NodeId("main/house"), NodeKind.LOAD, reserve_w=Watts(4_600), phases=(L1,))
    driver = a_busy_site(Tree(tree.site, {**tree.nodes, house.path: house}, "t1"))
    announce(driver, Dimension.EACH_A, 32_000)
    assert [held_a(driver, n) for n in (1, 2)] == pytest.approx([12, 32], abs=0.01)


def test_phases_that_may_not_differ_keep_a_lone_car_low_and_say_why() -> None:
    tree = a_site((L1,), (L2,), amperes=None)
    main = Node(MAIN, NodeKind.GRID_CONNECTION, import_max_w=Watts(60_000), unbalance_max_ma=MilliAmperes(20_000))
    driver = a_busy_site(Tree(tree.site, {**tree.nodes, MAIN: main}, "t1"))
    assert [held_a(driver, n) for n in (1, 2)] == pytest.approx([20, 20], abs=0.01)
    found = explain(driver.controller.facts, driver.state, NodeId("main/garage/evse-1"), driver.now)
    assert (found["code"], found["binding"]) == ("STATIC_NODE", "STATIC_NODE main:unbalance_a:L1")
    assert "may differ by 20 A at most" in found["why"]


def test_a_car_that_would_unbalance_the_phases_even_at_its_least_is_told_why() -> None:
    tree = a_site((L1,), amperes=None)
    main = Node(MAIN, NodeKind.GRID_CONNECTION, import_max_w=Watts(60_000), unbalance_max_ma=MilliAmperes(5_000))
    driver = a_busy_site(Tree(tree.site, {**tree.nodes, MAIN: main}, "t1"))
    assert driver.target(1) == 0
    found = explain(driver.controller.facts, driver.state, NodeId("main/garage/evse-1"), driver.now)
    assert (found["code"], found["binding"]) == ("STATIC_NODE", "NOT_ADMITTED main:unbalance_a:L1")
    assert "its least, 1380 W, would be too much: the phases of main may differ by 5 A at most" in found["why"]
