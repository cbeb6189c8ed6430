"""Start and steer charging stations written by others; see ``station_ocpp.py``, ``station_rpc.js``.

::

    async with ForeignStation.running("ocpp", "ws://127.0.0.1:8887", "CP-1", version="2.0.1") as cp:
        await cp.heard("booted")
        cp.do("start", token="CARD-1")
        transaction = (await cp.heard("started"))["transaction"]
        profile = await cp.heard("profile", purpose="TxProfile")
        cp.do("meter", power_w=7360)

Kinds: ``ocpp`` (PyPI) and ``rpc`` (npm ocpp-rpc, strict). ``require(kind)`` skips where the peer is
not installed, and fails with ``GRIDGATE_CI=1``. With ``identity`` they use mutual TLS.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.ports.adapter import ClientIdentity

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".peers"
PATIENCE_S = 20.0
MOST_LINES = 10_000


def require(kind: str) -> None:
    """Skip with a reason where the peer is absent; in CI that is a failure."""
    if (PEERS / kind / ".installed").exists():
        return
    reason = f"{kind} is not installed: run tests/interop/install_{kind}.sh"
    if os.environ.get("GRIDGATE_CI") == "1":
        pytest.fail(reason)
    pytest.skip(reason)  # a laptop without foreign peers; CI has failed above


class ForeignStation:
    """A running station. ``lines`` holds everything that it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = process
        self._news = asyncio.Event()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        kind: str,
        url: str,
        name: str,
        *,
        version: str = "1.6",
        serial: str = "",
        identity: ClientIdentity | None = None,
        password: str = "",
        **more: object,
    ) -> AsyncIterator[ForeignStation]:
        """Start it in a process of its own; it ends with its stdin. ``more``: options of its program."""
        options: dict[str, str] = {"url": url, "id": name, "version": version, "serial": serial, "password": password}
        options |= {key: str(value) for key, value in more.items()}
        if identity is not None:
            options |= {"cert": str(identity.certificate), "key": str(identity.key), "ca": str(identity.server_ca)}
        words = [word for key, value in options.items() if value for word in (f"--{key}", value)]
        process = await asyncio.create_subprocess_exec(
            *_program(kind),
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "NODE_PATH": str(PEERS / "rpc" / "node_modules")},
        )
        station = cls(process)
        try:
            yield station
        finally:
            await station._end()

    def do(self, what: str, **more: object) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")

    async def heard(self, event: str, after: int = 0, **fields: object) -> dict[str, Any]:
        """The first line of that event with those fields, from line ``after`` on; waits for it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self._news.clear()
                for line in self.lines[after:]:
                    if line["event"] == event and all(line.get(k) == v for k, v in fields.items()):
                        return line
                await self._news.wait()

    @property
    def ended(self) -> bool:
        """Whether its process is over."""
        return self._process.returncode is not None

    def of(self, event: str) -> list[dict[str, Any]]:
        """Lines of an event so far."""
        return [line for line in self.lines if line["event"] == event]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for text in self._process.stdout:
            if len(self.lines) < MOST_LINES:
                self.lines.append(json.loads(text))
            self._news.set()

    async def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reading


def _program(kind: str) -> list[str]:
    here = Path(__file__).parent
    if kind == "ocpp":
        return [str(PEERS / "ocpp" / "bin" / "python"), str(here / "station_ocpp.py")]
    return ["node", str(here / "station_rpc.js")]
