import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gateway.domain.errors import NotUtc
from gateway.testing.clock import ManualClock, StoryClock

NOON = datetime(2031, 3, 1, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_advancing_wakes_sleepers_at_their_own_instants_in_order() -> None:
    async def scene() -> list[tuple[str, datetime]]:
        clock, woken = ManualClock(NOON), []

        async def sleeper(name: str, seconds: float) -> None:
            await clock.sleep_until(after(seconds))
            woken.append((name, clock.now()))

        async with asyncio.TaskGroup() as group:
            for name, seconds in (("late", 30), ("early", 5), ("middle", 10)):
                group.create_task(sleeper(name, seconds))
            await clock.advance(60)
        return woken

    assert asyncio.run(scene()) == [("early", after(5)), ("middle", after(10)), ("late", after(30))]


def test_a_sleeper_that_sleeps_again_is_woken_within_the_same_advance() -> None:
    async def scene() -> int:
        clock, beats = ManualClock(NOON), 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await clock.sleep_until(clock.now() + timedelta(seconds=10))
                beats += 1

        task = asyncio.create_task(beat())
        await clock.advance(35)
        task.cancel()
        return beats

    assert asyncio.run(scene()) == 3


def test_a_step_moves_the_wall_clock_and_not_the_monotonic_one() -> None:
    clock = ManualClock(NOON)
    clock.step(timedelta(hours=-1))
    assert clock.now() == after(-3600)
    assert clock.monotonic() == 0.0


def test_a_passed_instant_needs_no_waiting() -> None:
    asyncio.run(asyncio.wait_for(ManualClock(NOON).sleep_until(after(-1)), 1))


def test_sixty_story_seconds_pass_in_one_real_second() -> None:
    clock = StoryClock(NOON, after(100), 60, wall=lambda: NOON.timestamp() + 1)
    assert clock.now() == after(160)
    assert clock.wall_seconds(60) == 1.0


def test_two_processes_given_the_same_text_read_the_same_time() -> None:
    ours = StoryClock(after(0.123456), after(7), 60, wall=lambda: NOON.timestamp() + 3)
    theirs = StoryClock.parse(str(ours))
    assert (theirs.anchor_wall, theirs.anchor_story, theirs.speed) == (ours.anchor_wall, ours.anchor_story, ours.speed)


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4", "a:2:60", "1:2:0", "1:2:-1", "nan:1:60", "1:inf:60", "1:2:1e9"])
def test_nonsense_is_no_story_clock(text: str) -> None:
    with pytest.raises(ValueError):
        StoryClock.parse(text)


def test_anchors_need_a_zone() -> None:
    with pytest.raises(NotUtc):
        StoryClock(datetime(2031, 3, 1), NOON, 60)  # noqa: DTZ001 - the missing zone is the point


def test_a_story_clock_sleeps_until_its_own_instant() -> None:
    async def scene() -> bool:
        clock = StoryClock.starting(NOON, 3_600)
        await clock.sleep_until(after(30))
        return clock.now() >= after(30)

    assert asyncio.run(scene())
