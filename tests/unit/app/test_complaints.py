"""What cannot be kept is announced to the source that asked for it, with the message it asked in."""

from __future__ import annotations

from gateway.domain.effects import OutboxItem
from gateway.domain.envelope import BlockKind
from tests.unit.app.builders import Driver, at, forecast, heartbeat, power


def complaints(driver: Driver) -> list[OutboxItem]:
    """The errors owed by the last step."""
    assert driver.last is not None
    return [item for item in driver.last.outbox if item.kind == "compliance_error"]


def a_site() -> Driver:
    driver = Driver()
    driver.step(heartbeat(60))
    return driver


def test_a_block_below_the_building_alone_is_announced_with_the_request_that_set_it() -> None:
    driver = a_site()
    driver.step(forecast((0, 30, 5_000), ident="cut-1"))
    [error] = complaints(driver)
    assert (error.peer, error.correlation) == ("dso", "cut-1")
    assert error.body["message"] == "reason=inflexible_load expected=8000W limit=5000W"
    assert [block["value"] for block in error.body["blocks"]] == [8_000]


def test_a_block_that_is_still_to_come_is_announced_when_it_is_received() -> None:
    driver = a_site()
    driver.step(forecast((0, 20, 40_000), (20, 30, 5_000), ident="later"))
    [error] = complaints(driver)
    assert [block["start"] for block in error.body["blocks"]] == ["2026-03-01T17:20:00Z"]


def test_a_limit_that_can_be_kept_is_no_complaint() -> None:
    driver = a_site()
    driver.step(forecast((0, 30, 30_000)))
    assert complaints(driver) == []


def test_the_same_shortfall_is_announced_once_and_a_grown_one_again() -> None:
    driver = a_site()
    driver.step(forecast((0, 30, 5_000), ident="cut-1"))
    driver.step(power("main/house", 7_000, at(1)), now=at(1))
    assert complaints(driver) == []
    driver.step(power("main/house", 12_000, at(2)), now=at(2))
    assert [error.correlation for error in complaints(driver)] == ["cut-1"]


def test_what_cleared_may_be_announced_again() -> None:
    driver = a_site()
    driver.step(power("main/house", 12_000, at(0)))
    driver.step(forecast((0, 30, 10_000), ident="cut-1"))
    assert len(complaints(driver)) == 1
    driver.step(power("main/house", 3_000, at(1)), now=at(1))
    driver.step(power("main/house", 12_000, at(2)), now=at(2))
    assert len(complaints(driver)) == 1


def test_a_fallback_is_complained_about_only_while_it_is_in_force() -> None:
    driver = a_site()
    driver.step(forecast((0, 60, 5_000), kind=BlockKind.FALLBACK, ident="fallback-1"))
    assert complaints(driver) == []
