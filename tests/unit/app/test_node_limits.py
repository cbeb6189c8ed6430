"""What a node is built for and what is left of it: derating by season and heat, apparent power, reserves by time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app.explain import STATIC, explain
from gateway.app.limits import known_bounds, picture
from gateway.app.state import Work
from gateway.domain import events as ev
from gateway.domain.calendar import QUARTER, WHOLE, DayProfile, Derate, Hot, Season, quarters
from gateway.domain.ids import NodeId, SiteId
from gateway.domain.measurement import Quality, Quantity
from gateway.domain.quantities import MilliAmperes, Phase, Watts
from gateway.domain.topology import Node, NodeKind, Tree
from tests.unit.app.builders import MAIN, T0, Driver, at, evse_node

BERLIN = ZoneInfo("Europe/Berlin")
GARAGE = NodeId("main/garage")
HOUSE = NodeId("main/house")
E1 = NodeId("main/garage/evse-1")


def a_site(garage: Node, house: Node | None = None, share_w: int = 0) -> Tree:
    nodes = [
        Node(MAIN, NodeKind.GRID_CONNECTION, import_max_w=Watts(100_000)),
        garage,
        house or Node(HOUSE, NodeKind.LOAD, reserve_w=Watts(1_000)),
        evse_node(1, share_w),
        evse_node(2, share_w),
    ]
    return Tree(SiteId("depot"), {node.path: node for node in nodes}, "t1")


def a_garage(**fields: object) -> Node:
    return Node(GARAGE, NodeKind.CIRCUIT, **fields)  # type: ignore[arg-type]  # fields of Node by name


def charging(tree: Tree, now: datetime = T0) -> Driver:
    driver = Driver(tree=tree, now=now)
    driver.connect(1, 2)
    driver.plug(1, 2)
    pass_time(driver, 60)
    return driver


def pass_time(driver: Driver, seconds: float) -> None:
    end = driver.now + timedelta(seconds=seconds)
    while driver.state.next_deadline <= end:
        driver.step(ev.DeadlineReached(), now=max(driver.state.next_deadline, driver.now + timedelta(milliseconds=1)))
    driver.step(ev.DeadlineReached(), now=end)


def given_w(driver: Driver) -> int:
    return driver.target(1) + driver.target(2)


def heat(driver: Driver, celsius: int, quality: Quality = Quality.GOOD) -> None:
    sample = ev.Sample(GARAGE, Quantity.TEMPERATURE, celsius * 100, driver.now, driver.now, quality)
    driver.step(ev.TelemetryTick((sample,), f"heat-{celsius}-{driver.now}"))


def why(driver: Driver) -> dict:
    return explain(driver.controller.facts, driver.state, E1, driver.now)


def test_a_derated_limit_binds_under_its_own_code() -> None:
    driver = charging(a_site(a_garage(import_max_w=Watts(20_000), derate=Derate(UTC, 800))))
    assert given_w(driver) == 16_000
    found = why(driver)
    assert (found["class"], found["code"], found["binding_node"]) == (STATIC, "DERATE", GARAGE)
    assert found["why"] == "main/garage is derated to 80 % of what it is built for: 16000 W, shared by all below it"
    assert found["until"] == "until the configuration changes"


def test_derating_holds_for_currents_too() -> None:
    limits = dict.fromkeys(Phase, MilliAmperes(40_000))
    driver = charging(a_site(a_garage(import_max_ma=limits, derate=Derate(UTC, 500))))
    assert driver.target(1) == driver.target(2) == 6_900
    assert why(driver)["binding"].startswith("DERATE main/garage:derated_a:L")
    assert "20 A on L" in why(driver)["why"]


def test_apparent_power_allows_its_product_with_the_assumed_power_factor() -> None:
    driver = charging(a_site(a_garage(apparent_max_va=20_000)))
    assert given_w(driver) == 19_600
    assert why(driver)["code"] == "STATIC_NODE"
    assert "19600 W (20000 VA at a power factor of 0.98)" in why(driver)["why"]


def test_of_power_and_apparent_power_the_tighter_binds() -> None:
    tight = a_garage(import_max_w=Watts(15_000), apparent_max_va=20_000, assumed_pf=900)
    assert given_w(charging(a_site(tight))) == 15_000


def test_heat_lowers_a_limit_at_once_and_gives_it_back() -> None:
    derate = Derate(UTC, heats=(Hot(3_000, 900), Hot(4_000, 500)))
    driver = charging(a_site(a_garage(import_max_w=Watts(20_000), derate=derate)))
    assert given_w(driver) == 10_000, "no temperature is known yet: the lowest holds"
    heat(driver, 25)
    pass_time(driver, 60)
    assert given_w(driver) == 20_000
    heat(driver, 35)
    assert given_w(driver) == 18_000
    assert why(driver)["until"] == "until its season or temperature changes"


@pytest.mark.parametrize("quality", [Quality.GOOD, Quality.BAD])
def test_a_temperature_that_is_old_or_bad_is_none(quality: Quality) -> None:
    derate = Derate(UTC, heats=(Hot(4_000, 500),))
    driver = charging(a_site(a_garage(import_max_w=Watts(20_000), derate=derate)))
    heat(driver, 20)
    pass_time(driver, 30)
    assert given_w(driver) == 20_000
    if quality is Quality.BAD:
        heat(driver, 20, Quality.BAD)
    else:
        pass_time(driver, driver.settings.temperature_s)
    assert given_w(driver) == 10_000


def test_a_season_is_planned_for_before_it_begins_and_ends_at_local_midnight() -> None:
    before = datetime(2026, 5, 31, 21, 50, tzinfo=UTC)  # ten minutes before June in Berlin
    derate = Derate(BERLIN, seasons=(Season((6, 1), (8, 31), 700),))
    driver = charging(a_site(a_garage(import_max_w=Watts(20_000), derate=derate)), before)
    view = picture(Work(driver.controller.facts, driver.state, driver.now))
    june = datetime(2026, 5, 31, 22, 0, tzinfo=UTC)
    assert june in view.instants
    assert [view.limit_w(GARAGE, view.index(t)) for t in (before, june)] == [20_000, 14_000]
    installed = [driver.state.grants[f"main/garage/evse-{n}"].session.confirmed for n in (1, 2)]
    assert sum(schedule.at(before + timedelta(minutes=5)) for schedule in installed) == 20_000
    assert sum(schedule.at(june) for schedule in installed) <= 14_000, "it stands in what is installed"
    pass_time(driver, 600)
    assert given_w(driver) == 14_000


def test_safe_shares_fit_the_lowest_that_derating_can_leave() -> None:
    derate = Derate(UTC, seasons=(Season((12, 1), (12, 31), 400),), heats=(Hot(4_000, 500),))
    driver = Driver(a_site(a_garage(import_max_w=Watts(20_000), derate=derate), share_w=4_140))
    work = Work(driver.controller.facts, driver.state, driver.now)
    assert known_bounds(work, GARAGE) == {None: 4_000}
    driver.connect(1, 2)
    floors = [driver.state.grants[f"main/garage/evse-{n}"].share.confirmed.floor_w for n in (1, 2)]
    assert sum(floors) <= 4_000


def test_a_reserve_by_the_time_of_day_is_kept_free_before_it_begins() -> None:
    profile = DayProfile(UTC, ((0, Watts(1_000)), (18 * 60, Watts(9_000)), (20 * 60, Watts(2_000))))
    house = Node(HOUSE, NodeKind.LOAD, reserve_w=profile.peak_w, reserve_profile=profile)
    tree = a_site(a_garage(), house)
    tree = Tree(tree.site, {**tree.nodes, MAIN: Node(MAIN, NodeKind.GRID_CONNECTION, import_max_w=Watts(30_000))}, "t1")
    driver = charging(tree, datetime(2026, 3, 1, 17, 0, tzinfo=UTC))
    assert given_w(driver) == 29_000
    pass_time(driver, 30 * 60)
    assert given_w(driver) == 21_000, "a schedule granted now reaches into the evening"
    pass_time(driver, 150 * 60)
    assert given_w(driver) == 28_000


def test_nothing_is_asked_of_the_calendar_where_nothing_varies() -> None:
    driver = Driver()
    assert driver.tree.varying == ()
    assert driver.state.next_deadline > at(60)


def test_a_profile_steps_by_the_wall_clock_on_the_day_that_has_an_hour_less() -> None:
    profile = DayProfile(BERLIN, ((0, Watts(1)), (2 * 60 + 30, Watts(2)), (3 * 60, Watts(3))))
    start = datetime(2026, 3, 29, 0, 45, tzinfo=UTC)
    told = [profile.at(start + QUARTER * n) for n in range(3)]
    assert told == [1, 3, 3], "half past two does not exist on that day"


def test_before_its_first_step_a_profile_has_its_last() -> None:
    profile = DayProfile(UTC, ((6 * 60, Watts(5)), (22 * 60, Watts(2))))
    assert [profile.at(T0.replace(hour=hour)) for hour in (3, 6, 23)] == [2, 5, 2]


def test_a_season_may_run_over_the_turn_of_the_year() -> None:
    winter = Season((11, 15), (2, 28), 900)
    assert [winter.covers(*day) for day in ((11, 14), (11, 15), (1, 1), (2, 28), (3, 1))] == [
        False,
        True,
        True,
        True,
        False,
    ]


factors = st.integers(1, WHOLE)


@given(
    factor=factors,
    seasons=st.lists(st.builds(Season, st.just((1, 1)), st.tuples(st.integers(1, 12), st.integers(1, 28)), factors)),
    heats=st.lists(st.builds(Hot, st.integers(-5_000, 9_000), factors)),
    minutes=st.integers(0, 600_000),
    hotter=st.tuples(st.integers(-6_000, 10_000), st.integers(0, 5_000)),
)
def test_derating_never_falls_below_its_least_and_heat_never_raises_it(
    factor: int, seasons: list[Season], heats: list[Hot], minutes: int, hotter: tuple[int, int]
) -> None:
    derate = Derate(BERLIN, factor, tuple(seasons), tuple(heats))
    instant, (warm, more) = T0 + timedelta(minutes=minutes), hotter
    assert derate.least() <= derate.at(instant) <= derate.at(instant, warm + more) <= derate.at(instant, warm) <= factor


@given(seconds=st.integers(0, 10_000_000), length=st.integers(0, 20_000))
def test_quarters_are_all_between_two_instants(seconds: int, length: int) -> None:
    after = T0 + timedelta(seconds=seconds)
    until = after + timedelta(seconds=length)
    found = quarters(after, until)
    assert all(after < q <= until and q.minute % 15 == q.second == 0 for q in found)
    assert len(found) == int(until.timestamp() // 900 - after.timestamp() // 900)
