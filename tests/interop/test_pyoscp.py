"""Our Flexibility Provider against pyoscp's Capacity Provider, over plain HTTP on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.oscp import ADAPTER
from gateway.domain.effects import OutboxItem
from gateway.domain.envelope import BindingPolicy
from gateway.domain.events import EnvelopeRevised, SourceHeard
from gateway.domain.ids import NodeId, PeerId, SiteId
from gateway.infra.http_server import HttpListener
from gateway.ports.adapter import AdapterContext, ListenerSettings, Trust
from gateway.ports.grid import GroupBinding
from tests.interop.peers_pyoscp import PyoscpCapacityProvider, require_pyoscp
from tests.unit.adapters.oscp.fakes import ONBOARDING, Delivering, RealClock, a_peer, a_tree

pytestmark = [pytest.mark.interop, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def a_relation(folder: Path) -> AsyncIterator[tuple[Delivering, PyoscpCapacityProvider, str]]:
    require_pyoscp()
    lab = ListenerSettings("lab", "127.0.0.1", 0, Trust.INSECURE)
    gate = Delivering()
    async with PyoscpCapacityProvider.running(folder / "pyoscp") as cp:
        peer = a_peer(
            "dso",
            listener="lab",
            certificate=None,
            dialect="pyoscp",
            url_hosts=(cp.host,),
            allow_private=True,
            options={"heartbeat_interval_s": 5},
        )
        context = AdapterContext(
            site=SiteId("depot"),
            tree=a_tree(),
            gate=gate,
            clock=RealClock(),
            listeners={"lab": lab},
            identities={},
            peers=(peer,),
            groups=(GroupBinding(PeerId("dso"), "DEPOT-7", NodeId("main"), BindingPolicy()),),
            options={"key_file": str(folder / "oscp.key")},
        )
        running = gate.running = ADAPTER.open(context)
        listener = HttpListener(lab, running.asgi["lab"])
        await listener.start()
        url = f"http://127.0.0.1:{listener.port}"
        await running.start({"lab": url})
        try:
            yield gate, cp, f"{url}/oscp/fp/2.0"
        finally:
            await running.stop(1)
            await listener.stop(1)


async def test_pyoscp_registers_shakes_hands_beats_and_limits(tmp_path: Path) -> None:
    async with a_relation(tmp_path) as (gate, cp, fp_url):
        assert (await cp.register(fp_url, ONBOARDING)).status == 204
        relation = (await cp.state())["endpoints"]["pyoscp-token-b-0123456789"]["register"]
        assert relation["base_url"] == fp_url
        assert relation["token"] != ONBOARDING

        assert (await cp.handshake(heartbeat_interval=5)).status == 204
        (acknowledge,) = await cp.received("handshake_acknowledgment")
        assert acknowledge["status"] == 204

        start = datetime.now(UTC)
        block = {
            "capacity": 40.0,
            "phase": "ALL",
            "unit": "KW",
            "start_time": start.isoformat(),
            "end_time": (start + timedelta(hours=1)).isoformat(),
        }
        answer = await cp.forecast("DEPOT-7", "CONSUMPTION", [block])
        assert answer.status == 204, answer.body
        revised = gate.events[-1]
        assert isinstance(revised, EnvelopeRevised)
        assert (revised.blocks[0].value, revised.correlation) == (40_000, answer.request_id)

        ours = await cp.received("heartbeat")
        assert ours[0]["status"] == 204, "pyoscp reads our offline_mode_at"
        async with asyncio.timeout(20):
            while not gate.noted:
                await RealClock().sleep_until(datetime.now(UTC) + timedelta(milliseconds=50))
        heard = gate.noted[0]
        assert isinstance(heard, SourceHeard)
        assert heard.alive_until is not None
        assert timedelta(seconds=5) < heard.alive_until - datetime.now(UTC) < timedelta(seconds=20)


async def test_pyoscp_takes_our_measurements_and_compliance_errors(tmp_path: Path) -> None:
    async with a_relation(tmp_path) as (gate, cp, fp_url):
        await cp.register(fp_url, ONBOARDING)
        await cp.handshake()
        await cp.received("handshake_acknowledgment")
        values = [{"quantity": "energy_import_wh", "value": 12_345, "measured_at": "2026-03-01T15:00:00Z"}]
        block = {"start": "2026-03-01T16:00:00Z", "end": "2026-03-01T17:00:00Z", "value": 9_000, "dimension": "sum_w"}
        await gate.submit(
            (),
            outbox=(
                OutboxItem("m-1", PeerId("dso"), "measurements", {"node": "main", "values": values}),
                OutboxItem("c-1", PeerId("dso"), "compliance_error", {"message": "m", "blocks": [block]}, "q-7"),
            ),
        )
        (report,) = await cp.received("update_group_measurements")
        (excuse,) = await cp.received("group_capacity_compliance_error")
        handled = dict((await cp.state())["handled"])
    assert (report["status"], excuse["status"]) == (204, 204)
    assert excuse["headers"]["x-correlation-id"] == "q-7"
    assert handled["measurements"]["measurements"][0]["value"] == 12_345
    assert handled["compliance_error"]["forecasted_blocks"][0]["capacity"] == 9_000


async def test_pyoscp_with_a_wrong_token_gets_nowhere(tmp_path: Path) -> None:
    async with a_relation(tmp_path) as (gate, cp, fp_url):
        answer = await cp.register(fp_url, "not-the-token-you-are-looking-for")
        assert answer.status == 401
        assert gate.commits == 0
