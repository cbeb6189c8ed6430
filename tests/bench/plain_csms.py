"""The baseline of the limits: a CSMS on the package ``ocpp`` at its defaults. ``plain_csms.py SITE.YAML``.

What its documentation shows, for 1.6 and 2.0.1: a ``ChargePoint`` per connection on ``websockets``,
JSON Schema validation left on. A forecast that is posted (the same FastAPI server as in
`plain_forecast`, without its INSERT) is answered with 204, and then every station gets an equal part
of the first block's capacity as a TxProfile, all of them at once by ``asyncio.gather``. It keeps no
evidence, knows no tree of limits, repeats nothing and remembers nothing over a restart. Certificates
and TLS settings are those of the gateway's listeners.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ocpp.routing import on
from ocpp.v16 import ChargePoint as ChargePoint16
from ocpp.v16 import call as call_16
from ocpp.v16 import call_result as result_16
from ocpp.v16 import datatypes as types_16
from ocpp.v201 import ChargePoint as ChargePoint201
from ocpp.v201 import call as call_201
from ocpp.v201 import call_result as result_201
from ocpp.v201 import datatypes as types_201
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from gateway.config.load import load
from gateway.kit.tls import server_context
from tests.bench.plain_forecast import Forecast
from tests.bench.plain_forecast import serve as serve_http
from tests.bench.poster import PATH

VOLTAGE_V, PHASES = 230, 3
HEARTBEAT_S = 300
PROTOCOLS = (Subprotocol("ocpp1.6"), Subprotocol("ocpp2.0.1"))


def now() -> str:
    """An instant as OCPP writes it."""
    return datetime.now(UTC).isoformat()


def a_minute_ago() -> str:
    """Start of a schedule that holds already, whatever the clocks."""
    return (datetime.now(UTC) - timedelta(minutes=1)).isoformat()


class Station16(ChargePoint16):
    """A station that speaks 1.6."""

    transaction = 0

    @on("BootNotification")
    def on_boot(self, **_: Any) -> result_16.BootNotification:
        return result_16.BootNotification(current_time=now(), interval=HEARTBEAT_S, status="Accepted")

    @on("StatusNotification")
    def on_status(self, **_: Any) -> result_16.StatusNotification:
        return result_16.StatusNotification()

    @on("StartTransaction")
    def on_start(self, **_: Any) -> result_16.StartTransaction:
        self.transaction = 1
        return result_16.StartTransaction(1, types_16.IdTagInfo("Accepted"))

    @on("MeterValues")
    def on_meter(self, **_: Any) -> result_16.MeterValues:
        return result_16.MeterValues()

    @on("Heartbeat")
    def on_heartbeat(self) -> result_16.Heartbeat:
        return result_16.Heartbeat(current_time=now())

    async def limit(self, amperes: float) -> None:
        """Install it for the running transaction."""
        period = types_16.ChargingSchedulePeriod(0, amperes)
        schedule = types_16.ChargingSchedule("A", [period], start_schedule=a_minute_ago())
        profile = types_16.ChargingProfile(1, 1, "TxProfile", "Absolute", schedule, transaction_id=self.transaction)
        await self.call(call_16.SetChargingProfile(1, profile), suppress=False)


class Station201(ChargePoint201):
    """A station that speaks 2.0.1."""

    transaction = ""

    @on("BootNotification")
    def on_boot(self, **_: Any) -> result_201.BootNotification:
        return result_201.BootNotification(current_time=now(), interval=HEARTBEAT_S, status="Accepted")

    @on("StatusNotification")
    def on_status(self, **_: Any) -> result_201.StatusNotification:
        return result_201.StatusNotification()

    @on("TransactionEvent")
    def on_transaction(self, transaction_info: dict[str, Any], **_: Any) -> result_201.TransactionEvent:
        self.transaction = transaction_info["transaction_id"]
        return result_201.TransactionEvent()

    @on("Heartbeat")
    def on_heartbeat(self) -> result_201.Heartbeat:
        return result_201.Heartbeat(current_time=now())

    async def limit(self, amperes: float) -> None:
        """Install it for the running transaction."""
        period = types_201.ChargingSchedulePeriodType(0, amperes)
        schedule = types_201.ChargingScheduleType(1, "A", [period], start_schedule=a_minute_ago())
        profile = types_201.ChargingProfileType(
            1, 1, "TxProfile", "Absolute", [schedule], transaction_id=self.transaction
        )
        await self.call(call_201.SetChargingProfile(1, profile), suppress=False)


class Csms:
    """All stations, and the door for forecasts."""

    def __init__(self) -> None:
        self.stations: dict[str, Station16 | Station201] = {}
        self._sharing: asyncio.Task[None] | None = None
        self.app = FastAPI(openapi_url=None)
        self.app.post(PATH, status_code=204)(self.take)

    async def connected(self, socket: ServerConnection) -> None:
        """Serve a station until it leaves."""
        name = (socket.request.path if socket.request else "").rpartition("/")[2]
        kind = Station16 if socket.subprotocol == PROTOCOLS[0] else Station201
        station = self.stations[name] = kind(name, socket)
        try:
            await station.start()
        except ConnectionClosed:
            del self.stations[name]

    async def take(self, forecast: Forecast) -> None:
        """Answer, and share out what the first block allows."""
        self._sharing = asyncio.create_task(self.share(forecast.forecasted_blocks[0].capacity))

    async def share(self, watts: float) -> None:
        """An equal part to each, rounded down to what OCPP 1.6 can say."""
        amperes = int(watts / len(self.stations) / (VOLTAGE_V * PHASES) * 10) / 10
        await asyncio.gather(*(station.limit(amperes) for station in self.stations.values()))


async def main(site_file: Path) -> None:
    """Serve until SIGTERM."""
    listeners = {name: replace(settings, port=0) for name, settings in load(site_file).listeners.items()}
    csms = Csms()
    tls = server_context(listeners["ocpp"])
    async with serve(csms.connected, "127.0.0.1", 0, ssl=tls, subprotocols=PROTOCOLS) as server:
        serving, port = await serve_http(csms.app, listeners["grid"])
        ports = {"grid": port, "ocpp": next(iter(server.sockets)).getsockname()[1]}
        print("ready", json.dumps(ports), flush=True)
        await serving


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
