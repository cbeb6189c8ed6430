"""The adapter on the real runner and store: what was acknowledged before a stop holds after it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.app.site import SECTIONS, Controller, SiteFacts, from_sections
from gateway.domain.ids import SiteId
from gateway.infra.runner import Runner
from gateway.infra.store_sql import open_store
from tests.unit.adapters.oscp.fakes import ONBOARDING, RealClock, World, a_block, a_forecast, a_peer, a_tree

pytestmark = pytest.mark.anyio

FORECAST = "update_group_capacity_forecast"


@asynccontextmanager
async def a_life(folder: Path) -> AsyncIterator[tuple[World, Runner]]:
    """One life of a gateway whose DSO is provisioned by the configuration."""
    (folder / "out.token").write_text("what-they-gave-us")
    options = {
        "onboarding": "provisioned",
        "address": "https://dso.example.org/oscp/cp/2.0",
        "token_out_file": str(folder / "out.token"),
    }
    clock = RealClock()
    store = open_store(
        folder / "site.db",
        head_path=folder / "head",
        key_path=folder / "evidence.key",
        origin="example.org/gridgate/depot",
        clock_now=clock.now,
    )
    loaded = store.open_site(SiteId("depot"))
    state = from_sections(loaded.seq, _decoded(loaded.sections))
    runner = Runner(
        SiteId("depot"),
        stepper=Controller(SiteFacts(a_tree(), {})),
        state=state,
        loaded=loaded,
        store=store,
        clock=clock,
        boot="boot",
        fast_nodes=[],
    )
    gate: Any = runner
    world = World(folder, dso=a_peer("dso", options=options), gate=gate)
    world.clock.at = clock.now()
    await runner.start("config")
    await world.running.start({"grid": "https://127.0.0.1:8443", "lab": "http://127.0.0.1:8080"})
    try:
        yield world, runner
    finally:
        await world.running.stop(1)
        await runner.stop("test")
        store.close()


def _decoded(sections: Any) -> dict[str, dict[str, Any]]:
    return {
        name: {key: msgspec.json.decode(body, type=SECTIONS[name]) for key, body in rows.items()}
        for name, rows in sections.items()
        if name in SECTIONS
    }


async def part(world: World, index: int, body: dict[str, Any]) -> int:
    headers: dict[str, str | None] = {
        "Authorization": f"Token {ONBOARDING}",
        "X-Request-ID": f"part-{index}",
        "X-Correlation-ID": "part-1" if index > 1 else None,
        "X-Segment-Index": str(index),
        "X-Segment-Count": "3",
    }
    return (await world.post(FORECAST, content=json.dumps(body).encode(), headers=headers)).status_code


async def test_parts_that_were_acknowledged_before_a_stop_are_joined_after_it(tmp_path: Path) -> None:
    hours = {}
    async with a_life(tmp_path) as (world, runner):
        for index in (1, 2, 3):
            start, end = (world.clock.now() + timedelta(hours=h) for h in (index, index + 1))
            block = a_block(capacity=index, start_time=start.isoformat(), end_time=end.isoformat())
            hours[index] = a_forecast(block)
        assert await part(world, 1, hours[1]) == 204
        assert await part(world, 3, hours[3]) == 204
        assert runner.state.envelopes == {}
    async with a_life(tmp_path) as (world, runner):
        assert await part(world, 3, hours[3]) == 204, "a repetition"
        assert await part(world, 2, hours[2]) == 204
        (envelope,) = runner.state.envelopes.values()
        assert [b.value for b in envelope.primary] == [1_000, 2_000, 3_000]
        assert envelope.correlation == "part-1"
        assert not runner.adapter_rows("oscp", "segment/")
        assert await part(world, 2, hours[2]) == 204, "a repetition of the last"
        assert await part(world, 2, hours[1]) == 400, "the same id with another body"
        assert len(runner.state.envelopes) == 1
    async with a_life(tmp_path) as (_, runner):
        assert len(runner.state.envelopes) == 1
