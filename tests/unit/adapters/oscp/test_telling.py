"""What peers are told, each in its own way; and that a peer that takes its time is nobody else's trouble."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from adapters.oscp.dialect import dialect_of, names
from gateway.domain.effects import OutboxItem
from gateway.domain.errors import ConfigError
from gateway.domain.ids import PeerId
from gateway.kit.http_client import HttpCaller
from gateway.ports.adapter import ClientIdentity
from gateway.ports.grid import DeliveryStatus, PeerSettings
from tests.unit.adapters.oscp.fakes import (
    OTHER_ONBOARDING,
    FakeGate,
    World,
    a_forecast,
    a_peer,
    a_register,
    a_world,
    settle,
    token_in,
)

pytestmark = pytest.mark.anyio

AT = "2026-03-01T15:00:00Z"
SINCE = "2026-03-01T13:30:00Z"
VALUES: list[dict[str, Any]] = [
    {"quantity": "energy_import_wh", "value": 900_500, "measured_at": AT, "scope": "TOTAL"},
    {"quantity": "energy_export_wh", "value": 100, "measured_at": AT, "scope": "TOTAL"},
    {"quantity": "energy_import_wh", "value": 30_000, "measured_at": AT, "scope": "FLEXIBLE"},
    {"quantity": "energy_import_wh", "value": 870_500, "measured_at": AT, "scope": "NONFLEXIBLE"},
    {"quantity": "power_w", "value": 7_250, "measured_at": AT, "scope": "TOTAL"},
    {"quantity": "energy_import_wh", "value": 4_200, "measured_at": AT, "scope": "FLEXIBLE", "since": SINCE},
]


def a_report(peer: str = "dso", ident: str = "m-1", values: Any = VALUES) -> OutboxItem:
    return OutboxItem(ident, PeerId(peer), "measurements", {"node": "main", "values": values})


async def shake(world: World, wanted: Any) -> None:
    await world.register()
    await world.post("handshake", {"required_behaviour": {"measurement_configuration": wanted}})
    await world.deliver()


async def told(world: World, item: OutboxItem) -> list[dict[str, Any]]:
    carrier = world.running.carrier
    assert carrier is not None
    assert (await carrier.deliver(item)).status is DeliveryStatus.DONE
    return [m for call in world.line.to("update_group_measurements") for m in json.loads(call.content)["measurements"]]


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [
        (["CONTINUOUS"], ["TOTAL", "TOTAL", "FLEXIBLE", "NONFLEXIBLE"]),
        ([], ["TOTAL", "TOTAL", "FLEXIBLE", "NONFLEXIBLE"]),
        (["INTERMITTENT"], ["FLEXIBLE since"]),
        (["CONTINUOUS", "INTERMITTENT"], ["TOTAL", "TOTAL", "FLEXIBLE", "NONFLEXIBLE", "FLEXIBLE since"]),
    ],
    ids=str,
)
async def test_a_peer_is_told_the_kinds_of_registers_that_it_wants(
    tmp_path: Path, wanted: list[str], kinds: list[str]
) -> None:
    async with a_world(tmp_path) as world:
        await shake(world, wanted)
        found = await told(world, a_report())
    assert [m["energy_type"] + (" since" if "initial_measure_time" in m else "") for m in found] == kinds


async def test_a_sessions_register_says_when_it_began(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await shake(world, ["INTERMITTENT"])
        (measurement,) = await told(world, a_report())
    assert measurement == {
        "value": 4_200,
        "phase": "ALL",
        "unit": "WH",
        "direction": "IMPORT",
        "energy_type": "FLEXIBLE",
        "measure_time": AT,
        "initial_measure_time": SINCE,
    }


async def test_where_nothing_of_the_kind_is_known_nothing_is_sent(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await shake(world, ["INTERMITTENT"])
        assert await told(world, a_report(values=VALUES[:5])) == []
        assert await told(world, a_report(ident="m-2", values=[VALUES[4]])) == []


async def test_momentary_power_alone_is_no_register(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await shake(world, ["CONTINUOUS"])
        assert await told(world, a_report(values=[VALUES[4]])) == []


@pytest.mark.parametrize("wanted", [[], ["CONTINUOUS"], ["INTERMITTENT"], ["CONTINUOUS", "INTERMITTENT"]])
async def test_a_peer_that_meters_assets_is_told_the_whole_group_as_one(tmp_path: Path, wanted: list[str]) -> None:
    """Which registers it wants says nothing about momentary power."""
    options = {"metering": "asset", "asset_unit": "KW"}
    async with a_world(tmp_path, dso=a_peer("dso", options=options)) as world:
        await shake(world, wanted)
        await told(world, a_report())
        (call,) = world.line.to("update_asset_measurements")
    assert json.loads(call.content) == {
        "group_id": "DEPOT-7",
        "measurements": [
            {
                "asset_id": "DEPOT-7",
                "asset_category": "CHARGING",
                "instantaneous_measurement": {"value": 7.25, "phase": "ALL", "unit": "KW", "measure_time": AT},
            }
        ],
    }


# --- dialects ------------------------------------------------------------------------------------


def settings(dialect: str, **options: Any) -> PeerSettings:
    return a_peer("dso", dialect=dialect, options=options)


def test_the_profiles_of_known_peers_ship() -> None:
    assert names() == ("elmo", "pyoscp", "solarnetwork", "standard", "vector-derms")


@pytest.mark.parametrize("name", names())
def test_every_profile_reads_and_says_whom_it_is_for(name: str) -> None:
    assert dialect_of(settings(name)).summary


def test_the_standard_file_says_every_default() -> None:
    assert dialect_of(settings("standard")) == dialect_of(settings("standard", heartbeat_interval_s=60))
    standard = dialect_of(settings("standard"))
    assert (standard.onboarding, standard.handshake_start, standard.scheme) == ("register", "cp", "Token")
    assert (standard.metering, standard.liveness, standard.acknowledge_body) == ("group", "heartbeat", "full")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vector-derms", {"onboarding": "provisioned", "scheme": "Bearer", "metering": "asset", "asset_unit": "KW"}),
        ("elmo", {"acknowledge_body": "empty", "measurement_unit": "KWH", "liveness": "forecast"}),
        ("solarnetwork", {"onboarding": "register", "handshake_start": "cp", "metering": "group"}),
        ("pyoscp", {"heartbeat_time": "local_seconds", "acknowledge_body": "interval"}),
    ],
)
def test_profiles_say_what_is_known_of_their_peers(name: str, expected: dict[str, str]) -> None:
    found = dialect_of(settings(name))
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    "options", [{"scheme": "Basic"}, {"onboarding": "none"}, {"handshake_start": "co"}, {"metering": "x"}]
)
def test_a_switch_takes_its_own_values_alone(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        dialect_of(settings("standard", **options))


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.7",
        "127.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104  an address that is refused
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.7",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:7",
        "2002:a00:7::",
    ],
)
async def test_a_peer_whose_name_leads_inside_is_never_called_and_the_registration_is_over(
    tmp_path: Path, address: str
) -> None:
    """The name was allowed when it registered; what counts is where it leads when we connect."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return [address]

    async with a_world(tmp_path) as world:
        real = HttpCaller(ClientIdentity(), url_hosts=("dso.example.org",), resolve=resolve)
        world.line.through = real
        await world.post("register", a_register())
        (delivery,) = await world.deliver()
        assert delivery.status is DeliveryStatus.DEAD
        assert delivery.detail.startswith("peer.address")
        assert json.loads(world.gate.rows["relation/dso"])["state"] == "unregistered"


