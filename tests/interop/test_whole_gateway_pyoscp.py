"""A gateway in a process of its own between pyoscp and stations written by others: nothing at either end is ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.testing.offline import question
from tests.interop.peers_pyoscp import PyoscpCapacityProvider, require_pyoscp
from tests.interop.tls_forwarder import Forwarder, client_side, server_side
from tests.interop.whole_site import (
    FLEET,
    PATIENCE_S,
    PLENTY_W,
    Consequence,
    Fleet,
    a_foreign_plan,
    consequence,
    fingerprint,
    main_meter,
)
from tests.support.gateway import GROUP, Depot
from tests.support.ocpp import until

CUT_W, RAISE_W = 24_000, 60_000
DRAWN_W = 20_000
"""What the main meter says all the time: within each of the limits."""

HEARTBEATS = {"heartbeat_interval_s": 20}
"""Asked of pyoscp, which vouches for three times as long: a busy machine does not lose it."""

TOKEN = "pyoscp-token-a-of-the-first-registration"

pytestmark = [pytest.mark.interop, pytest.mark.anyio]


def a_depot(folder: Path, fleet: Sequence[tuple[str, str]]) -> Depot:
    depot = Depot.build(folder / "depot", a_foreign_plan(fleet), "127.0.0.1:1")
    # Windows short enough to see their verdicts.
    depot.edit(lambda document: document["bindings"][0].update(window_s=2, reaction_s=5))
    return depot


def on_an_insecure_listener(depot: Depot, cp_host: str) -> None:
    """A second grid listener, on which pyoscp is known by its token alone, and main is its group."""
    token = depot.stage.folder / "secrets" / "pyoscp.token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)

    def change(document: dict[str, Any]) -> None:
        document["listeners"]["lab"] = {"host": "127.0.0.1", "port": 0, "trust": "insecure"}
        peer = {"id": "pyoscp", "adapter": "oscp", "listener": "lab", "dialect": "pyoscp", "allow_private": True}
        document["peers"].append({**peer, "token": f"file:{token}", "url_hosts": [cp_host], "options": HEARTBEATS})
        document["bindings"][0]["peer"] = "pyoscp"

    depot.edit(change)


def block(watts: int) -> Mapping[str, Any]:
    """One hour from now on, in pyoscp's words."""
    now = datetime.now(UTC).replace(microsecond=0)
    times = {"start_time": now.isoformat(), "end_time": (now + timedelta(hours=1)).isoformat()}
    return {"capacity": watts / 1000, "phase": "ALL", "unit": "KW", **times}


async def told(cp: PyoscpCapacityProvider, watts: int) -> str:
    """A forecast of pyoscp's that the gateway acknowledged; its request id."""
    answer = await cp.forecast(GROUP, "CONSUMPTION", [block(watts)])
    assert answer.status == 204, answer.body
    return answer.request_id


async def join(cp: PyoscpCapacityProvider, base_url: str, token: str) -> None:
    """Register and shake hands, to the end."""
    fp_url = f"{base_url}/oscp/fp/2.0"
    answer = await cp.register(fp_url, token)
    assert answer.status == 204, answer.body
    assert (await cp.state())["endpoints"]["pyoscp-token-b-0123456789"]["register"]["base_url"] == fp_url
    assert (await cp.handshake()).status == 204
    (acknowledge,) = await cp.received("handshake_acknowledgment")
    assert acknowledge["status"] == 204


async def an_hour_of_limits(depot: Depot, cp: PyoscpCapacityProvider, there: Fleet) -> tuple[str, str]:
    """Everybody charges, is cut, is judged, and gets more again; the ids of both forecasts."""
    await there.full()
    cut = await told(cp, CUT_W)
    await until(lambda: there.watts() <= CUT_W)
    cut_amperes = there.amperes()
    await depot.sealed("compliance.interval", lambda e: (e.body["limit_w"], e.body["verdict"]) == (CUT_W, "COMPLIANT"))
    await there.draw(5_000)
    raised = await told(cp, RAISE_W)
    await until(lambda: all(a > b for a, b in zip(there.amperes(), cut_amperes, strict=True)), PATIENCE_S)
    assert there.watts() <= RAISE_W
    there.check_content()
    return cut, raised


async def check_reports(cp: PyoscpCapacityProvider) -> None:
    """Pyoscp got, and decoded, heartbeats and the reading of the main meter."""
    assert (await cp.received("heartbeat"))[0]["status"] == 204
    report = (await cp.received("update_group_measurements"))[0]
    assert report["status"] == 204
    handled = dict((await cp.state())["handled"])["measurements"]
    (reading,) = [m for m in handled["measurements"] if m.get("energy_type", "TOTAL") == "TOTAL"]
    assert (reading["value"], reading["unit"], reading["direction"]) == (4_711_000, "WH", "IMPORT")


def check_record(depot: Depot, cut_id: str, raised_id: str) -> tuple[Consequence, Consequence]:
    """Both forecasts, the commands that they led to, and the stations' answers are in a log that verifies."""
    depot.verify()
    cut, raised = consequence(depot, cut_id), consequence(depot, raised_id)
    evses = {station.node for station in depot.plan.stations}
    assert set(cut.sent) == set(cut.acknowledged) == set(raised.sent) == set(raised.acknowledged) == evses
    assert {entry.body["tightens"] for entry in cut.sent.values()} == {True}
    assert {entry.body["tightens"] for entry in raised.sent.values()} == {False}
    assert cut.watts() <= CUT_W < raised.watts() <= RAISE_W
    assert depot.entries("setpoint.failed") == depot.entries("signal.refused") == depot.entries("source.lost") == []
    assert "update_group_measurements: HTTP 204" in {e.body["detail"] for e in depot.entries("report.delivered")}
    return cut, raised


