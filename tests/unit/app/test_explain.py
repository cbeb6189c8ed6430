"""Which of the five classes of limits binds an EVSE, from which message, why, until when."""

from __future__ import annotations

import pytest

from gateway.app.explain import DEVICE, FALLBACK, FRESH, STALE, STATIC, explain
from gateway.domain import events as ev
from gateway.domain.envelope import BlockKind
from gateway.domain.errors import UnknownNode
from gateway.domain.ids import NodeId
from gateway.domain.timeline import rfc3339
from tests.unit.app.builders import DSO, Driver, a_tree, at, forecast, heartbeat, message, power

E1 = NodeId("main/garage/evse-1")


def charging(driver: Driver, *stations: int) -> Driver:
    """All stations are proven, a vehicle charges at some."""
    driver.connect(1, 2, 3)
    driver.plug(*stations)
    driver.run_to(2)
    return driver


def shown(driver: Driver, evse: NodeId = E1) -> dict:
    return explain(driver.controller.facts, driver.state, evse, driver.now)


def requests(found: dict) -> list[str]:
    return [v["request_id"] for v in found["envelope"]["values"]]


def test_a_fresh_envelope_binds_until_its_block_ends() -> None:
    driver = Driver()
    driver.step(heartbeat(600), forecast((0, 60, 20_000), ident="q-7"))
    found = shown(charging(driver, 1))
    assert (found["class"], found["code"], found["binding_node"]) == (FRESH, "ENVELOPE", "main")
    assert found["until"] == rfc3339(at(60))
    assert requests(found) == ["q-7"]
    assert "dso limits main" in found["why"]


def test_a_fallback_envelope_binds_until_its_own_blocks_end() -> None:
    driver = Driver()
    fallback = forecast((0, 120, 18_000), kind=BlockKind.FALLBACK, ident="q-fallback")
    driver.step(heartbeat(5), forecast((0, 60, 40_000)), fallback)
    charging(driver, 1)
    driver.run_to(6)
    found = shown(driver)
    assert (found["class"], found["code"]) == (FALLBACK, "ENVELOPE_FALLBACK")
    assert found["until"] == rfc3339(at(120))
    assert requests(found) == ["q-fallback"]
    assert "dso is silent" in found["why"]


def test_a_stale_policy_binds_until_somebody_ends_it() -> None:
    driver = Driver()
    fallback = forecast((0, 10, 18_000), kind=BlockKind.FALLBACK, ident="q-fallback")
    driver.step(heartbeat(5), forecast((0, 60, 40_000)), fallback)
    charging(driver, 1)
    driver.run_to(12)
    found = shown(driver)
    assert (found["class"], found["code"]) == (STALE, "STALE_POLICY")
    assert "fallback release" in found["until"]
    assert requests(found) == ["q-fallback"]


def test_an_ended_relation_leaves_a_stale_policy() -> None:
    driver = Driver()
    fallback = forecast((0, 120, 18_000), kind=BlockKind.FALLBACK, ident="q-fallback")
    driver.step(heartbeat(600), forecast((0, 60, 40_000)), fallback)
    charging(driver, 1)
    driver.step(ev.SourceEnded(DSO, "agreed", message("bye", at(2))))
    found = shown(driver)
    assert found["class"] == STALE
    assert "relation_ended" in found["why"]


def test_a_static_node_limit_binds_until_the_configuration_changes() -> None:
    driver = Driver(a_tree(garage_w=9_000, share_w=1_000))
    found = shown(charging(driver, 1))
    assert (found["class"], found["code"], found["binding_node"]) == (STATIC, "STATIC_NODE", "main/garage")
    assert found["why"] == "main/garage is built for 9000 W, shared by all below it"
    assert found["until"] == "until the configuration changes"
    assert found["envelope"] is None


def test_what_the_device_can_take_is_a_device_limit() -> None:
    found = shown(charging(Driver(), 1))
    assert (found["class"], found["code"]) == (DEVICE, "DEMAND")
    assert "22080 W at most" in found["why"]


def test_a_lying_station_is_a_device_limit_until_it_is_trusted_again() -> None:
    driver = Driver()
    driver.step(heartbeat(600), forecast((0, 600, 14_000)))
    charging(driver, 1)
    for second in range(0, 300, 10):
        now = at(2 + second / 60)
        driver.step(power(E1, 20_000, now), now=now)
    found = shown(driver)
    assert found["lying"] is True
    assert (found["class"], found["code"]) == (DEVICE, "DEVICE")
    assert "station trust" in found["until"]


def test_without_a_session_it_holds_its_share() -> None:
    driver = Driver()
    driver.connect(1)
    found = shown(driver)
    assert (found["class"], found["code"]) == (STATIC, "SAFE_SHARE")
    assert found["until"] == "until a vehicle asks"
    assert "holds the permanent share" in found["why"]


def test_a_share_that_nobody_confirmed_is_not_said_to_be_held() -> None:
    driver = Driver(obey=False)
    driver.connect(1)
    assert "not confirmed yet" in shown(driver)["why"]
    assert shown(driver)["proven"] is False


def test_a_minimum_that_does_not_fit_is_named_after_the_limit_that_leaves_too_little() -> None:
    driver = Driver(a_tree(share_w=0))
    driver.step(heartbeat(600), forecast((0, 60, 8_000 + 5_000), ident="q-tight"))
    charging(driver, 1, 2, 3)
    found = {f["target_w"]: f for f in (shown(driver, NodeId(f"main/garage/evse-{n}")) for n in (1, 2, 3))}
    refused = found[0]
    assert refused["binding"] == "NOT_ADMITTED"
    assert (refused["class"], refused["code"], refused["binding_node"]) == (FRESH, "ENVELOPE", "main")
    assert "too little is left under main for its least, 4140 W" in refused["why"]
    assert refused["until"] == rfc3339(at(60))
    assert requests(refused) == ["q-tight"]


def test_an_evse_that_nothing_was_decided_about_says_so() -> None:
    driver = Driver()
    driver.state = type(driver.state)()
    assert shown(driver)["class"] == ""
    assert "nothing was decided" in shown(driver)["why"]


def test_what_is_no_evse_has_nothing_to_explain() -> None:
    with pytest.raises(UnknownNode):
        shown(Driver(), NodeId("main/house"))
