"""The baseline of the forecast: FastAPI on uvicorn, one durable INSERT. ``plain_forecast.py SITE.YAML``.

What one writes in an hour: pydantic decodes and checks the body, the token is compared, the request
id must be new, and the row is committed (WAL, ``synchronous=FULL``) before the 204. No evidence log,
no allocation, no commands, no bounds on what a peer may cost. Certificates and TLS settings are
those of the gateway's listener ``grid``; the token lies beside the file, in ``plain.token``.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import sqlite3
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import uvicorn
from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel, Field

from gateway.config.load import load
from gateway.kit.tls import server_context
from gateway.ports.adapter import ListenerSettings
from tests.bench.poster import PATH

TOKEN_FILE = "plain.token"
KEEP_ALIVE_S = 30
"""As the gateway's, so that no connection ends between two runs."""


class Block(BaseModel):
    """A capacity over a time."""

    capacity: Annotated[float, Field(ge=0)]
    phase: Literal["UNKNOWN", "ONE", "TWO", "THREE", "ALL"]
    unit: Literal["A", "W", "KW", "WH", "KWH"]
    start_time: datetime
    end_time: datetime


class Forecast(BaseModel):
    """OSCP 2.0's UpdateGroupCapacityForecast."""

    group_id: str
    type: Literal["CONSUMPTION", "GENERATION", "FALLBACK_CONSUMPTION", "FALLBACK_GENERATION", "OPTIMUM"]
    forecasted_blocks: Annotated[list[Block], Field(min_length=1)]


def make_app(database: Path, token: str) -> FastAPI:
    """The whole server."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE forecast(request_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT")
    expected = f"Token {token}".encode()
    app = FastAPI(openapi_url=None)

    # A `def`, which FastAPI runs in a thread, was measured too: as fast with one connection, slower with eight.
    @app.post(PATH, status_code=204)
    async def take(
        forecast: Forecast, authorization: Annotated[str, Header()], x_request_id: Annotated[str, Header()]
    ) -> None:
        if not hmac.compare_digest(authorization.encode(), expected):
            raise HTTPException(401)
        connection.execute("INSERT INTO forecast VALUES (?, ?)", (x_request_id, forecast.model_dump_json()))

    return app


async def serve(app: FastAPI, listener: ListenerSettings) -> tuple[asyncio.Task[None], int]:
    """Serve on a free port; the serving task and the port."""
    config = uvicorn.Config(app, log_level="warning", timeout_keep_alive=KEEP_ALIVE_S)
    config.load()
    config.ssl = server_context(listener)
    line = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(uvicorn.Server(config).serve(sockets=[line]))
    return task, line.getsockname()[1]


async def main(site_file: Path) -> None:
    """Serve until SIGTERM."""
    app = make_app(site_file.with_name("plain.db"), site_file.with_name(TOKEN_FILE).read_text())
    listener = replace(load(site_file).listeners["grid"], port=0)
    serving, port = await serve(app, listener)
    print("ready", json.dumps({"grid": port}), flush=True)
    await serving


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
