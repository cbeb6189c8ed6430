"""Registration with its swap of tokens, the handshake, and what a restart finds again."""

from __future__ import annotations

import base64
import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.domain.errors import PeerTimeout
from gateway.domain.events import SourceEnded, SourceHeard
from gateway.domain.ids import SourceId
from gateway.ports.grid import DeliveryStatus
from tests.unit.adapters.oscp.fakes import NOW, ONBOARDING, TOKEN_B, Answer, a_forecast, a_register, a_world, token_in

pytestmark = pytest.mark.anyio


async def test_a_registration_is_answered_with_a_callback_that_names_it(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        answer = await world.post("register", a_register(), headers={"X-Request-ID": "q1"})
        assert (answer.status_code, answer.content) == (204, b"")
        assert world.line.calls == []
        (delivery,) = await world.deliver()
        (call,) = world.line.calls
    assert delivery.status is DeliveryStatus.DONE
    assert call.url == "https://dso.example.org/oscp/cp/2.0/register"
    assert call.headers["Authorization"] == f"Token {TOKEN_B}"
    assert call.headers["X-Correlation-ID"] == "q1"
    assert json.loads(call.content)["version_url"] == [
        {"version": "2.0", "base_url": "https://fp.example.org/oscp/fp/2.0"}
    ]
    assert len(token_in(call)) == 64


async def test_the_callback_waits_until_the_answer_has_left(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.post("register", a_register())
        assert world.gate.outbox[0].not_before == NOW + timedelta(seconds=1)


async def test_the_onboarding_token_is_void_once_the_callback_arrived(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        assert (await world.post("register", a_register(), token=ONBOARDING)).status_code == 401
        assert (await world.post("update_group_capacity_forecast", a_forecast())).status_code == 204


async def test_a_callback_that_gets_no_answer_keeps_both_tokens_until_it_arrives(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        world.line.answers = [PeerTimeout("slow"), Answer(500)]
        await world.post("register", a_register())
        item = world.gate.outbox[0]
        carrier = world.running.carrier
        assert carrier is not None
        first, second = await carrier.deliver(item), await carrier.deliver(item)
        assert {first.status, second.status} == {DeliveryStatus.RETRY}
        assert (await world.post("register", a_register(), token=ONBOARDING)).status_code == 204
        third = await carrier.deliver(item)
        assert third.detail == "superseded or already answered"
    tokens = {token_in(call) for call in world.line.calls}
    ids = {call.headers["X-Request-ID"] for call in world.line.calls}
    assert (len(tokens), len(ids)) == (1, 1), "a repetition carries the same token under the same id"


async def test_a_refused_callback_leaves_the_onboarding_token_valid(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        world.line.answers = [Answer(400)]
        await world.post("register", a_register())
        (delivery,) = await world.deliver()
        refused = token_in(world.line.calls[0])
        assert delivery.status is DeliveryStatus.DEAD
        assert (await world.post("handshake", {}, token=refused)).status_code == 401
        await world.register()
        assert (await world.post("handshake", {})).status_code == 204


async def test_using_the_new_token_proves_that_it_arrived(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:

        async def speak_before_answering() -> None:
            world.line.during = None
            early = token_in(world.line.calls[-1])
            assert (await world.post("handshake", {}, token=early)).status_code == 204

        world.line.during = speak_before_answering
        world.line.answers = [PeerTimeout("its answer got lost")]
        await world.post("register", a_register())
        (delivery,) = await world.deliver()
        assert delivery.status is DeliveryStatus.RETRY
        assert (await world.post("register", a_register(), token=ONBOARDING)).status_code == 401


async def test_a_restart_in_the_middle_of_the_swap_delivers_the_same_token(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        world.line.answers = [PeerTimeout("slow")]
        await world.post("register", a_register())
        item = world.gate.outbox[0]
        await world.deliver()
        await world.restart()
        carrier = world.running.carrier
        assert carrier is not None
        assert (await carrier.deliver(item)).status is DeliveryStatus.DONE
        first, second = (token_in(call) for call in world.line.to("register"))
        assert first == second
        assert (await world.post("handshake", {}, token=second)).status_code == 204


async def test_after_a_restart_tokens_and_wishes_are_still_known(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.handshake(interval=30)
        await world.restart()
        assert (await world.post("update_group_capacity_forecast", a_forecast())).status_code == 204
        assert (await world.post("register", a_register(), token=ONBOARDING)).status_code == 401
        before = len(world.line.to("heartbeat"))
        await world.clock.advance(30)
        assert len(world.line.to("heartbeat")) > before


async def test_no_token_lies_readable_in_the_store(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        world.line.answers = [PeerTimeout("slow")]
        await world.post("register", a_register())
        await world.deliver()
        token_c = token_in(world.line.calls[0])
        stored = b"".join(world.gate.rows.values())
        owed = repr(world.gate.outbox)
    for secret in (TOKEN_B, token_c, ONBOARDING):
        assert secret.encode() not in stored
        assert base64.b64encode(secret.encode()) not in stored
        assert secret not in owed
    assert stat.S_IMODE((tmp_path / "oscp.key").stat().st_mode) == 0o600


async def test_a_put_moves_the_peer_without_a_callback(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        moved = a_register("another-token-b", "https://dso.example.org/new/")
        assert (await world.request("PUT", "register", moved)).status_code == 204
        assert world.gate.outbox == []
        await world.handshake()
        call = world.line.to("handshake_acknowledge")[0]
        assert call.url == "https://dso.example.org/new/handshake_acknowledge"
        assert call.headers["Authorization"] == "Token another-token-b"


async def test_a_delete_ends_the_relation_and_voids_every_token(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        assert (await world.request("DELETE", "register", headers={"Content-Type": None})).status_code == 204
        ended = world.gate.events[-1]
        assert isinstance(ended, SourceEnded)
        assert ended.source == SourceId("dso")
        assert (await world.post("update_group_capacity_forecast", a_forecast())).status_code == 401
        assert (await world.post("register", a_register(), token=ONBOARDING)).status_code == 401


async def test_a_known_peer_may_register_again_and_keeps_its_token_until_the_answer(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        old = world.token
        world.line.answers = [PeerTimeout("slow")]
        await world.post("register", a_register("token-b-the-second"))
        item = world.gate.outbox[0]
        await world.deliver()
        assert (await world.post("update_group_capacity_forecast", a_forecast(), token=old)).status_code == 204
        carrier = world.running.carrier
        assert carrier is not None
        await carrier.deliver(item)
        assert (await world.post("update_group_capacity_forecast", a_forecast(), token=old)).status_code == 401


async def test_a_handshake_is_acknowledged_with_a_wish_for_heartbeats(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        behaviour = {"required_behaviour": {"heartbeat_interval": 30, "measurement_configuration": None}}
        await world.post("handshake", behaviour, headers={"X-Request-ID": "shake"})
        await world.deliver()
        call = world.line.to("handshake_acknowledge")[0]
    assert call.headers["X-Correlation-ID"] == "shake"
    assert json.loads(call.content)["required_behaviour"]["heartbeat_interval"] == 60


async def test_a_handshake_counts_as_a_sign_of_life_for_two_intervals(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.handshake()
        heard = world.gate.events[-1]
        assert isinstance(heard, SourceHeard)
        assert heard.alive_until == NOW + timedelta(seconds=120)


async def test_the_fields_of_a_handshake_may_stand_without_their_wrapper(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        assert (await world.post("handshake", {"heartbeat_interval": 20})).status_code == 204
        await world.deliver()
        await world.clock.advance(0)
        assert len(world.line.to("heartbeat")) == 1


@pytest.mark.parametrize("wanted", [["INTERMITTENT"], ["CONTINUOUS", "INTERMITTENT"], [], None])
async def test_a_handshake_may_want_registers_of_either_kind(tmp_path: Path, wanted: list[str] | None) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        answer = await world.post("handshake", {"required_behaviour": {"measurement_configuration": wanted}})
        assert answer.status_code == 204


async def test_a_handshake_with_an_unknown_kind_of_register_is_refused(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        answer = await world.post("handshake", {"required_behaviour": {"measurement_configuration": ["SOMETIMES"]}})
        assert answer.status_code == 400


async def test_a_heartbeat_says_until_when_the_peer_is_alive(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.handshake()
        assert (await world.post("heartbeat", {"offline_mode_at": "2026-03-01T15:05:00Z"})).status_code == 204
        heard = world.gate.noted[-1]
        assert isinstance(heard, SourceHeard)
        assert (heard.source, heard.alive_until) == ("dso", NOW + timedelta(minutes=5))


@pytest.mark.parametrize(
    ("told", "alive_for"),
    [
        ({}, timedelta(minutes=2)),
        ({"offline_mode_at": "2026-04-01T00:00:00Z"}, timedelta(hours=24)),
        ({"offline_mode_at": "2026-03-01T14:00:00+00:00"}, timedelta(hours=-1)),
    ],
)
async def test_a_promise_is_filled_in_capped_or_taken_at_its_word(
    tmp_path: Path, told: dict[str, str], alive_for: timedelta
) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.post("heartbeat", told)
        heard = world.gate.noted[-1]
        assert isinstance(heard, SourceHeard)
        assert heard.alive_until == NOW + alive_for


async def test_heartbeats_leave_a_little_before_they_are_due(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.handshake(interval=60)
        assert len(world.line.to("heartbeat")) == 1
        assert json.loads(world.line.to("heartbeat")[0].content) == {"offline_mode_at": "2026-03-01T15:02:00Z"}
        await world.clock.advance(53.9)
        assert len(world.line.to("heartbeat")) == 1
        await world.clock.advance(0.2)
        assert len(world.line.to("heartbeat")) == 2


async def test_a_peer_that_wants_no_heartbeats_gets_none(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.post("handshake", {"required_behaviour": {}})
        await world.deliver()
        await world.clock.advance(600)
        assert world.line.to("heartbeat") == []
