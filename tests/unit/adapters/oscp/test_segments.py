"""Forecasts that come in several parts."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.oscp import segments
from gateway.domain.envelope import BlockKind
from gateway.domain.events import EnvelopeRevised, MessageNoted, MessageRefused
from tests.unit.adapters.oscp.fakes import NOW, World, a_block, a_forecast, a_world, settle

pytestmark = pytest.mark.anyio

FORECAST = "update_group_capacity_forecast"


def hour(index: int, capacity: int = 100) -> dict[str, Any]:
    start = NOW + timedelta(hours=index)
    return a_block(
        capacity=capacity,
        start_time=start.isoformat(),
        end_time=(start + timedelta(hours=1)).isoformat(),
    )


async def part(
    world: World,
    index: int,
    count: int,
    *,
    names: str | None = None,
    ident: str = "",
    body: dict[str, Any] | None = None,
    capacity: int = 100,
) -> httpx.Response:
    return await world.post(
        FORECAST,
        body or a_forecast(hour(index, capacity)),
        headers={
            "X-Request-ID": ident or f"part-{index}",
            "X-Correlation-ID": names,
            "X-Segment-Index": str(index),
            "X-Segment-Count": str(count),
        },
    )


def revisions(world: World) -> list[EnvelopeRevised]:
    return [e for e in world.gate.events if isinstance(e, EnvelopeRevised)]


def dropped(world: World) -> list[MessageRefused]:
    found = [*world.gate.events, *world.gate.noted]
    return [e for e in found if isinstance(e, MessageRefused) and e.code == "oscp.segments-dropped"]


def kept_rows(world: World) -> list[str]:
    return [k for k in world.gate.rows if k.startswith("segment/")]


@pytest.mark.parametrize("named", [{2: "part-1", 3: "part-1"}, {2: "part-1", 3: "part-2"}], ids=["first", "previous"])
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (2, 1, 3)], ids=str)
async def test_parts_are_joined_by_either_reading_of_the_correlation_in_any_order(
    tmp_path: Path, named: dict[int, str], order: tuple[int, ...]
) -> None:
    """Public sources say that a part names the first one, and that it names the one before it."""
    async with a_world(tmp_path) as world:
        await world.register()
        for index in order:
            assert revisions(world) == [], "nothing takes effect before all are there"
            assert (await part(world, index, 3, names=named.get(index), capacity=index)).status_code == 204
        (event,) = revisions(world)
        assert [b.value for b in event.blocks] == [1_000, 2_000, 3_000]
        assert (event.message.message_id, event.correlation) == ("part-1", "part-1")
        assert event.flags == ("SEGMENTED",)
        assert kept_rows(world) == []


async def test_every_part_is_evidence_with_its_own_body(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await part(world, 1, 2)
        await part(world, 2, 2, names="part-1")
        noted = [e for e in world.gate.events if isinstance(e, MessageNoted) and e.type == "oscp.segment"]
        assert [(e.message.message_id, e.detail) for e in noted] == [
            ("part-1", "segment 1 of 2"),
            ("part-2", "segment 2 of 2"),
        ]
        assert all(e.message.raw is not None for e in noted)
        assert {key[2] for key in world.gate.inbox} >= {"part-1", "part-2"}


async def test_parts_survive_a_restart_because_they_were_acknowledged(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await part(world, 1, 3)
        await part(world, 3, 3, names="part-2")
        await world.restart()
        await part(world, 2, 3, names="part-1")
        assert len(revisions(world)[0].blocks) == 1, "three equal hours are one block"
        assert revisions(world)[0].blocks[0].end - revisions(world)[0].blocks[0].start == timedelta(hours=3)


async def test_a_part_that_comes_twice_counts_once(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await part(world, 1, 2)
        assert (await part(world, 1, 2)).status_code == 204
        assert (await part(world, 1, 2, ident="again", names=None)).status_code == 204
        await part(world, 2, 2, names="part-1")
        assert (await part(world, 2, 2, names="part-1")).status_code == 204
        assert len(revisions(world)) == 1


async def test_a_part_with_a_used_request_id_and_another_body_is_400_and_the_others_stand(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await part(world, 1, 2)
        answer = await part(world, 1, 2, capacity=7)
        assert (answer.status_code, "request id reused" in answer.text) == (400, True)
        await part(world, 2, 2, names="part-1")
        assert len(revisions(world)) == 1


@pytest.mark.parametrize(
    ("index", "count", "ident", "body", "said"),
    [
        (2, 4, "", None, "X-Segment-Count"),
        (4, 3, "", None, "X-Segment-Index: 4 of 3"),
        (2, 3, "", a_forecast(hour(2), type="GENERATION"), "group_id, type"),
        (2, 3, "other-2", a_forecast(hour(2, 7)), "came before, with another body"),
    ],
    ids=["other count", "index beyond count", "other type", "same index, other body"],
)
async def test_a_part_that_contradicts_the_others_is_400_and_drops_them_all(
    tmp_path: Path, index: int, count: int, ident: str, body: dict[str, Any] | None, said: str
) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await part(world, 1, 3)
        if ident:
            await part(world, 2, 3, names="part-1")
        answer = await part(world, index, count, names="part-1", ident=ident, body=body)
        assert (answer.status_code, said in answer.text) == (400, True)
        assert said in world.refusals()[-1].text
        (gone,) = dropped(world)
        assert gone.message.message_id == "part-1"
        assert kept_rows(world) == []
        assert revisions(world) == []


async def test_what_is_incomplete_after_60_s_is_dropped_counted_and_its_bodies_kept(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await part(world, 1, 3)
        await world.clock.advance(30)
        await part(world, 2, 3, names="part-1")
        await world.clock.advance(29.9)
        assert dropped(world) == []
        await world.clock.advance(0.1)
        (gone,) = dropped(world)
        assert gone.text == "2 of 3 segments dropped: not complete in time"
        assert gone.message.raw is not None
        assert kept_rows(world) == []
        assert {key[2] for key in world.gate.inbox} >= {"part-1", "part-2"}, "the bodies stay"


async def test_a_restart_drops_at_once_what_became_overdue_meanwhile(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await part(world, 1, 2)
        world.clock.at += timedelta(seconds=61)
        await world.restart()
        assert len(dropped(world)) == 1


async def test_after_the_drop_its_parts_are_400_until_all_come_under_new_ids(tmp_path: Path) -> None:
    """Else a repetition would be told 204 for a message that can never take effect."""
    async with a_world(tmp_path) as world:
        await world.register()
        await part(world, 1, 2)
        await world.clock.advance(61)
        await world.restart()
        for index, names in ((1, None), (2, "part-1")):
            answer = await part(world, index, 2, names=names)
            assert (answer.status_code, "new request ids" in answer.text) == (400, True)
        await part(world, 1, 2, ident="new-1")
        await part(world, 2, 2, ident="new-2", names="new-1")
        assert len(revisions(world)) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Segment-Index": "1"},
        {"X-Segment-Count": "2"},
        {"X-Segment-Index": "0", "X-Segment-Count": "2"},
        {"X-Segment-Index": "-1", "X-Segment-Count": "2"},
        {"X-Segment-Index": "one", "X-Segment-Count": "2"},
        {"X-Segment-Index": "1.0", "X-Segment-Count": "2"},
        {"X-Segment-Index": "1", "X-Segment-Count": "1001"},
        {"X-Segment-Index": "2", "X-Segment-Count": "2"},
    ],
    ids=str,
)
async def test_headers_that_name_no_place_are_400(tmp_path: Path, headers: dict[str, str | None]) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        commits = world.gate.commits
        assert (await world.post(FORECAST, a_forecast(), headers=headers)).status_code == 400
        assert world.refusals()[-1].text.startswith("400 X-")
        assert world.gate.commits == commits


async def test_a_message_without_a_list_cannot_come_in_parts(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        answer = await world.post("heartbeat", {}, headers={"X-Segment-Index": "1", "X-Segment-Count": "2"})
        assert answer.status_code == 400


async def test_a_broken_part_is_400_and_may_come_again_in_order(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await part(world, 1, 2)
        assert (await part(world, 2, 2, names="part-1", capacity=-1)).status_code == 400
        assert (await part(world, 2, 2, names="part-1", body=a_forecast(group_id="NOWHERE"))).status_code == 404
        await part(world, 2, 2, names="part-1")
        assert len(revisions(world)) == 1


async def test_only_so_many_messages_may_be_incomplete_at_once(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        for n in range(segments.MAX_ASSEMBLIES):
            assert (await part(world, 1, 2, ident=f"m{n}")).status_code == 204
        assert (await part(world, 1, 2, ident="one-too-many")).status_code == 429
        await part(world, 2, 2, ident="m0-2", names="m0")
        assert (await part(world, 1, 2, ident="one-too-many")).status_code == 204


@pytest.mark.parametrize("bound", ["MAX_BYTES", "MAX_BLOCKS"])
async def test_what_is_too_large_together_is_413_and_dropped(
    tmp_path: Path, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        body = a_forecast(hour(1), hour(2))
        size = len(json.dumps(body)) if bound == "MAX_BYTES" else 2
        monkeypatch.setattr(segments, bound, size + size // 2)
        await part(world, 1, 2, body=body)
        answer = await part(world, 2, 2, names="part-1", body=a_forecast(hour(3), hour(4)))
        assert answer.status_code == 413
        assert len(dropped(world)) == 1


async def test_a_year_of_fallback_in_parts_takes_effect_in_one_revision(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        for index in range(1, 10):
            hours = [hour(index * 900 + n, capacity=n % 7 + 1) for n in range(900)]
            names = None if index == 1 else "part-1"
            answer = await part(world, index, 9, names=names, body=a_forecast(*hours, type="FALLBACK_CONSUMPTION"))
            assert answer.status_code == 204, answer.text
        (event,) = revisions(world)
        assert event.kind is BlockKind.FALLBACK
        assert len(event.blocks) == 8_100


async def test_a_part_that_was_not_stored_is_not_counted(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        world.gate.is_broken = True
        assert (await part(world, 1, 2)).status_code == 503
        world.gate.is_broken = False
        await part(world, 2, 2, names="part-1")
        assert revisions(world) == []
        await part(world, 1, 2)
        assert len(revisions(world)) == 1
        await settle()


async def test_advice_may_come_in_parts_and_has_no_effect(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await part(world, 1, 2, body=a_forecast(hour(1), type="OPTIMUM"))
        await part(world, 2, 2, names="part-1", body=a_forecast(hour(2), type="OPTIMUM"))
        assert revisions(world) == []
        assert any(isinstance(e, MessageNoted) and e.type == "oscp.optimum" for e in world.gate.events)
