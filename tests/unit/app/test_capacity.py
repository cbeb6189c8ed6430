"""What a node can carry, what of it is committed, free and taken away, now and in the coming time."""

from __future__ import annotations

from datetime import UTC

import pytest

from gateway.app.capacity import describe_capacity
from gateway.app.views import describe_tree
from gateway.domain.calendar import Derate
from gateway.domain.errors import UnknownNode
from gateway.domain.ids import NodeId
from gateway.domain.quantities import MilliAmperes, Phase, Watts
from gateway.domain.timeline import rfc3339
from gateway.domain.topology import Node, NodeKind, Tree
from tests.unit.app.builders import MAIN, Driver, a_tree, at, forecast, heartbeat

GARAGE = NodeId("main/garage")
LOAD_W = 8_000


def charging(tree: Tree | None = None) -> Driver:
    driver = Driver(tree or a_tree(3, main_w=60_000, garage_w=44_000))
    driver.step(heartbeat(600), forecast((0, 20, 30_000), (20, 600, 50_000)))
    driver.connect(1, 2, 3)
    driver.plug(1, 2)
    driver.run_to(2)
    return driver


def looked(driver: Driver, node: NodeId = MAIN, minutes: int = 30) -> dict:
    return describe_capacity(driver.controller.facts, driver.state, node, driver.now, minutes)


def test_a_node_says_what_holds_what_is_committed_free_and_taken_away() -> None:
    driver = charging()
    now = looked(driver)["capacity"][0]
    grants = driver.state.grants.values()
    held_w = sum(
        max(g.share.confirmed.floor_w, g.session.confirmed.at(driver.now) if g.session.confirmed else 0) for g in grants
    )
    assert now["from"] == rfc3339(driver.now)
    assert (now["current_w"], now["code"], now["curtailed_w"]) == (30_000, "ENVELOPE", 30_000)
    assert now["committed_w"] == held_w + LOAD_W
    assert now["available_w"] == 30_000 - now["committed_w"]
    assert now["phases"] is None


def test_a_coming_block_is_looked_at_from_its_beginning() -> None:
    coming = [(step["from"], step["current_w"]) for step in looked(charging())["capacity"]]
    assert (rfc3339(at(20)), 50_000) in coming


def test_what_is_free_below_is_no_more_than_what_is_free_above() -> None:
    driver = charging()
    here, above = looked(driver, GARAGE)["capacity"][0], looked(driver)["capacity"][0]
    assert here["current_w"] == 44_000
    assert here["committed_w"] == above["committed_w"] - LOAD_W
    assert here["available_w"] == above["available_w"] < 44_000 - here["committed_w"]


def test_what_sessions_are_denied_is_told() -> None:
    driver = charging()
    given_w = driver.target(1) + driver.target(2)
    assert looked(driver)["denied_w"] == 2 * 22_080 - given_w > 0
    assert looked(driver, NodeId("main/house"))["denied_w"] == 0


def test_what_derating_takes_away_is_curtailed_by_phase_too() -> None:
    tree = a_tree(3)
    limits = dict.fromkeys(Phase, MilliAmperes(80_000))
    garage = Node(GARAGE, NodeKind.CIRCUIT, Watts(44_000), import_max_ma=limits, derate=Derate(UTC, 750))
    driver = charging(Tree(tree.site, {**tree.nodes, GARAGE: garage}, "t1"))
    now = looked(driver, GARAGE)["capacity"][0]
    assert (now["current_w"], now["curtailed_w"], now["code"]) == (33_000, 11_000, "DERATE")
    phase = now["phases"]["L2"]
    assert (phase["current_ma"], phase["curtailed_ma"], phase["code"]) == (60_000, 20_000, "DERATE")
    assert phase["available_ma"] == 60_000 - phase["committed_ma"]


def test_where_nothing_limits_a_node_what_is_above_it_does() -> None:
    driver = charging(a_tree(3, main_w=60_000, garage_w=None))
    now = looked(driver, GARAGE)["capacity"][0]
    assert (now["current_w"], now["source"], now["curtailed_w"]) == (None, None, None)
    assert now["available_w"] == looked(driver)["capacity"][0]["available_w"]


def test_the_tree_has_it_for_every_node() -> None:
    driver = charging()
    nodes = describe_tree(driver.controller.facts, driver.state, driver.now)["nodes"]
    by_path = {node["node"]: node for node in nodes}
    assert by_path["main"]["capacity"][0] == looked(driver)["capacity"][0]
    assert all(node["capacity"] for node in nodes)


def test_a_node_that_is_not_there_has_none() -> None:
    with pytest.raises(UnknownNode):
        looked(charging(), NodeId("main/nowhere"))