async def check_trace(depot: Depot, cut: Consequence, request_id: str) -> None:
    """From an EVSE's meter value and from its setpoint, ``trace`` reaches what pyoscp said."""
    evse, sent = next(iter(cut.sent.items()))
    of_evse = await question(depot.stage.folder, "trace", evse, "site.yaml")
    assert (of_evse.code, of_evse.document["kind"]) == (0, "measurement")
    assert of_evse.document["measurement"]["value"] == 5_000
    assert of_evse.document["set_by"][0] == request_id, "its window may hold the beginning of the next limit, too"
    assert {verdict["verdict"] for verdict in of_evse.document["verdicts"]} == {"COMPLIANT"}
    of_command = await question(depot.stage.folder, "trace", sent.subject["command"], "site.yaml")
    assert (of_command.code, of_command.document["kind"]) == (0, "command")
    assert request_id in of_command.document["requests"]
    types = {entry["type"] for entry in of_command.document["entries"]}
    assert {"envelope.revised", "allocation.decided", "setpoint.sent", "setpoint.acknowledged"} <= types


async def test_pyoscps_forecasts_reach_four_foreign_stations_by_token_alone(tmp_path: Path) -> None:
    require_pyoscp()
    async with PyoscpCapacityProvider.running(tmp_path / "pyoscp") as cp:
        depot = a_depot(tmp_path, FLEET)
        on_an_insecure_listener(depot, cp.host)
        async with depot.running() as (child, ports):
            async with main_meter(depot, ports["admin"], DRAWN_W):
                await join(cp, f"http://127.0.0.1:{ports['lab']}", TOKEN)
                await told(cp, PLENTY_W)
                async with Fleet.running(depot, ports["ocpp"], FLEET) as there:
                    cut_id, raised_id = await an_hour_of_limits(depot, cp, there)
                await check_reports(cp)
            await child.stop()
    cut, _ = check_record(depot, cut_id, raised_id)
    assert (cut.actor["listener"], cut.actor["principal"]) == ("lab", "pyoscp")
    assert not cut.actor.get("cert_sha256")
    await check_trace(depot, cut, cut_id)


@asynccontextmanager
async def pyoscp_behind_tls(
    folder: Path, depot: Depot
) -> AsyncIterator[tuple[PyoscpCapacityProvider, Forwarder, Forwarder]]:
    """Pyoscp with the DSO's certificate lent to it both ways, and the two forwarders that do it."""
    pki = depot.stage.pki
    party, ca = pki.parties["dso"], pki.listeners["grid"].client_ca
    async with (
        Forwarder.running(accepts=server_side(party), calls=client_side(party)) as out,
        Forwarder.running(accepts=server_side(party, ca), calls=None) as back,
        PyoscpCapacityProvider.running(folder / "pyoscp", base_url=f"{back.url}/oscp/cp/2.0", ca=party.server_ca) as cp,
    ):
        back.target = cp.port

        def change(document: dict[str, Any]) -> None:
            # Pyoscp calls whatever address we tell it, and has no certificate to show there.
            document["listeners"]["grid"]["public_url"] = out.url
            document["peers"][0].update(dialect="pyoscp", url_hosts=[back.host], options=HEARTBEATS)

        depot.edit(change)
        yield cp, out, back


async def test_pyoscps_forecasts_reach_foreign_stations_over_mutual_tls(tmp_path: Path) -> None:
    require_pyoscp()
    fleet = [("rpc", "1.6"), ("ocpp", "2.0.1")]
    depot = a_depot(tmp_path, fleet)
    async with pyoscp_behind_tls(tmp_path, depot) as (cp, out, back):
        async with depot.running() as (child, ports):
            out.target = ports["grid"]
            bare = await cp.register(f"https://127.0.0.1:{ports['grid']}/oscp/fp/2.0", depot.stage.token)
            assert bare.status == 0, "without a certificate there is no HTTP at all"
            async with main_meter(depot, ports["admin"], DRAWN_W):
                await join(cp, out.url, depot.stage.token)
                await told(cp, PLENTY_W)
                async with Fleet.running(depot, ports["ocpp"], fleet) as there:
                    cut_id, raised_id = await an_hour_of_limits(depot, cp, there)
                await check_reports(cp)
            await child.stop()
    cut, raised = check_record(depot, cut_id, raised_id)
    proof = {"listener": "grid", "principal": "dso", "cert_sha256": fingerprint(depot.stage.pki.parties["dso"])}
    assert {**cut.actor, **proof} == cut.actor
    assert {**raised.actor, **proof} == raised.actor
    assert set(back.callers) == {depot.plan.id}, "whoever calls pyoscp shows the gateway's certificate"
    await check_trace(depot, cut, cut_id)


async def test_doctor_names_the_insecure_listener_and_its_peer(tmp_path: Path) -> None:
    depot = a_depot(tmp_path, FLEET)
    on_an_insecure_listener(depot, "127.0.0.1:1")
    said = await question(depot.stage.folder, "doctor", "site.yaml")
    relaxed = [check["text"] for check in said.document["checks"] if check["name"] == "relaxed"]
    assert any("Listener lab is insecure" in text for text in relaxed)
    assert any("Peer pyoscp is known by its token alone" in text for text in relaxed)
    assert not any("grid" in text for text in relaxed)
