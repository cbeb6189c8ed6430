"""Registrations and handshakes that we start, and how they may cross with the peer's own."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.oscp.operator import Operator
from adapters.oscp.session import State
from gateway.domain.envelope import Block
from gateway.domain.errors import ActionRefused, ConfigError, NotAuthorised, PeerTimeout, StoreError
from gateway.domain.events import MessageNoted, ReportDelivered, SourceEnded, SourceHeard
from gateway.domain.ids import PeerId
from gateway.ports.adapter import Operated
from gateway.ports.grid import DeliveryStatus, PeerOperator
from tests.unit.adapters.oscp.fakes import (
    NOW,
    ONBOARDING,
    Answer,
    Call,
    World,
    a_forecast,
    a_peer,
    a_register,
    a_world,
    settle,
    token_in,
)

pytestmark = pytest.mark.anyio

CP = "https://dso.example.org/oscp/cp/2.0"
DSO = PeerId("dso")


def a_host(**options: Any) -> Any:
    """A peer that waits for us: its address and its onboarding token stand in the configuration."""
    return a_peer("dso", options={"address": CP, **options})


def operator(world: World) -> Operator:
    found = world.running.operator
    assert found is not None
    port: PeerOperator = found
    assert isinstance(world.running, Operated)
    assert world.running.operator is port
    return found


async def start(world: World) -> Call:
    """Start a registration; the call that reached the peer."""
    await operator(world).register(DSO)
    await world.deliver()
    return world.line.to("register")[-1]


async def answer(world: World, call: Call, **changes: Any) -> httpx.Response:
    """The peer's own register, as an answer to ours."""
    headers = {"X-Correlation-ID": call.headers["X-Request-ID"], **changes.pop("headers", {})}
    given = {"token": token_in(call), "headers": headers, **changes}
    return await world.post("register", a_register("token-c-of-the-dso"), **given)


