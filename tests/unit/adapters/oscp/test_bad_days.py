"""A DSO on its bad days, and one that waits for us, over real sockets with mutual TLS."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.oscp.peer import ForecastBlock
from adapters.oscp.transport import OscpRunning
from gateway.domain.effects import OutboxItem
from gateway.domain.envelope import Block
from gateway.domain.errors import ProtocolViolation
from gateway.domain.events import EnvelopeRevised, MessageNoted, MessageRefused, SourceEnded, SourceHeard
from gateway.domain.ids import PeerId
from gateway.pki.dev import DevPki
from tests.unit.adapters.oscp.fakes import Delivering
from tests.unit.adapters.oscp.sites import a_site

pytestmark = pytest.mark.anyio

DSO = PeerId("dso")


def block(start_h: float, end_h: float, watts: int) -> ForecastBlock:
    now = datetime.now(UTC)
    return ForecastBlock(now + timedelta(hours=start_h), now + timedelta(hours=end_h), watts)


def adapter(gate: Delivering) -> OscpRunning:
    assert isinstance(gate.running, OscpRunning)
    return gate.running


def revisions(gate: Delivering) -> list[EnvelopeRevised]:
    return [e for e in gate.events if isinstance(e, EnvelopeRevised)]


async def test_we_register_with_a_dso_that_waits_shake_hands_and_are_limited(dev_pki: DevPki, tmp_path: Path) -> None:
    async with a_site(dev_pki, tmp_path, we_start=True, handshake_start="fp") as (gate, dso, _):
        operator = adapter(gate).operator
        assert operator is not None
        ident = await operator.register(DSO)
        asked = await dso.wait_for("register")
        assert (asked.request_id, asked.correlation) == (ident, "")
        await dso.wait_for("handshake")
        await dso.wait_for("heartbeat")
        await dso.forecast("DEPOT-7", "CONSUMPTION", [block(0, 1, 40_000)])
        assert revisions(gate)[0].blocks[0].value == 40_000


async def test_a_relation_is_renewed_moved_and_ended_from_either_side(dev_pki: DevPki, tmp_path: Path) -> None:
    async with a_site(dev_pki, tmp_path) as (gate, dso, _):
        await dso.register()
        await dso.move()
        operator = adapter(gate).operator
        assert operator is not None
        await operator.renew(DSO)
        await dso.wait_for("register", count=2)
        await dso.handshake()
        await operator.adjust(DSO, "DEPOT-7", "CONSUMPTION", [Block(*_next_hour(), 150_000)])
        wanted = await dso.wait_for("adjust_group_capacity_forecast")
        assert wanted.body["forecasted_blocks"][0]["capacity"] == 150_000
        await operator.end(DSO)
        told = await dso.wait_for("register", count=3)
        assert told.method == "DELETE"
        assert isinstance(gate.events[-1], SourceEnded)


async def test_a_dso_may_leave(dev_pki: DevPki, tmp_path: Path) -> None:
    async with a_site(dev_pki, tmp_path) as (gate, dso, _):
        await dso.register()
        await dso.leave()
        assert isinstance(gate.events[-1], SourceEnded)
        with pytest.raises(ProtocolViolation, match="401"):
            await dso.heartbeat()


async def test_a_silent_dso_sends_nothing_more_and_still_answers(dev_pki: DevPki, tmp_path: Path) -> None:
    async with a_site(dev_pki, tmp_path) as (gate, dso, _):
        await dso.register()
        await dso.handshake()
        dso.start_heartbeats(0.02)
        await dso.wait_for("heartbeat")
        dso.fall_silent()
        heard = len([e for e in gate.noted if isinstance(e, SourceHeard)])
        await gate.submit((), outbox=(OutboxItem("e-1", DSO, "compliance_error", {"message": "m"}, "q"),))
        await dso.wait_for("group_capacity_compliance_error")
        assert len([e for e in gate.noted if isinstance(e, SourceHeard)]) <= heard + 1


async def test_a_late_dso_is_waited_for(dev_pki: DevPki, tmp_path: Path) -> None:
    async with a_site(dev_pki, tmp_path) as (gate, dso, _):
        await dso.register()
        dso.answer_late(0.2)
        before = asyncio.get_running_loop().time()
        await dso.handshake()
        assert asyncio.get_running_loop().time() - before >= 0.2
        dso.answer_late(0)
        assert isinstance(gate.events[-1], SourceHeard)


async def test_a_contradictory_dso_is_taken_at_its_tighter_word_and_flagged(dev_pki: DevPki, tmp_path: Path) -> None:
    async with a_site(dev_pki, tmp_path) as (gate, dso, _):
        await dso.register()
        await dso.contradict("DEPOT-7", "CONSUMPTION", block(0, 1, 40_000), 90_000)
        assert revisions(gate)[0].flags == ("OVERLAPPING_BLOCKS",)


async def test_a_dso_that_repeats_itself_is_told_the_same_and_one_that_changes_its_word_400(
    dev_pki: DevPki, tmp_path: Path
) -> None:
    async with a_site(dev_pki, tmp_path) as (gate, dso, _):
        await dso.register()
        ident = await dso.forecast("DEPOT-7", "CONSUMPTION", [block(0, 1, 40_000)])
        assert await dso.repeat(ident) == 204
        changed = await dso.repeat(ident, b'{"group_id":"DEPOT-7","type":"OPTIMUM","forecasted_blocks":[]}')
        assert changed == 400
        assert len(revisions(gate)) == 1
        assert isinstance(gate.noted[-1], MessageRefused)


@pytest.mark.parametrize("names", ["first", "previous"])
async def test_a_dso_may_tell_one_thing_in_parts(dev_pki: DevPki, tmp_path: Path, names: str) -> None:
    parts = [[block(n, n + 1, 10_000 + n)] for n in range(4)]
    async with a_site(dev_pki, tmp_path) as (gate, dso, _):
        await dso.register()
        ids = await dso.forecast_in_parts("DEPOT-7", "CONSUMPTION", parts, names=names, order=(2, 1, 4))
        assert revisions(gate) == []
        assert len([e for e in gate.events if isinstance(e, MessageNoted) and e.type == "oscp.segment"]) == 3
        await dso.forecast_in_parts("DEPOT-7", "CONSUMPTION", parts, names=names, order=(3,), ids=ids)
        (event,) = revisions(gate)
        assert [b.value for b in event.blocks] == [10_000, 10_001, 10_002, 10_003]
        assert event.message.message_id == ids[0]


def _next_hour() -> tuple[datetime, datetime]:
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    return start, start + timedelta(hours=1)
