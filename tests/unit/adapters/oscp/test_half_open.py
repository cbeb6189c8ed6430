"""Handshakes that nobody acknowledges, and heartbeats that nobody takes: neither stays as it is."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.oscp.session import ACKNOWLEDGE_MAX, SLOWEST_BEAT, State, acknowledge_window, beat_after, heartbeat_period
from gateway.domain.errors import PeerTimeout
from gateway.domain.events import ReportDelivered
from gateway.domain.ids import PeerId
from tests.unit.adapters.oscp.fakes import Answer, World, a_peer, a_world, settle

pytestmark = pytest.mark.anyio

DSO = PeerId("dso")


def stored(world: World) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(world.gate.rows["relation/dso"])
    return row


def given_up(world: World) -> list[tuple[str, str]]:
    return [(e.kind, e.detail) for e in world.gate.events if isinstance(e, ReportDelivered) and not e.delivered]


def we_start(**options: Any) -> Any:
    return a_peer("dso", options={"handshake_start": "fp", **options})


async def shaken(world: World) -> None:
    """Deliver what is owed, our handshakes among it; the peer answers 204 and nothing more."""
    await settle()
    await world.deliver()
    await settle()


async def acknowledge(world: World, interval: int = 60) -> None:
    headers = {"X-Correlation-ID": world.line.to("handshake")[-1].headers["X-Request-ID"]}
    body = {"required_behaviour": {"heartbeat_interval": interval}}
    assert (await world.post("handshake_acknowledge", body, headers=headers)).status_code == 204
    await settle()


# --- our handshake --------------------------------------------------------------------------------


async def test_our_handshake_that_is_not_acknowledged_is_given_up_after_a_minute_and_said_to_be(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        assert world.running.operator is not None
        await world.running.operator.handshake(DSO)
        await shaken(world)
        await world.clock.advance(59)
        assert (stored(world)["state"], given_up(world)) == (State.HANDSHAKING, [])
        await world.clock.advance(1)
        assert given_up(world) == [("oscp.handshake", "not acknowledged in time")]
        assert (stored(world)["state"], stored(world)["shaking"]) == (State.REGISTERED, "")


async def test_a_handshake_that_is_ours_to_start_is_repeated_ever_more_rarely_until_it_is_acknowledged(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path, dso=we_start()) as world:
        await world.register()
        await shaken(world)
        for count, minutes in enumerate((1, 2, 4, 8), start=1):
            assert len(world.line.to("handshake")) == count
            await world.clock.advance(60 * minutes - 1)
            await shaken(world)
            assert len(world.line.to("handshake")) == count
            await world.clock.advance(1)
            await shaken(world)
        assert world.line.to("heartbeat") == [], "before the handshake nothing but registration flows"
        await acknowledge(world)
        assert (stored(world)["state"], stored(world)["shakes"]) == (State.ONLINE, 0)
        assert len(world.line.to("heartbeat")) == 1
        assert len({call.headers["X-Request-ID"] for call in world.line.to("handshake")}) == 5


def test_between_two_handshakes_of_ours_there_is_an_hour_at_most() -> None:
    assert [acknowledge_window(n) // timedelta(minutes=1) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert acknowledge_window(10**6) == ACKNOWLEDGE_MAX


async def test_a_restart_goes_on_waiting_for_the_same_acknowledge_no_longer_than_before(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=we_start()) as world:
        await world.register()
        await shaken(world)
        await world.clock.advance(30)
        await world.restart()
        await shaken(world)
        assert len(world.line.to("handshake")) == 1
        await world.clock.advance(30)
        await shaken(world)
        assert len(world.line.to("handshake")) == 2


async def test_an_acknowledge_after_the_handshake_was_given_up_does_not_open_the_relation(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        assert world.running.operator is not None
        await world.running.operator.handshake(DSO)
        await shaken(world)
        await world.clock.advance(60)
        await acknowledge(world)
        assert stored(world)["state"] == State.REGISTERED
        assert world.line.to("heartbeat") == []


async def test_a_handshake_of_ours_that_comes_to_nothing_leaves_a_running_relation_as_it_was(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.handshake()
        assert world.running.operator is not None
        await world.running.operator.handshake(DSO)
        await shaken(world)
        await world.clock.advance(54)
        assert len(world.line.to("heartbeat")) == 2
        await world.clock.advance(6)
        assert given_up(world) == [("oscp.handshake", "not acknowledged in time")]
        await world.post("heartbeat", {})
        assert stored(world)["state"] == State.ONLINE


async def test_a_strict_peer_that_was_lost_is_shaken_hands_with_where_that_is_ours_to_start(tmp_path: Path) -> None:
    """Otherwise it would be refused for ever: nobody else starts a handshake."""
    async with a_world(tmp_path, dso=we_start(handshake_required=True)) as world:
        await world.register()
        await shaken(world)
        await acknowledge(world)
        await world.clock.advance(120)
        await shaken(world)
        assert len(world.line.to("handshake")) == 2
        assert (await world.post("heartbeat", {})).status_code == 403
        await acknowledge(world)
        assert (await world.post("heartbeat", {})).status_code == 204


# --- the peer's handshake -------------------------------------------------------------------------


async def test_an_acknowledge_that_cannot_be_delivered_is_given_up_after_10_minutes_and_said_to_be(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        world.line.answers = [PeerTimeout("slow")]
        await world.post("handshake", {})
        (item,) = world.gate.outbox
        assert item.expires_at == world.clock.at + timedelta(minutes=10)
        await world.deliver()
        await world.clock.advance(599)
        assert (stored(world)["state"], given_up(world)) == (State.HANDSHAKING, [])
        await world.clock.advance(1)
        assert stored(world)["state"] == State.REGISTERED
        assert given_up(world) == [("oscp.handshake_acknowledge", "could not be delivered in time")]
        await world.handshake()
        assert stored(world)["state"] == State.ONLINE


# --- heartbeats -----------------------------------------------------------------------------------


async def beats_in(world: World, seconds: int) -> int:
    """How many heartbeats leave in that time."""
    before = len(world.line.to("heartbeat"))
    for _ in range(seconds):
        await world.clock.advance(1)
    return len(world.line.to("heartbeat")) - before


async def heard(world: World) -> None:
    assert (await world.post("heartbeat", {})).status_code == 204
    await settle()


async def test_one_heartbeat_that_is_not_taken_changes_nothing(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.handshake()
        world.line.answers = [PeerTimeout("slow")]
        await world.clock.advance(54)
        await heard(world)
        await world.clock.advance(54)
        assert len(world.line.to("heartbeat")) == 3


async def test_a_peer_that_is_offline_gets_heartbeats_ever_more_rarely_but_gets_them(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.handshake()
        world.line.answers = [Answer(503)] * 100
        assert await beats_in(world, 3_600) == 7, "after 54 s, 108, 216, 648, 1512, 2412, 3312"
        assert await beats_in(world, 3_600) == 4
        ids = [call.headers["X-Request-ID"] for call in world.line.to("heartbeat")]
        assert len(set(ids)) == len(ids), "none is repeated: the newest alone counts"


async def test_a_peer_that_takes_heartbeats_again_gets_them_as_often_as_it_asked(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.handshake()
        world.line.answers = [Answer(503)] * 100
        await beats_in(world, 3_600)
        world.line.answers = []
        await beats_in(world, 900)
        assert await beats_in(world, 540) == 10


async def test_a_peer_that_is_heard_again_gets_a_heartbeat_at_once(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.handshake()
        world.line.answers = [Answer(503)] * 100
        await beats_in(world, 3_600)
        world.line.answers = []
        before = len(world.line.to("heartbeat"))
        await heard(world)
        assert len(world.line.to("heartbeat")) == before + 1


@pytest.mark.parametrize(
    ("date", "said"),
    [
        ("Sun, 01 Mar 2026 15:00:05 GMT", ""),
        ("Sun, 01 Mar 2026 15:00:06 GMT", "+6 s from ours"),
        ("Sun, 01 Mar 2026 14:59:54 -0000", "-6 s from ours"),
        ("yesterday", ""),
        ("", ""),
    ],
)
async def test_a_peers_clock_that_is_off_is_said_once_and_its_mending_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, date: str, said: str
) -> None:
    caplog.set_level(logging.INFO, "gridgate.oscp")
    async with a_world(tmp_path) as world:
        await world.register()
        world.line.answers = [Answer(headers={"Date": date}), Answer(headers={"Date": date})]
        await world.handshake()
        assert len(world.line.to("heartbeat")) == 1
        assert caplog.text.count("its clock is") == (1 if said else 0)
        assert said in caplog.text
        world.line.answers = [Answer(headers={"date": "Sun, 01 Mar 2026 15:00:54 GMT"})]
        await world.clock.advance(54)
        assert caplog.text.count("agrees with ours again") == (1 if said else 0)


@pytest.mark.parametrize("missed", [0, 1, 2, 5, 1_000])
@pytest.mark.parametrize("seconds", [1, 60, 900, 3_600, 86_400])
def test_no_pause_is_shorter_than_asked_or_longer_than_its_bound(seconds: int, missed: int) -> None:
    interval = timedelta(seconds=seconds)
    for is_offline in (False, True):
        pause = beat_after(interval, missed, is_offline=is_offline)
        assert heartbeat_period(interval) <= pause <= max(SLOWEST_BEAT, heartbeat_period(interval))
