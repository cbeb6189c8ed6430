"""The site's policy reaches the allocator, with what the cars said. The garage leaves about 40 kW to two of 22 kW."""

from __future__ import annotations

from datetime import datetime

from gateway.app.site import Controller
from gateway.app.state import SiteFacts
from gateway.domain import events as ev
from gateway.domain.envelope import BindingPolicy
from gateway.domain.ids import NodeId
from gateway.domain.measurement import Quantity
from gateway.domain.quantities import WattHours
from gateway.domain.sharing import Policy
from tests.unit.app.builders import DSO, MAIN, Driver, at, message

MOST_W = 22_080


def site(sharing: Policy | None = None) -> Driver:
    driver = Driver()
    driver.controller = Controller(
        SiteFacts(driver.tree, {(DSO, MAIN): BindingPolicy()}, {DSO: (MAIN,)}, driver.settings, sharing=sharing)
    )
    driver.connect(1, 2, 3)
    return driver


def plug(driver: Driver, index: int, departure_at: datetime | None = None, asked_wh: int | None = None) -> None:
    evse = NodeId(f"main/garage/evse-{index}")
    driver.step(ev.TelemetryTick((ev.Sample(evse, Quantity.E_IMPORT, 500_000, driver.now, driver.now),), f"m{index}"))
    asked = None if asked_wh is None else WattHours(asked_wh)
    start = message(f"start-{index}")
    driver.step(
        ev.SessionStarted(
            evse,
            f"tx-{index}",
            driver.now,
            start,
            meter_wh=WattHours(500_000),
            departure_at=departure_at,
            energy_asked_wh=asked,
        )
    )


def test_without_a_policy_and_without_departures_shares_are_equal() -> None:
    driver = site()
    plug(driver, 1)
    plug(driver, 2)
    driver.run_to(5)
    assert 15_000 < driver.target(1) < MOST_W
    assert abs(driver.target(1) - driver.target(2)) <= 1


def test_the_one_that_came_first_is_served_first_where_the_site_says_so() -> None:
    driver = site(Policy.FCFS)
    plug(driver, 2)
    driver.now = at(1)
    plug(driver, 1)
    driver.run_to(5)
    assert driver.target(2) == MOST_W
    assert 15_000 < driver.target(1) < MOST_W


def test_who_is_pressed_is_served_first_as_soon_as_cars_say_when_they_leave() -> None:
    driver = site()
    plug(driver, 1, departure_at=at(600), asked_wh=20_000)
    plug(driver, 2, departure_at=at(60), asked_wh=20_000)
    driver.run_to(5)
    assert driver.target(2) == MOST_W
    assert 15_000 < driver.target(1) < MOST_W


def test_what_was_delivered_makes_a_car_patient() -> None:
    driver = site()
    plug(driver, 1, departure_at=at(70), asked_wh=20_000)
    plug(driver, 2, departure_at=at(60), asked_wh=20_000)
    driver.run_to(2)
    assert (driver.target(1) < MOST_W, driver.target(2)) == (True, MOST_W)
    charged = ev.Sample(NodeId("main/garage/evse-2"), Quantity.E_IMPORT, 519_000, driver.now, driver.now)
    driver.step(ev.TelemetryTick((charged,), "later"))
    driver.run_to(10)
    assert (driver.target(1), driver.target(2) < MOST_W) == (MOST_W, True)


def test_a_policy_of_the_site_holds_whatever_cars_say() -> None:
    driver = site(Policy.EQUAL)
    plug(driver, 1, departure_at=at(600), asked_wh=20_000)
    plug(driver, 2, departure_at=at(60), asked_wh=20_000)
    driver.run_to(5)
    assert abs(driver.target(1) - driver.target(2)) <= 1
