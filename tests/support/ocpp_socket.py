"""A gateway and its stations' raw WebSockets over loopback, for tests of the OCPP adapter."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from adapters.ocpp import ADAPTER
from adapters.ocpp.transport import OcppRunning
from gateway.infra.clock_system import SystemClock
from gateway.ports.fleet import StationSettings
from tests.support.ocpp import PATIENCE_S, FakeGate, a_context


@asynccontextmanager
async def a_gateway(gate: FakeGate, *stations: StationSettings, **context: Any) -> AsyncIterator[OcppRunning]:
    running = ADAPTER.open(a_context(gate, context.pop("clock", SystemClock()), *stations, **context))
    assert isinstance(running, OcppRunning)
    await running.start({})
    try:
        yield running
    finally:
        await running.stop(1)


@asynccontextmanager
async def a_socket(
    running: OcppRunning, name: str = "CP-1", *protocols: str, **more: Any
) -> AsyncIterator[ClientConnection]:
    listener, port = next(iter(running.ports.items()))
    scheme = "wss" if more.get("ssl") else "ws"
    offered = [Subprotocol(word) for word in protocols or ("ocpp1.6",)]
    async with connect(
        f"{scheme}://127.0.0.1:{port}/{listener and 'ocpp/'}{name}", subprotocols=offered, **more
    ) as socket:
        yield socket


async def call(socket: ClientConnection, action: str, payload: dict, name: str = "1") -> list[Any]:
    """CALL and its answer; our own CALLs in between are left unanswered."""
    await socket.send(json.dumps([2, name, action, payload]))
    async with asyncio.timeout(PATIENCE_S):
        while True:
            frame = json.loads(await socket.recv())
            if frame[0] != 2:
                return frame


def status_of(problem: pytest.ExceptionInfo[InvalidStatus]) -> tuple[int, bytes | None]:
    return problem.value.response.status_code, problem.value.response.body


def basic(user: str, password: bytes) -> dict[str, str]:
    """The header of HTTP Basic."""
    return {"Authorization": f"Basic {base64.b64encode(user.encode() + b':' + password).decode()}"}
