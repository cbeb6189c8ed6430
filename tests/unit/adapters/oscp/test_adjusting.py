"""Asking for another capacity, and reading from later forecasts what came of it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.oscp.adjusting import Ask, AskState, compared, known_before
from adapters.oscp.operator import Operator
from gateway.domain.effects import OutboxItem
from gateway.domain.envelope import Block
from gateway.domain.errors import ActionRefused
from gateway.domain.events import MessageNoted, ReportDelivered
from gateway.domain.ids import PeerId
from gateway.domain.quantities import Dimension
from gateway.ports.grid import DeliveryStatus
from tests.unit.adapters.oscp.fakes import NOW, Answer, World, a_block, a_forecast, a_world

pytestmark = pytest.mark.anyio

DSO = PeerId("dso")
FORECAST = "update_group_capacity_forecast"


def hours(start: float, end: float, value: int, dimension: Dimension = Dimension.SUM_W) -> Block:
    return Block(NOW + timedelta(hours=start), NOW + timedelta(hours=end), value, dimension)


def operator(world: World) -> Operator:
    found = world.running.operator
    assert found is not None
    return found


async def ask(world: World, *blocks: Block) -> str:
    return await operator(world).adjust(DSO, "DEPOT-7", "CONSUMPTION", blocks or [hours(1, 3, 150_000)])


def told(start: float, end: float, kilowatts: float) -> dict[str, Any]:
    return a_block(
        capacity=kilowatts,
        start_time=(NOW + timedelta(hours=start)).isoformat(),
        end_time=(NOW + timedelta(hours=end)).isoformat(),
    )


def outcomes(world: World) -> list[str]:
    return [e.type for e in world.gate.events if isinstance(e, MessageNoted) and e.type.startswith("oscp.adjust_")]


def open_asks(world: World) -> list[str]:
    return [k for k in world.gate.rows if k.startswith("ask/dso/")]


async def test_what_is_asked_for_is_the_total_in_the_peers_words(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        ident = await ask(world, hours(1, 3, 150_000), hours(3, 4, 16_000, Dimension.L2_A))
        await world.deliver()
        (call,) = world.line.to("adjust_group_capacity_forecast")
    assert call.headers["X-Request-ID"] == ident
    body = json.loads(call.content)
    assert (body["group_id"], body["type"]) == ("DEPOT-7", "CONSUMPTION")
    assert body["forecasted_blocks"] == [
        {
            "capacity": 150_000,
            "phase": "ALL",
            "unit": "W",
            "start_time": "2026-03-01T16:00:00Z",
            "end_time": "2026-03-01T18:00:00Z",
        },
        {
            "capacity": 16,
            "phase": "TWO",
            "unit": "A",
            "start_time": "2026-03-01T18:00:00Z",
            "end_time": "2026-03-01T19:00:00Z",
        },
    ]


@pytest.mark.parametrize(
    ("blocks", "outcome"),
    [
        ([told(1, 3, 150)], "oscp.adjust_granted"),
        ([told(0, 9, 200)], "oscp.adjust_granted"),
        ([told(1, 2, 150), told(2, 3, 151)], "oscp.adjust_granted"),
        ([told(1, 2, 150)], "oscp.adjust_partly_granted"),
        ([told(1, 3, 120)], "oscp.adjust_partly_granted"),
        ([told(1, 2, 100), told(2, 3, 150)], "oscp.adjust_partly_granted"),
    ],
    ids=["as asked", "more", "in two blocks", "half of the time", "half of the way", "one hour of two"],
)
async def test_a_later_forecast_says_what_was_granted(
    tmp_path: Path, blocks: list[dict[str, Any]], outcome: str
) -> None:
    """100 kW were given, 150 kW are asked for."""
    async with a_world(tmp_path) as world:
        await world.register()
        await world.post(FORECAST, a_forecast(told(0, 6, 100)))
        await ask(world)
        await world.post(FORECAST, a_forecast(*blocks))
        assert outcomes(world) == ["oscp.adjust_requested", outcome]
        assert bool(open_asks(world)) is (outcome != "oscp.adjust_granted")


@pytest.mark.parametrize(
    "forecast",
    [
        a_forecast(told(1, 3, 100)),
        a_forecast(told(1, 3, 40)),
        a_forecast(told(4, 9, 500)),
        a_forecast(told(1, 3, 500), type="GENERATION"),
        a_forecast(told(1, 3, 500), type="FALLBACK_CONSUMPTION"),
    ],
    ids=["the same", "less", "another time", "another direction", "the fallback"],
)
async def test_what_grants_nothing_leaves_the_request_open(tmp_path: Path, forecast: dict[str, Any]) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.post(FORECAST, a_forecast(told(0, 6, 100)))
        await ask(world)
        await world.post(FORECAST, forecast)
        assert outcomes(world) == ["oscp.adjust_requested"]
        assert len(open_asks(world)) == 1


async def test_a_request_is_granted_by_several_forecasts_and_across_a_restart(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await ask(world)
        await world.post(FORECAST, a_forecast(told(1, 2, 150)))
        await world.restart()
        await world.post(FORECAST, a_forecast(told(2, 3, 150)))
        assert outcomes(world)[1:] == ["oscp.adjust_partly_granted", "oscp.adjust_granted"]
        assert open_asks(world) == []


async def test_what_is_never_granted_expires_with_its_last_block(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        ident = await ask(world)
        await world.clock.advance(3 * 3_600 - 1)
        assert len(open_asks(world)) == 1
        await world.clock.advance(1)
        (over,) = [e for e in world.gate.events if isinstance(e, ReportDelivered)]
        assert (over.work, over.kind, over.delivered) == (ident, "adjust", False)
        assert over.detail == "expired: requested when its last block ended"
        assert open_asks(world) == []


async def test_an_answer_in_parts_counts_as_well(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await ask(world)
        place = {"X-Request-ID": "p1", "X-Segment-Index": "1", "X-Segment-Count": "2"}
        await world.post(FORECAST, a_forecast(told(1, 2, 150)), headers=place)
        place = {"X-Request-ID": "p2", "X-Correlation-ID": "p1", "X-Segment-Index": "2", "X-Segment-Count": "2"}
        await world.post(FORECAST, a_forecast(told(2, 3, 150)), headers=place)
        assert outcomes(world)[1:] == ["oscp.adjust_granted"]


async def test_the_controller_may_ask_too(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        block = {"start": "2026-03-01T16:00:00Z", "end": "2026-03-01T17:00:00Z", "value": 9_000, "dimension": "sum_w"}
        body: Any = {"group": "DEPOT-7", "type": "GENERATION", "blocks": [block]}
        carrier = world.running.carrier
        assert carrier is not None
        for _ in range(2):
            delivery = await carrier.deliver(OutboxItem("a-1", DSO, "adjust", body))
            assert delivery.status is DeliveryStatus.DONE
        assert open_asks(world) == ["ask/dso/a-1"]
        await world.post(FORECAST, a_forecast(told(0, 5, 9), type="GENERATION"))
        assert outcomes(world) == ["oscp.adjust_granted"]


async def test_a_peer_that_takes_no_requests_leaves_none_open(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await ask(world)
        world.line.answers = [Answer(404)]
        (delivery,) = await world.deliver()
        assert delivery.status is DeliveryStatus.DEAD
        assert open_asks(world) == []


async def test_what_cannot_be_asked_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        commits = world.gate.commits
        mine, block = operator(world), hours(1, 2, 1)
        for group, type_, blocks in (
            ("FOREIGN", "CONSUMPTION", [block]),
            ("DEPOT-7", "ADVICE", [block]),
            ("DEPOT-7", "CONSUMPTION", []),
            ("DEPOT-7", "CONSUMPTION", [block] * 1_001),
        ):
            with pytest.raises(ActionRefused):
                await mine.adjust(DSO, group, type_, blocks)
        assert world.gate.commits == commits


def an_ask(**changes: Any) -> Ask:
    return Ask(**{"id": "a", "group": "G", "type": "CONSUMPTION", "blocks": (hours(1, 3, 150),), **changes})


def test_a_row_brings_back_what_was_written() -> None:
    ask = an_ask(given=(hours(0, 9, 100),), told=(hours(1, 2, 150),), state=AskState.PARTLY_GRANTED)
    assert Ask.from_row(ask.to_row()) == ask


def test_time_that_had_passed_before_the_answer_does_not_count() -> None:
    late: datetime = NOW + timedelta(hours=2)
    assert compared(an_ask(), [hours(2, 3, 150)], late).state is AskState.GRANTED
    assert compared(an_ask(), [hours(2, 3, 150)], NOW).state is AskState.PARTLY_GRANTED


def test_a_grant_that_is_taken_back_before_all_was_granted_is_no_grant() -> None:
    partly = compared(an_ask(), [hours(1, 2, 150)], NOW)
    assert compared(partly, [hours(1, 3, 20)], NOW).state is AskState.REQUESTED


def test_what_held_before_is_what_forecasts_said_last() -> None:
    earlier = [[hours(0, 9, 10)], [hours(2, 9, 20)]]
    assert known_before(earlier, [hours(1, 3, 150)]) == (hours(0, 2, 10), hours(2, 9, 20))
