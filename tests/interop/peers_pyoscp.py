"""Start and steer pyoscp (somebody else's OSCP 2.0) as a Capacity Provider; see ``pyoscp_cp.py``.

::

    async with PyoscpCapacityProvider.running(tmp_path) as cp:
        cp.host                     # "127.0.0.1:PORT", for the peer's url_hosts; dialect: pyoscp
        await cp.register("http://127.0.0.1:8080/oscp/fp/2.0", onboarding_token)
        await cp.handshake(heartbeat_interval=5)
        answer = await cp.forecast("DEPOT-7", "CONSUMPTION", [block])
        await cp.received("update_group_measurements")

Needs ``tests/interop/install_pyoscp.sh`` to have run; ``require_pyoscp()`` skips otherwise, and
fails with ``GRIDGATE_CI=1``. pyoscp shows no certificate and serves plain HTTP: give it a peer on a
listener with ``trust: insecure``, or a forwarder that does TLS for it (``tls_forwarder.py``), whose URL
is its ``base_url`` and whose issuer it trusts by ``ca``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.interop.peers_stations import require

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".peers" / "pyoscp" / "bin" / "python"
SCRIPT = Path(__file__).with_name("pyoscp_cp.py")
START_S = 20.0
POLL_S = 0.05


def require_pyoscp() -> None:
    """Skip with a reason where the peer is absent; in CI that is a failure."""
    require("pyoscp")


@dataclass(frozen=True)
class Answered:
    """What the Flexibility Provider answered to pyoscp."""

    status: int
    body: str
    request_id: str


class PyoscpCapacityProvider:
    """A running pyoscp."""

    def __init__(self, url: str, base_url: str, client: httpx.AsyncClient) -> None:
        self.url = url
        self.port = urlsplit(url).port
        self.host = urlsplit(base_url or url).netloc
        self._client = client

    @classmethod
    @asynccontextmanager
    async def running(
        cls, state: Path, *, base_url: str = "", ca: Path | None = None
    ) -> AsyncIterator[PyoscpCapacityProvider]:
        """Start it in a process of its own; it ends with its stdin."""
        state.mkdir(parents=True, exist_ok=True)
        with (state / "pyoscp.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                str(PYTHON),
                str(SCRIPT),
                "--state",
                str(state),
                *(("--base-url", base_url) if base_url else ()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Its heartbeats carry local time without a zone.
                env={**os.environ, "TZ": "UTC", **({"REQUESTS_CA_BUNDLE": str(ca)} if ca else {})},
            )
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                async with asyncio.timeout(START_S):
                    line = (await process.stdout.readline()).decode()
                assert line.startswith("ready "), (state / "pyoscp.log").read_text()
                async with httpx.AsyncClient(trust_env=False, timeout=15) as client:
                    yield cls(line.split()[1], base_url, client)
            finally:
                process.stdin.close()
                try:
                    async with asyncio.timeout(5):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()

    async def register(self, fp_url: str, token: str, *, timeout_s: float = 15.0) -> Answered:
        """Register with the onboarding token and wait for the callback, if the start was taken."""
        answer = await self._control("register", {"fp_url": fp_url, "token": token})
        if answer.status == 204:
            async with asyncio.timeout(timeout_s):
                while not (await self.state())["registered"]:
                    await asyncio.sleep(POLL_S)
        return answer

    async def handshake(self, *, heartbeat_interval: int = 5) -> Answered:
        """Post a handshake; the acknowledge arrives later (``received``)."""
        return await self._control("handshake", {"heartbeat_interval": heartbeat_interval})

    async def forecast(self, group: str, type_: str, blocks: Sequence[Mapping[str, Any]]) -> Answered:
        """Post a capacity forecast; blocks as on the wire."""
        body = {"group_id": group, "type": type_, "forecasted_blocks": list(blocks)}
        return await self._control("forecast", body)

    async def heartbeat(self, offline_mode_at: str) -> Answered:
        """Post a heartbeat with this very text."""
        return await self._control("heartbeat", {"offline_mode_at": offline_mode_at})

    async def raw(self, endpoint: str, body: Any, token: str | None = None) -> Answered:
        """Post anything."""
        return await self._control("raw", {"endpoint": endpoint, "body": body, "token": token})

    async def state(self) -> dict[str, Any]:
        """``registered``, pyoscp's ``endpoints``, and what its managers ``handled``."""
        found: dict[str, Any] = (await self._client.get(f"{self.url}/control/state")).json()
        return found

    async def received(self, endpoint: str, *, count: int = 1, timeout_s: float = 15.0) -> list[dict[str, Any]]:
        """Requests that came on an endpoint: ``headers``, ``body``, ``status``; waits for ``count``."""
        async with asyncio.timeout(timeout_s):
            while True:
                every = (await self._client.get(f"{self.url}/control/received")).json()
                found = [r for r in every if r["path"].endswith("/" + endpoint)]
                if len(found) >= count:
                    return found
                await asyncio.sleep(POLL_S)

    async def _control(self, name: str, body: Mapping[str, Any]) -> Answered:
        answer = (await self._client.post(f"{self.url}/control/{name}", json=body)).json()
        return Answered(answer["status"], answer["body"], answer.get("request_id", ""))
