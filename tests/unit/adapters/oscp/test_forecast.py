"""From a capacity forecast to what the controller is told."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.envelope import Block, BlockKind, RevisionMode
from gateway.domain.events import EnvelopeRevised, MessageNoted, SourceHeard
from gateway.domain.quantities import Dimension, Direction
from tests.unit.adapters.oscp.fakes import NOW, World, a_block, a_forecast, a_peer, a_world

pytestmark = pytest.mark.anyio

FORECAST = "update_group_capacity_forecast"


async def revision(world: World, body: dict[str, Any], **kwargs: Any) -> EnvelopeRevised:
    response = await world.post(FORECAST, body, **kwargs)
    assert (response.status_code, response.content) == (204, b""), response.text
    event = world.gate.events[-1]
    assert isinstance(event, EnvelopeRevised)
    return event


async def test_a_forecast_names_source_node_key_message_and_correlation(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        body = json.dumps(a_forecast()).encode()
        await world.post(FORECAST, content=body, headers={"X-Request-ID": "q-42"})
        event = world.gate.events[-1]
    assert isinstance(event, EnvelopeRevised)
    assert (event.source, event.node, event.key) == ("dso", "main", "oscp/DEPOT-7")
    assert (event.mode, event.correlation) == (RevisionMode.OVERLAY, "q-42")
    assert event.blocks == (Block(datetime(2026, 3, 1, 16, tzinfo=UTC), datetime(2026, 3, 1, 18, tzinfo=UTC), 180_000),)
    message = event.message
    assert (message.peer, message.message_id, message.received_at) == ("dso", "q-42", NOW)
    assert message.endpoint == f"/oscp/fp/2.0/{FORECAST}"
    assert message.raw is not None
    assert (message.raw.sha256, message.raw.size) == (hashlib.sha256(body).hexdigest(), len(body))
    assert message.actor.cert_sha256 == "dso-cert"


@pytest.mark.parametrize(
    ("type_", "direction", "kind"),
    [
        ("CONSUMPTION", Direction.IMPORT, BlockKind.PRIMARY),
        ("GENERATION", Direction.EXPORT, BlockKind.PRIMARY),
        ("FALLBACK_CONSUMPTION", Direction.IMPORT, BlockKind.FALLBACK),
        ("FALLBACK_GENERATION", Direction.EXPORT, BlockKind.FALLBACK),
    ],
)
async def test_the_type_says_direction_and_kind(
    tmp_path: Path, type_: str, direction: Direction, kind: BlockKind
) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        event = await revision(world, a_forecast(type=type_))
        assert (event.direction, event.kind) == (direction, kind)


async def test_an_optimum_is_advice_without_effect(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        assert (await world.post(FORECAST, a_forecast(type="OPTIMUM"))).status_code == 204
        event = world.gate.events[-1]
        assert isinstance(event, MessageNoted)
        assert event.type == "oscp.optimum"


async def test_a_forecast_in_the_past_is_taken_and_flagged(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        past = a_block(start_time="2026-03-01T13:00:00Z", end_time="2026-03-01T15:00:00Z")
        assert (await revision(world, a_forecast(past))).flags == ("PAST_BLOCKS",)


async def test_blocks_that_contradict_each_other_are_taken_and_flagged(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        assert (await revision(world, a_forecast(a_block(), a_block(capacity=90)))).flags == ("OVERLAPPING_BLOCKS",)
        assert (await revision(world, a_forecast(a_block(), a_block()))).flags == ()
        assert (await revision(world, a_forecast(a_block(), a_block(phase="ONE", capacity=90)))).flags == ()


async def test_a_fallback_may_reach_further_than_a_limit(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        far = a_block(end_time="2027-04-05T15:00:00Z")
        await revision(world, a_forecast(far, type="FALLBACK_CONSUMPTION"))


async def test_before_the_handshake_a_forecast_is_a_sign_of_life(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await revision(world, a_forecast())
        heard = world.gate.events[-2]
        assert isinstance(heard, SourceHeard)
        assert heard.alive_until == NOW + timedelta(minutes=2)
        await world.handshake()
        await revision(world, a_forecast(a_block(capacity=1)))
        assert not isinstance(world.gate.events[-2], SourceHeard) or world.gate.events[-2].message != (
            world.gate.events[-1].message  # type: ignore[union-attr]  # the last one is a revision
        )


async def test_unknown_fields_are_ignored(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await revision(world, a_forecast(a_block(currency="EUR"), comment="hello"))


async def test_a_dialect_may_read_naive_times_and_make_up_missing_ids(tmp_path: Path) -> None:
    options = {"request_id": "synthesise", "times_without_zone": "local", "time_zone": "Europe/Amsterdam"}
    async with a_world(tmp_path, dso=a_peer("dso", options=options)) as world:
        await world.register()
        naive = a_block(start_time="2026-03-01 17:00:00", end_time="2026-03-01T18:00:00")
        event = await revision(world, a_forecast(naive), headers={"X-Request-ID": None})
    assert event.blocks[0].start == datetime(2026, 3, 1, 16, tzinfo=UTC)
    assert event.message.message_id.startswith("syn_")
    assert event.flags == ("SYNTHETIC_REQUEST_ID",)


async def test_a_dialect_may_read_numbers_written_as_text(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_peer("dso", dialect="solarnetwork")) as world:
        await world.register()
        assert (await revision(world, a_forecast(a_block(capacity="11.5")))).blocks[0].value == 11_500


async def test_phases_are_the_bindings(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        event = await revision(world, a_forecast(a_block(phase="TWO", unit="A", capacity=16.0009)))
        assert (event.blocks[0].dimension, event.blocks[0].value) == (Dimension.L2_A, 16_000)


async def test_a_silent_peer_whose_life_is_its_forecasts_is_heard_by_each(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_peer("dso", dialect="elmo")) as world:
        await world.register()
        await world.handshake()
        await revision(world, a_forecast())
        heard = world.gate.events[-2]
        assert isinstance(heard, SourceHeard)
        assert heard.alive_until == NOW + timedelta(hours=25)
