"""A station that says it allows more than it accepted."""

from __future__ import annotations

from msgspec.structs import replace

from gateway.app.ledger import worst_case_w
from gateway.domain import events as ev
from gateway.domain.effects import Layer
from gateway.domain.ids import NodeId
from tests.unit.app.builders import Driver, at, forecast, heartbeat

E1 = NodeId("main/garage/evse-1")


def a_refutation(driver: Driver, generation: int = 1) -> ev.ClaimRefuted:
    return ev.ClaimRefuted(E1, generation, (("allowed", "6.5 A"), ("reported", "32 A")))


def worst(driver: Driver) -> int:
    return worst_case_w(driver.state.grants[E1], driver.tree.node(E1).evse, driver.now, driver.settings, 0)


def a_site() -> Driver:
    driver = Driver()
    driver.step(heartbeat(600), forecast((0, 600, 30_000)))
    driver.connect(1)
    driver.plug(1)
    return driver


def test_it_counts_at_its_most_and_says_why() -> None:
    driver = a_site()
    driver.obey = False
    driver.step(a_refutation(driver), now=at(1))
    assert worst(driver) == 22_080
    assert driver.state.grants[E1].uncommandable_since == at(1)
    assert driver.types().count("device.unproven") == 1


def test_a_repetition_adds_nothing() -> None:
    driver = a_site()
    driver.obey = False
    for minute in (1, 1.1):
        driver.step(a_refutation(driver), now=at(minute))
    assert driver.types().count("device.unproven") == 1


def test_it_is_told_its_share_again_and_counts_by_it_once_it_agrees() -> None:
    driver = a_site()
    driver.step(a_refutation(driver), now=at(1))
    driver.run_to(1 + (driver.settings.retry_s + 1) / 60)
    assert driver.commands[-2].layer is Layer.SAFE_SHARE
    assert worst(driver) < 22_080
    assert driver.state.grants[E1].uncommandable_since is None


def test_what_an_old_connection_said_counts_no_more() -> None:
    driver = a_site()
    before = replace(driver.state.grants[E1])
    driver.step(a_refutation(driver, generation=0), now=at(1))
    assert driver.state.grants[E1] == before
