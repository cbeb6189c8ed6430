"""Another configuration while sessions run: nothing is lost, nothing is counted too low."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.adopt import is_told
from gateway.app.ledger import installed
from gateway.app.limits import picture
from gateway.app.site import Controller, SiteFacts
from gateway.app.state import Work
from gateway.domain import events as ev
from gateway.domain.ids import NodeId, StationId
from gateway.domain.lifecycle import State
from gateway.domain.quantities import Watts
from gateway.domain.topology import EvseFacts, Node, NodeKind, Tree
from tests.unit.app.builders import DSO, MAIN, Driver, a_tree, evse_node, forecast, heartbeat

E1, E3 = NodeId("main/garage/evse-1"), NodeId("main/garage/evse-3")
GARAGE = NodeId("main/garage")


def charging() -> Driver:
    driver = Driver(a_tree(3, main_w=60_000))
    driver.step(heartbeat(600), forecast((0, 600, 50_000)))
    driver.connect(1, 2, 3)
    driver.plug(1, 2, 3)
    driver.run_to(2)
    return driver


def another(driver: Driver, change: Callable[[dict[NodeId, Node]], None], *, bound: bool = True) -> None:
    """Give the controller another tree, as a reload does."""
    nodes = dict(driver.tree.nodes)
    change(nodes)
    driver.tree = Tree(driver.tree.site, nodes, driver.tree.version + "'")
    facts = driver.controller.facts
    driver.controller = Controller(SiteFacts(driver.tree, facts.policies if bound else {}, facts.reporting))
    driver.step(ev.TopologyChanged((("changed", "nodes"),), "cfg2"))


def without(path: NodeId) -> Callable[[dict[NodeId, Node]], None]:
    def change(nodes: dict[NodeId, Node]) -> None:
        for found in [p for p in nodes if p == path or p.startswith(f"{path}/")]:
            del nodes[found]

    return change


def work_of(driver: Driver) -> Work:
    return Work(driver.controller.facts, driver.state, driver.now)


def test_an_evse_that_leaves_is_told_to_take_nothing_before_it_is_forgotten() -> None:
    driver = charging()
    assert driver.target(3) > 0
    assert not is_told(driver.state, E3)
    driver.step(ev.EvsesLeaving((E3,)))
    grant = driver.state.grants[E3]
    assert (grant.share.confirmed.floor_w, grant.session.confirmed.at(driver.now)) == (0, 0)
    assert is_told(driver.state, E3)
    another(driver, without(E3))
    assert E3 not in driver.state.grants
    assert E3 not in driver.state.sessions
    assert driver.state.control.leaving == ()
    removed = next(e for e in driver.evidence if e.type == "evse.removed")
    assert removed.body["counts_w"] == 0


def test_what_leaves_makes_room_for_the_others() -> None:
    driver = charging()
    before = driver.target(1)
    driver.step(ev.EvsesLeaving((E3,)))
    another(driver, without(E3))
    driver.run_to(4)
    assert driver.target(1) > before


def test_what_could_not_be_told_counts_until_its_schedules_have_ended() -> None:
    driver = charging()
    held_w = driver.state.grants[E3].session.confirmed.at(driver.now)
    driver.step(ev.StationDisconnected(StationId("CP-3"), 1, "gone"))
    driver.step(ev.EvsesLeaving((E3,)))
    assert is_told(driver.state, E3), "nobody can tell it anything, so nobody waits for it"
    another(driver, without(E3))
    gone = driver.state.control.departing[E3]
    assert (gone.node, gone.power_w) == (GARAGE, held_w)
    assert picture(work_of(driver)).own_loads[GARAGE].power_w == held_w
    assert driver.target(1) + driver.target(2) + held_w <= 42_000
    driver.run_to((gone.until - driver.now) / timedelta(minutes=1) + 3)
    assert driver.state.control.departing == {}
    assert picture(work_of(driver)).own_loads[GARAGE].power_w == 0


def test_what_departs_is_counted_above_when_its_circuit_goes_with_it() -> None:
    driver = charging()
    driver.step(ev.StationDisconnected(StationId("CP-3"), 1, "gone"))
    another(driver, without(GARAGE))
    assert {gone.node for gone in driver.state.control.departing.values()} == {MAIN}
    assert driver.tree.evses() == ()


def test_an_evse_that_is_new_is_proven_by_nothing_and_counts_at_its_most() -> None:
    driver = charging()
    another(driver, lambda nodes: nodes.update({(new := evse_node(4)).path: new}))
    driver.run_to(3)
    assert driver.state.grants["main/garage/evse-4"].share.confirmed is None
    assert sum(driver.target(n) for n in (1, 2, 3)) <= 44_000 - 22_080
    driver.connect(4)
    driver.run_to(5)
    assert sum(driver.target(n) for n in (1, 2, 3)) > 44_000 - 22_080


def test_another_station_at_an_evse_starts_unproven() -> None:
    driver = charging()
    facts = EvseFacts(StationId("CP-9"), 1, safe_share_w=Watts(4_140))
    another(driver, lambda nodes: nodes.update({E1: Node(E1, NodeKind.EVSE, evse=facts)}))
    assert driver.state.grants[E1].share.confirmed is None
    assert "evse.reassigned" in driver.types()
    assert "CP-1" not in driver.state.stations
    assert "CP-9" in driver.state.stations


def test_a_lower_limit_holds_at_once() -> None:
    driver = charging()
    another(driver, lambda nodes: nodes.update({GARAGE: Node(GARAGE, NodeKind.CIRCUIT, import_max_w=Watts(20_000))}))
    driver.step(ev.DeadlineReached(), now=driver.now + timedelta(seconds=driver.settings.guard_s))
    assert sum(driver.target(n) for n in (1, 2, 3)) <= 20_000
    assert (
        sum(driver.state.grants[f"main/garage/evse-{n}"].session.confirmed.at(driver.now) for n in (1, 2, 3)) <= 20_000
    )


def test_an_envelope_without_its_binding_or_node_is_withdrawn() -> None:
    driver = charging()
    another(driver, lambda nodes: None, bound=False)
    assert [(e.source, e.state, e.cause) for e in driver.state.envelopes.values()] == [
        (DSO, State.WITHDRAWN, "binding_removed")
    ]


def test_the_change_is_evidence_with_both_versions_and_what_changed() -> None:
    driver = charging()
    another(driver, without(E3))
    sealed = next(e for e in driver.evidence if e.type == "topology.changed")
    assert sealed.body == {
        "before": "t1",
        "after": "t1'",
        "changes": [["changed", "nodes"]],
        "changes_total": 1,
        "config_sha256": "cfg2",
    }
    assert driver.state.control.topology == "t1'"


def test_a_state_that_fell_back_behind_the_change_adopts_it_again() -> None:
    driver = charging()
    old = driver.state
    another(driver, without(E3))
    driver.state = old
    driver.step(ev.DeadlineReached())
    assert E3 not in driver.state.grants
    assert driver.state.control.topology == "t1'"


@pytest.mark.parametrize("refusal", [ev.TopologyRefused(("line 3: no",))])
def test_a_refusal_is_evidence_and_changes_nothing(refusal: ev.TopologyRefused) -> None:
    driver = charging()
    grants = driver.state.grants
    driver.step(refusal)
    assert driver.state.grants == grants
    assert [(e.type, e.body["problems"]) for e in driver.evidence[-1:]] == [("topology.refused", ["line 3: no"])]


def test_what_was_under_way_from_an_evse_that_is_gone_is_recorded_and_no_more() -> None:
    driver = charging()
    another(driver, without(E3))
    driver.step(ev.EvseStatus(E3, occupied=True, wants_power=True))
    assert driver.evidence[-1].type == "evse.unknown"
    assert E3 not in driver.state.grants


def test_without_a_change_a_start_adopts_silently() -> None:
    assert "topology.changed" not in Driver().types()


@settings(max_examples=25, deadline=None)
@given(
    leaving=st.sets(st.integers(1, 4), max_size=4),
    deaf=st.sets(st.integers(1, 4), max_size=4),
    told=st.booleans(),
    garage_w=st.integers(20_000, 60_000),
)
def test_taking_evses_out_never_lets_the_rest_draw_what_those_may_still_take(
    leaving: set[int], deaf: set[int], told: bool, garage_w: int
) -> None:
    """At every coming instant: what is installed anywhere, also at what is gone, fits the circuit that fed it."""
    driver = Driver(a_tree(4, main_w=100_000, garage_w=garage_w, share_w=0))
    driver.step(heartbeat(600), forecast((0, 600, 90_000)))
    driver.connect(1, 2, 3, 4)
    driver.plug(1, 2, 3, 4)
    driver.run_to(2)
    for index in sorted(deaf):
        driver.step(ev.StationDisconnected(StationId(f"CP-{index}"), 1, "gone"))
    paths = tuple(NodeId(f"main/garage/evse-{index}") for index in sorted(leaving))
    if told:
        driver.step(ev.EvsesLeaving(paths))
    left = {path: driver.state.grants[path] for path in paths}

    def all_out(nodes: dict[NodeId, Node]) -> None:
        for path in paths:
            del nodes[path]

    another(driver, all_out)
    for minute in range(3, 36, 3):
        driver.run_to(minute)
        gone_w = sum(max((s.at(driver.now) for s in installed(g.session)), default=0) for g in left.values())
        kept = [g for path, g in driver.state.grants.items() if path not in left]
        kept_w = sum(max((s.at(driver.now) for s in installed(g.session)), default=0) for g in kept)
        assert gone_w + kept_w <= garage_w