async def test_we_start_with_the_onboarding_token_all_versions_and_a_token_of_ours(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        call = await start(world)
    assert (call.method, call.url) == ("POST", f"{CP}/register")
    assert call.headers["Authorization"] == f"Token {ONBOARDING}"
    assert "X-Correlation-ID" not in call.headers
    assert json.loads(call.content)["version_url"] == [
        {"version": "2.0", "base_url": "https://fp.example.org/oscp/fp/2.0"}
    ]
    assert len(token_in(call)) == 64


async def test_the_peers_answer_completes_the_registration_without_a_further_reply(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        call = await start(world)
        assert (await answer(world, call)).status_code == 204
        assert world.gate.outbox == []
        world.token = token_in(call)
        assert (await world.post("update_group_capacity_forecast", a_forecast())).status_code == 204
        await world.handshake()
        told = world.line.to("handshake_acknowledge")[0]
        assert told.headers["Authorization"] == "Token token-c-of-the-dso"


async def test_a_peer_that_answers_before_its_204_is_understood(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:

        async def answers_first() -> None:
            world.line.during = None
            assert (await answer(world, world.line.calls[-1])).status_code == 204

        world.line.during = answers_first
        call = await start(world)
        world.token = token_in(call)
        assert (await world.post("update_group_capacity_forecast", a_forecast())).status_code == 204


async def test_the_answer_may_be_repeated_under_its_id_or_another(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        call = await start(world)
        same = {"X-Request-ID": "answer-1"}
        for headers in (same, same, {"X-Request-ID": "answer-2"}):
            assert (await answer(world, call, headers=headers)).status_code == 204


async def test_our_token_is_good_for_the_answer_alone_until_it_has_come(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        call = await start(world)
        ours = token_in(call)
        assert (await world.post("handshake", {}, token=ours)).status_code == 403
        assert (await world.post("register", a_register(), token=ours)).status_code == 403
        stranger = {"X-Correlation-ID": "not-ours"}
        assert (await world.post("register", a_register(), token=ours, headers=stranger)).status_code == 400


async def test_the_onboarding_token_of_the_peer_does_not_open_our_own_door(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        assert (await world.post("register", a_register(), token=ONBOARDING)).status_code == 401


@pytest.mark.parametrize("version", ["1.0", "3.0"])
async def test_an_answer_that_chooses_another_version_is_501(tmp_path: Path, version: str) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        call = await start(world)
        body = {"token": "c", "version_url": [{"version": version, "base_url": CP}]}
        headers = {"X-Correlation-ID": call.headers["X-Request-ID"]}
        assert (await world.post("register", body, token=token_in(call), headers=headers)).status_code == 501


async def test_an_answer_cannot_send_us_elsewhere(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        call = await start(world)
        headers = {"X-Correlation-ID": call.headers["X-Request-ID"]}
        body = a_register(url="https://elsewhere.example.org/oscp")
        assert (await world.post("register", body, token=token_in(call), headers=headers)).status_code == 400


@pytest.mark.parametrize("refusal", [Answer(501), Answer(401), NotAuthorised("inside", code="peer.address")])
async def test_a_peer_that_refuses_leaves_nothing_open_and_we_may_start_again(
    tmp_path: Path, refusal: Answer | Exception
) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        world.line.answers = [refusal]
        await operator(world).register(DSO)
        (delivery,) = await world.deliver()
        assert delivery.status is DeliveryStatus.DEAD
        void = token_in(world.line.calls[0])
        assert (await answer(world, world.line.calls[0])).status_code == 401
        call = await start(world)
        assert token_in(call) != void
        assert (await answer(world, call)).status_code == 204


async def test_a_peer_that_cannot_be_reached_is_asked_again_with_the_same_token_after_a_restart_too(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        world.line.answers = [PeerTimeout("slow")]
        await operator(world).register(DSO)
        item = world.gate.outbox[0]
        await world.deliver()
        await world.restart()
        carrier = world.running.carrier
        assert carrier is not None
        assert (await carrier.deliver(item)).status is DeliveryStatus.DONE
        first, second = world.line.to("register")
        assert token_in(first) == token_in(second)
        assert first.headers["X-Request-ID"] == second.headers["X-Request-ID"]
        assert (await answer(world, second)).status_code == 204


async def test_a_registration_without_answer_is_given_up_after_10_minutes_and_said_to_be(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        call = await start(world)
        await world.clock.advance(599)
        assert not [e for e in world.gate.events if isinstance(e, ReportDelivered)]
        await world.clock.advance(1)
        (told,) = [e for e in world.gate.events if isinstance(e, ReportDelivered)]
        assert (told.work, told.delivered) == (call.headers["X-Request-ID"], False)
        assert (await answer(world, call)).status_code == 401


async def test_where_the_peer_expects_it_we_start_by_ourselves_and_once_more_after_silence(tmp_path: Path) -> None:
    """ELMO: the operator of the Capacity Provider hands out the token, the Flexibility Provider starts."""
    async with a_world(tmp_path, dso=a_peer("dso", dialect="elmo", options={"address": CP})) as world:
        await settle()
        await world.deliver()
        assert len(world.line.to("register")) == 1
        await world.clock.advance(600)
        await world.deliver()
        first, second = world.line.to("register")
        assert (await answer(world, first)).status_code == 401
        assert (await answer(world, second)).status_code == 204


async def test_a_peer_that_refuses_is_not_asked_again_by_itself(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_peer("dso", dialect="elmo", options={"address": CP})) as world:
        world.line.answers = [Answer(401)]
        await settle()
        await world.deliver()
        await world.clock.advance(3_600)
        assert world.gate.outbox == []
        assert (await answer(world, await start(world))).status_code == 204


async def test_a_second_start_replaces_the_first(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        first = await start(world)
        second = await start(world)
        assert (await answer(world, first)).status_code == 401
        assert (await answer(world, second)).status_code == 204


async def test_what_the_operator_wanted_is_evidence_and_nothing_leaves_before_it_is_stored(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_host()) as world:
        world.gate.is_broken = True
        with pytest.raises(StoreError):
            await operator(world).register(DSO)
        world.gate.is_broken = False
        assert world.gate.outbox == []
        ident = await operator(world).register(DSO)
        (noted,) = [e for e in world.gate.events if isinstance(e, MessageNoted)]
        assert (noted.type, noted.message.message_id) == ("oscp.register_start", ident)


@pytest.mark.parametrize(
    ("peer", "said"),
    [(a_peer("dso"), "options.address"), (a_peer("dso", options={"address": CP}, token=""), "token")],
)
async def test_without_an_address_or_a_token_nothing_can_be_started(tmp_path: Path, peer: Any, said: str) -> None:
    async with a_world(tmp_path, dso=peer) as world:
        with pytest.raises(ActionRefused, match=said):
            await operator(world).register(DSO)
        with pytest.raises(ActionRefused, match="no OSCP peer"):
            await operator(world).register(PeerId("nobody"))


async def test_without_a_relation_there_is_nothing_to_renew_end_shake_or_ask(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        mine = operator(world)
        block = Block(NOW, NOW + timedelta(hours=1), 1)
        for wish in (
            mine.renew(DSO),
            mine.end(DSO),
            mine.handshake(DSO),
            mine.adjust(DSO, "DEPOT-7", "CONSUMPTION", [block]),
        ):
            with pytest.raises(ActionRefused, match="no relation"):
                await wish


async def test_both_may_start_at_once_and_the_pair_is_usable(tmp_path: Path) -> None:
    """A starts while B's answer is still owed: every token that was delivered last is the one that counts."""
    async with a_world(tmp_path) as world:
        await world.register()
        old = world.token
        await world.post("register", a_register("token-b-again"), token=old)
        await operator(world).register(DSO)
        await world.deliver()
        theirs, ours = world.line.to("register")[-2:]
        assert (await answer(world, ours)).status_code == 204
        assert (
            await world.post("update_group_capacity_forecast", a_forecast(), token=token_in(ours))
        ).status_code == 204
        assert token_in(theirs) != token_in(ours)


async def test_a_renewal_takes_effect_with_the_204_and_needs_no_handshake(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await world.handshake()
        old = world.token
        await operator(world).renew(DSO)
        assert (await world.post("heartbeat", {}, token=old)).status_code == 204
        await world.deliver()
        call = world.line.to("register")[-1]
        assert (call.method, "X-Correlation-ID" in call.headers) == ("PUT", False)
        assert (await world.post("heartbeat", {}, token=old)).status_code == 401
        assert (await world.post("heartbeat", {}, token=token_in(call))).status_code == 204


async def test_a_peer_that_uses_the_renewed_token_before_its_204_is_known(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await operator(world).renew(DSO)
        world.line.answers = [PeerTimeout("its answer got lost")]
        await world.deliver()
        renewed = token_in(world.line.to("register")[-1])
        assert (await world.post("heartbeat", {}, token=renewed)).status_code == 204


async def test_an_end_holds_here_at_once_and_is_told_with_the_last_token(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await operator(world).end(DSO)
        ended = world.gate.events[-1]
        assert isinstance(ended, SourceEnded)
        assert (await world.post("heartbeat", {})).status_code == 401
        await world.deliver()
        call = world.line.calls[-1]
        assert (call.method, call.url, call.content) == ("DELETE", f"{CP}/register", b"")
        assert call.headers["Authorization"] == "Token token-b-of-the-dso"


async def test_where_the_peer_expects_it_we_start_the_handshake_once_registered(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_peer("dso", options={"handshake_start": "fp"})) as world:
        await world.register()
        await settle()
        await world.deliver()
        (shake,) = world.line.to("handshake")
        behaviour = json.loads(shake.content)["required_behaviour"]
        assert behaviour == {"heartbeat_interval": 60, "measurement_configuration": []}
        headers = {"X-Correlation-ID": shake.headers["X-Request-ID"]}
        reply = await world.post(
            "handshake_acknowledge", {"required_behaviour": {"heartbeat_interval": 30}}, headers=headers
        )
        assert reply.status_code == 204
        heard = world.gate.events[-1]
        assert isinstance(heard, SourceHeard)
        await settle()
        assert len(world.line.to("heartbeat")) == 1


async def test_a_refused_handshake_is_not_repeated_by_itself(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_peer("dso", options={"handshake_start": "fp"})) as world:
        await world.register()
        world.line.answers = [Answer(404)]
        await settle()
        await world.deliver()
        await settle()
        assert world.gate.outbox == []
        await world.handshake()
        assert (await world.post("heartbeat", {})).status_code == 204


async def test_two_handshakes_that_cross_end_online(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await operator(world).handshake(DSO)
        await world.post("handshake", {"required_behaviour": {"heartbeat_interval": 20}})
        ours = world.gate.outbox[0]
        headers = {"X-Correlation-ID": ours.id}
        assert (await world.post("handshake_acknowledge", {}, headers=headers)).status_code == 204
        done = await world.deliver()
        assert [d.status for d in done] == [DeliveryStatus.DONE] * 2
        state = json.loads(world.gate.rows["relation/dso"])["state"]
        assert state == State.ONLINE


# --- peers without registration ------------------------------------------------------------------


def a_provisioned(folder: Path, **options: Any) -> Any:
    (folder / "out.token").write_text("what-they-gave-us\n")
    (folder / "headers.json").write_text('{"apikey": "k-1", "fp-id": "depot"}')
    given = {
        "address": CP,
        "token_out_file": str(folder / "out.token"),
        "headers_file": str(folder / "headers.json"),
        **options,
    }
    return a_peer("dso", dialect="vector-derms", options={k: v for k, v in given.items() if v})


async def test_a_provisioned_peer_is_registered_from_the_start_and_never_registers(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_provisioned(tmp_path)) as world:
        bearer = {"Authorization": f"Bearer {ONBOARDING}"}
        assert (await world.post("update_group_capacity_forecast", a_forecast(), headers=bearer)).status_code == 204
        wrong = {"Authorization": f"Token {ONBOARDING}"}
        assert (await world.post("update_group_capacity_forecast", a_forecast(), headers=wrong)).status_code == 401
        with pytest.raises(ActionRefused, match="provisioned"):
            await operator(world).register(DSO)


async def test_a_provisioned_peer_is_called_with_its_token_scheme_and_static_headers(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_provisioned(tmp_path)) as world:
        await settle()
        await world.deliver()
        (shake,) = world.line.to("handshake")
        assert shake.headers["Authorization"] == "Bearer what-they-gave-us"
        assert (shake.headers["apikey"], shake.headers["fp-id"]) == ("k-1", "depot")
        await world.restart()
        assert json.loads(world.gate.rows["relation/dso"])["state"] == State.HANDSHAKING
        assert "what-they-gave-us" not in str(world.gate.rows)


@pytest.mark.parametrize("missing", ["address", "token_out_file"])
async def test_a_provisioned_peer_needs_an_address_and_both_tokens(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ConfigError) as caught:
        World(tmp_path, dso=a_provisioned(tmp_path, **{missing: ""}))
    assert missing in str([p.key for p in caught.value.problems])


@pytest.mark.parametrize(
    "content", ["[]", "no json", '{"Authorization": "Token x"}', '{"a b": "c"}', '{"a": "c\\r\\nd"}']
)
def test_static_headers_are_plain_and_never_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ConfigError):
        World(tmp_path, dso=a_provisioned(tmp_path, headers_file=str(tmp_path / "bad.json")))
