"""A station's clock that turns out to be wrong while it is connected, and is set right again."""

from __future__ import annotations

from gateway.app.ledger import worst_case_w
from gateway.domain import events as ev
from gateway.domain.effects import Layer
from gateway.domain.ids import NodeId, StationId
from tests.unit.app.builders import Driver, a_tree, at, forecast, heartbeat, message

E1 = NodeId("main/garage/evse-1")


def compared(ahead_s: int, generation: int = 1) -> ev.ClockCompared:
    return ev.ClockCompared(StationId("CP-1"), generation, ahead_s, message("meter"))


def a_site() -> Driver:
    """A car that charges, by a schedule that falls in half an hour."""
    driver = Driver(tree=a_tree(1))
    driver.step(heartbeat(600), forecast((0, 600, 30_000)))
    driver.connect(1)
    driver.plug(1)
    driver.run_to(1)
    assert driver.state.grants[E1].session.confirmed.edges
    return driver


def test_it_falls_to_its_share_at_once_and_says_why() -> None:
    driver = a_site()
    (command, *_) = driver.step(compared(-120), now=at(2))
    assert (command.layer, command.schedule.edges, command.tightens) == (Layer.SESSION, (), True)
    assert driver.types().count("device.clock_wrong") == 1
    driver.run_to(5)
    assert driver.target(1) == 4_140


def test_until_it_answers_its_schedule_counts_as_never_ending() -> None:
    driver = a_site()
    held = driver.state.grants[E1].session.confirmed.at(driver.now)
    driver.obey = False
    driver.step(compared(-120), now=at(2))
    facts = driver.tree.node(E1).evse
    assert worst_case_w(driver.state.grants[E1], facts, at(600), driver.settings, 0) == held


def test_within_the_guard_nothing_changes_but_the_evidence() -> None:
    driver = a_site()
    before = driver.target(1)
    driver.step(compared(driver.settings.guard_s), now=at(2))
    assert driver.types().count("station.clock") == 1
    assert "device.clock_wrong" not in driver.types()
    assert driver.target(1) == before


def test_a_clock_that_is_right_again_gives_back_what_it_took() -> None:
    driver = a_site()
    before = driver.target(1)
    driver.step(compared(-120), now=at(2))
    driver.run_to(5)
    driver.step(compared(0))
    driver.run_to(10)
    assert driver.types().count("device.clock_right") == 1
    assert driver.target(1) == before


def test_what_an_old_connection_said_counts_no_more() -> None:
    driver = a_site()
    driver.step(compared(-120, generation=99), now=at(2))
    assert "station.clock" not in driver.types()
    assert not driver.state.grants[E1].wrong_clock
