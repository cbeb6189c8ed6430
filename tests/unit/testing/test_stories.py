from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.testing.stories import STORIES, crash, depot, dso_silent, evening_peak, lying_station
from gateway.testing.stories.depot import FALLBACK_W, RESERVE_W, SHARE_W, STATIC_W, STATIONS, minute
from gateway.testing.story import Story

START = datetime(2031, 3, 1, 17, 45, tzinfo=UTC)
SEEDS = st.integers(0, 100_000)
FIGURES = [evening_peak.figures, dso_silent.figures, lying_station.figures, crash.figures]
LIAR_W = 32 * 230 * 3


def counted_w(story: Story, seed: int) -> float:
    """The most that a cautious site counts for the building during the story."""
    house = story.house(seed)
    worst = max(house.power_w(START + timedelta(minutes=m)) for m in range(40))
    reserve = next(node["reserve_w"] for node in story.site(seed).nodes if "reserve_w" in node)
    return max(worst * 1.05, worst + 300, reserve)


@given(SEEDS)
def test_the_safe_shares_and_the_building_always_fit_below_the_fallback(seed: int) -> None:
    for story in STORIES.values():
        shares = sum(station.safe_share_w for station in story.site(seed).stations)
        assert shares + counted_w(story, seed) <= FALLBACK_W


@given(SEEDS)
def test_every_cut_of_the_evening_is_deeper_than_the_one_before_and_above_the_fallback(seed: int) -> None:
    drawn = evening_peak.figures(seed, START)
    assert FALLBACK_W <= drawn.surprise_w < drawn.cut_w < STATIC_W


@given(SEEDS)
def test_the_silence_is_over_before_the_dso_speaks_and_the_limits_differ(seed: int) -> None:
    drawn = dso_silent.figures(seed, START)
    assert FALLBACK_W < drawn.after_w < drawn.usual_w < STATIC_W
    most_silence_min = 2 + 0.9  # the promise, and the wait for the last heartbeat
    assert drawn.silent_min + most_silence_min + 2 < drawn.back_min < drawn.fresh_min < dso_silent.END_MIN - 3


@given(SEEDS)
def test_the_others_can_make_room_for_the_liar_also_under_the_cut(seed: int) -> None:
    drawn = lying_station.figures(seed, START)
    rest = (len(STATIONS) - 1) * SHARE_W + counted_w(lying_station.STORY, seed)
    assert LIAR_W + rest <= drawn.cut_w < drawn.usual_w
    liar = next(car for car in drawn.cars if car.station == drawn.liar)
    assert liar.max_w == 22_000


@given(SEEDS)
def test_the_lie_takes_more_than_its_part(seed: int) -> None:
    drawn = lying_station.figures(seed, START)
    assert sum(car.max_w for car in drawn.cars) > drawn.usual_w, "there is not enough for all"
    assert drawn.lie_min + 2 < drawn.cut_min


@given(SEEDS)
def test_the_kill_comes_after_the_announcement_and_before_the_announced_cut(seed: int) -> None:
    drawn = crash.figures(seed, START)
    guard_min = 10 / 60
    assert drawn.lowered_min + drawn.kill_after_s * crash.STORY.speed / 60 < crash.CUT_MIN - guard_min
    assert FALLBACK_W < drawn.last_w < drawn.cut_w < drawn.lowered_w < drawn.usual_w < STATIC_W
    assert drawn.late.station != drawn.leaver.station


@given(SEEDS)
def test_nobody_has_to_follow_the_building_while_nobody_is_there(seed: int) -> None:
    house = crash.house(seed)
    worst = max(house.power_w(START + timedelta(seconds=s)) for s in range(0, 360, 10))
    assert max(worst * 1.05, worst + 300) <= crash.RESERVE_W


@given(SEEDS)
def test_every_car_is_there_early_and_stays_hungry(seed: int) -> None:
    for figures, last_min in zip(FIGURES, (7, 6, 6, 0.4), strict=True):
        cars = figures(seed, START).cars
        assert {car.station for car in cars} == {station.id for station in STATIONS}
        assert all(START < car.arrives <= minute(START, last_min) for car in cars)
        assert all(car.wants_wh >= 18_000 for car in cars)


@pytest.mark.parametrize("figures", FIGURES)
def test_another_seed_is_another_evening(figures: Callable[[int, datetime], object]) -> None:
    assert figures(1, START) != figures(2, START)
    assert figures(1, START) == figures(1, START)


def test_stories_are_found_by_their_own_name_and_titled_with_it() -> None:
    assert list(STORIES) == ["evening-peak", "dso-silent", "crash", "lying-station"]
    assert all(name == story.name and story.title.startswith(f"{name}: ") for name, story in STORIES.items())


@pytest.mark.parametrize("story", STORIES.values(), ids=list(STORIES))
def test_both_versions_of_the_station_protocol_play_along(story: Story) -> None:
    versions = [station.version for station in story.site(1).stations]
    assert versions == ["1.6"] * 3 + ["2.0.1"] * 3


@pytest.mark.parametrize("story", STORIES.values(), ids=list(STORIES))
def test_a_story_leaves_time_to_start_and_to_judge_within_a_minute(story: Story) -> None:
    minutes = (story.ends[0] - story.starts[0]) * 60 + story.ends[1] - story.starts[1]
    assert minutes * 60 / story.speed <= 36


def test_the_reserve_of_the_depot_is_one_that_its_building_exceeds() -> None:
    assert RESERVE_W < max(depot.house(1).power_w(START + timedelta(minutes=m)) for m in range(40))