# --- one slow peer ----------------------------------------------------------------------------------


class Stuck:
    """A line that takes the call and never answers."""

    def __init__(self) -> None:
        self.taken = asyncio.Event()

    async def __call__(self) -> None:
        self.taken.set()
        await asyncio.Event().wait()


async def both_online(world: World) -> None:
    """Two peers, both registered, both wanting heartbeats."""
    await world.register()
    await world.handshake()
    body = a_register("token-b-of-other")
    assert (await world.post("register", body, token=OTHER_ONBOARDING, certificate="other")).status_code == 204
    await world.deliver()
    token = token_in(world.lines["other"].to("register")[-1])
    wish = {"required_behaviour": {"heartbeat_interval": 60}}
    assert (await world.post("handshake", wish, token=token, certificate="other")).status_code == 204
    await world.deliver()
    await settle()


async def test_a_peer_that_never_answers_holds_nobody_elses_heartbeats(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await both_online(world)
        world.line.during = stuck = Stuck()
        for _ in range(3):
            await world.clock.advance(54)
        assert stuck.taken.is_set()
        assert len(world.line.to("heartbeat")) == 2, "its own waits for its answer"
        assert len(world.lines["other"].to("heartbeat")) == 4


async def test_a_peer_that_never_answers_is_itself_still_heard(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await both_online(world)
        world.line.during = stuck = Stuck()
        carrier = world.running.carrier
        assert carrier is not None
        calling = asyncio.ensure_future(carrier.deliver(a_report()))
        await stuck.taken.wait()
        assert (await world.post("update_group_capacity_forecast", a_forecast())).status_code == 204
        assert (await world.post("heartbeat", {})).status_code == 204
        assert (await world.post("handshake", {})).status_code == 204
        calling.cancel()


class SlowFor(FakeGate):
    """A store that does not come back for one peer's messages."""

    slow = ""

    async def submit(self, *args: Any, **kwargs: Any) -> Any:
        inbound = kwargs.get("inbound")
        if inbound is not None and inbound.peer == self.slow:
            await asyncio.Event().wait()
        return await super().submit(*args, **kwargs)


async def test_a_message_that_waits_for_its_commit_holds_no_other_peers(tmp_path: Path) -> None:
    gate = SlowFor()
    async with a_world(tmp_path, gate=gate) as world:
        await world.register()
        gate.slow = "other"
        body = a_register("token-b-of-other")
        waiting = asyncio.ensure_future(world.post("register", body, token=OTHER_ONBOARDING, certificate="other"))
        await settle()
        assert not waiting.done()
        assert (await world.post("update_group_capacity_forecast", a_forecast())).status_code == 204
        assert (await world.post("handshake", {})).status_code == 204
        waiting.cancel()
