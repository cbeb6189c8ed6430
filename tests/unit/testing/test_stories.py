from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.testing.physics import BuildingLoad
from gateway.testing.stories import STORIES
from gateway.testing.stories.evening_peak import RESERVE_W, STATIONS, figures, site

START = datetime(2031, 3, 1, 17, 45, tzinfo=UTC)
SEEDS = st.integers(0, 100_000)


@given(SEEDS)
def test_the_safe_shares_and_the_building_always_fit_below_the_fallback(seed: int) -> None:
    drawn, house = figures(seed, START), BuildingLoad(seed)
    worst = max(house.power_w(START + timedelta(minutes=m)) for m in range(41))
    shares = sum(station.safe_share_w for station in STATIONS)
    assert shares + max(worst * 1.05, worst + 300, RESERVE_W) <= drawn.fallback_w
    assert drawn.fallback_w <= drawn.surprise_w < drawn.cut_w


@given(SEEDS)
def test_every_car_is_there_before_the_cut_and_stays_hungry(seed: int) -> None:
    drawn = figures(seed, START)
    assert {car.station for car in drawn.cars} == {station.id for station in STATIONS}
    assert all(START < car.arrives < START + timedelta(minutes=10) for car in drawn.cars)
    assert all(car.wants_wh >= 18_000 for car in drawn.cars)


def test_another_seed_is_another_evening() -> None:
    assert figures(1, START) != figures(2, START)
    assert figures(1, START) == figures(1, START)


def test_stories_are_found_by_their_own_name() -> None:
    assert all(name == story.name for name, story in STORIES.items())


def test_both_versions_of_the_station_protocol_play_along() -> None:
    assert sorted(station.version for station in site(1).stations) == ["1.6", "1.6", "2.0.1", "2.0.1"]
