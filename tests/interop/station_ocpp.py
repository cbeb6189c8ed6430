"""A charging station made of the PyPI package ocpp (ChargePoint), as OCPP 1.6 or 2.0.1.

It shares no code with gridgate: run it with ``.peers/ocpp/bin/python`` (see ``install_ocpp.sh``).

    station_ocpp.py --url ws://127.0.0.1:8887 --id CP-1 --version 1.6 [--serial SN-CP-1]
                    [--cert FILE --key FILE --ca FILE] [--password TEXT]

It connects and boots by itself. Commands on stdin, one JSON object per line:
    {"do": "status", "status": "Charging"}   tell a status (1.6 words; 2.0.1: Available, Occupied)
    {"do": "start", "token": "CARD-1"}        start a transaction on outlet 1
    {"do": "meter", "power_w": 7360}          send one meter value of the running transaction
    {"do": "stop"}                            end the transaction
    {"do": "quit"}                            hang up (the end of stdin does the same)

On stdout, one JSON object per line:
    {"event": "booted", "status": "Accepted", "interval": 300}
    {"event": "profile", "outlet": 1, "id": 900002, "purpose": "TxDefaultProfile", "stack_level": 0,
     "transaction": null, "unit": "A", "limits": [[0, 6.5]], "start": "2031-03-01T17:00:00Z"}
    {"event": "cleared", ...} {"event": "configured", ...}
    {"event": "started", "transaction": "4711"} {"event": "metered"} {"event": "stopped"}
    {"event": "failed", "what": "...", "error": "..."}  an answer that the library refused
    {"event": "closed"}
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import ssl
import sys
from datetime import datetime, timezone

from ocpp.exceptions import OCPPError
from ocpp.routing import on
from ocpp.v16 import ChargePoint as ChargePoint16
from ocpp.v16 import call as call16
from ocpp.v16 import call_result as result16
from ocpp.v201 import ChargePoint as ChargePoint201
from ocpp.v201 import call as call201
from ocpp.v201 import call_result as result201
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


def say(event: str, **more: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **more}, default=float) + "\n")
    sys.stdout.flush()


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")  # noqa: UP017 - the peer's Python may be older


class Station16(ChargePoint16):
    transaction: int | None = None

    @on("SetChargingProfile")
    def set_profile(self, connector_id: int, cs_charging_profiles: dict, **_: object) -> object:
        body = cs_charging_profiles
        schedule = body["charging_schedule"]
        say(
            "profile",
            outlet=connector_id,
            id=body["charging_profile_id"],
            purpose=body["charging_profile_purpose"],
            stack_level=body["stack_level"],
            transaction=body.get("transaction_id"),
            unit=schedule["charging_rate_unit"],
            limits=[[p["start_period"], p["limit"]] for p in schedule["charging_schedule_period"]],
            start=schedule.get("start_schedule"),
        )
        return result16.SetChargingProfile(status="Accepted")

    @on("ClearChargingProfile")
    def clear_profile(self, **wanted: object) -> object:
        say("cleared", **wanted)
        return result16.ClearChargingProfile(status="Unknown")

    @on("GetConfiguration")
    def get_configuration(self, key: list | None = None, **_: object) -> object:
        known = {
            "ChargeProfileMaxStackLevel": "5",
            "ChargingScheduleAllowedChargingRateUnit": "Current,Power",
            "ChargingScheduleMaxPeriods": "10",
        }
        found = [{"key": k, "readonly": True, "value": known[k]} for k in key or known if k in known]
        return result16.GetConfiguration(configuration_key=found, unknown_key=[k for k in key or () if k not in known])

    @on("ChangeConfiguration")
    def change_configuration(self, key: str, value: str, **_: object) -> object:
        say("configured", key=key, value=value)
        return result16.ChangeConfiguration(status="Accepted")

    async def boot(self, serial: str) -> None:
        answer = await self.call(
            call16.BootNotification(
                charge_point_vendor="ocpp", charge_point_model="ChargePoint", charge_point_serial_number=serial
            ),
            suppress=False,
        )
        say("booted", status=str(answer.status), interval=answer.interval)
        await self.status("Available")

    async def status(self, word: str) -> None:
        await self.call(
            call16.StatusNotification(connector_id=1, error_code="NoError", status=word, timestamp=now()),
            suppress=False,
        )

    async def start_transaction(self, token: str) -> str:
        answer = await self.call(
            call16.StartTransaction(connector_id=1, id_tag=token, meter_start=0, timestamp=now()), suppress=False
        )
        self.transaction = answer.transaction_id
        await self.status("Charging")
        return str(self.transaction)

    async def meter(self, power_w: float) -> None:
        value = {"value": str(power_w), "measurand": "Power.Active.Import", "unit": "W"}
        await self.call(
            call16.MeterValues(
                connector_id=1,
                transaction_id=self.transaction,
                meter_value=[{"timestamp": now(), "sampledValue": [value]}],
            ),
            suppress=False,
        )

    async def stop_transaction(self) -> None:
        await self.call(
            call16.StopTransaction(meter_stop=1000, timestamp=now(), transaction_id=self.transaction), suppress=False
        )
        await self.status("Available")


class Station201(ChargePoint201):
    transaction = "foreign-tx-1"
    sequence = 0

    @on("SetChargingProfile")
    def set_profile(self, evse_id: int, charging_profile: dict, **_: object) -> object:
        schedule = charging_profile["charging_schedule"][0]
        say(
            "profile",
            outlet=evse_id,
            id=charging_profile["id"],
            purpose=charging_profile["charging_profile_purpose"],
            stack_level=charging_profile["stack_level"],
            transaction=charging_profile.get("transaction_id"),
            unit=schedule["charging_rate_unit"],
            limits=[[p["start_period"], p["limit"]] for p in schedule["charging_schedule_period"]],
            start=schedule.get("start_schedule"),
        )
        return result201.SetChargingProfile(status="Accepted")

    @on("ClearChargingProfile")
    def clear_profile(self, **wanted: object) -> object:
        say("cleared", **wanted)
        return result201.ClearChargingProfile(status="Unknown")

    @on("GetVariables")
    def get_variables(self, get_variable_data: list, **_: object) -> object:
        known = {"ProfileStackLevel": "5", "RateUnit": "A,W", "PeriodsPerSchedule": "10"}
        return result201.GetVariables(
            get_variable_result=[
                {
                    "attribute_status": "Accepted" if d["variable"]["name"] in known else "UnknownVariable",
                    "attribute_value": known.get(d["variable"]["name"], ""),
                    "component": d["component"],
                    "variable": d["variable"],
                }
                for d in get_variable_data
            ]
        )

    @on("SetVariables")
    def set_variables(self, set_variable_data: list, **_: object) -> object:
        for data in set_variable_data:
            say("configured", key=data["variable"]["name"], value=data["attribute_value"])
        return result201.SetVariables(
            set_variable_result=[
                {"attribute_status": "Accepted", "component": d["component"], "variable": d["variable"]}
                for d in set_variable_data
            ]
        )

    async def boot(self, serial: str) -> None:
        station = {"model": "ChargePoint", "vendor_name": "ocpp", "serial_number": serial}
        answer = await self.call(call201.BootNotification(charging_station=station, reason="PowerUp"), suppress=False)
        say("booted", status=str(answer.status), interval=answer.interval)
        await self.status("Available")

    async def status(self, word: str) -> None:
        await self.call(
            call201.StatusNotification(timestamp=now(), connector_status=word, evse_id=1, connector_id=1),
            suppress=False,
        )

    async def event(self, kind: str, trigger: str, **more: object) -> None:
        info = {"transaction_id": self.transaction, **more.pop("info", {})}  # type: ignore[dict-item]  # plain JSON
        await self.call(
            call201.TransactionEvent(
                event_type=kind,
                timestamp=now(),
                trigger_reason=trigger,
                seq_no=self.sequence,
                transaction_info=info,
                **more,
            ),
            suppress=False,
        )
        self.sequence += 1

    async def start_transaction(self, token: str) -> str:
        await self.status("Occupied")
        await self.event(
            "Started",
            "Authorized",
            info={"charging_state": "Charging"},
            evse={"id": 1, "connector_id": 1},
            id_token={"id_token": token, "type": "ISO14443"},
        )
        return self.transaction

    async def meter(self, power_w: float) -> None:
        value = {"value": power_w, "measurand": "Power.Active.Import", "unit_of_measure": {"unit": "W"}}
        await self.event(
            "Updated",
            "MeterValuePeriodic",
            info={"charging_state": "Charging"},
            meter_value=[{"timestamp": now(), "sampled_value": [value]}],
        )

    async def stop_transaction(self) -> None:
        await self.event("Ended", "EVDeparted", info={"stopped_reason": "EVDisconnected"})
        await self.status("Available")


async def obey(station: Station16 | Station201, command: dict) -> bool:
    match command["do"]:
        case "status":
            await station.status(command["status"])
        case "start":
            say("started", transaction=await station.start_transaction(command.get("token", "CARD-1")))
        case "meter":
            await station.meter(command["power_w"])
            say("metered")
        case "stop":
            await station.stop_transaction()
            say("stopped")
        case "quit":
            return False
    return True


async def commands(station: Station16 | Station201, serial: str) -> None:
    try:
        await station.boot(serial)
    except (OCPPError, TimeoutError) as problem:
        say("failed", what="boot", error=repr(problem))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        try:
            if not await obey(station, command):
                return
        except (OCPPError, TimeoutError) as problem:
            say("failed", what=command["do"], error=repr(problem))


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("url", "id"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--version", choices=("1.6", "2.0.1"), default="1.6")
    for name in ("serial", "cert", "key", "ca", "password"):
        parser.add_argument(f"--{name}")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    headers = {}
    if given.password:
        words = base64.b64encode(f"{given.id}:{given.password}".encode()).decode()
        headers["Authorization"] = f"Basic {words}"
    context = None
    if given.ca:
        context = ssl.create_default_context(cafile=given.ca)
        if given.cert:
            context.load_cert_chain(given.cert, given.key)
    kind = Station16 if given.version == "1.6" else Station201
    async with connect(
        f"{given.url.rstrip('/')}/ocpp/{given.id}",
        subprotocols=[f"ocpp{given.version}"],
        ssl=context,
        additional_headers=headers,
    ) as socket:
        station = kind(given.id, socket)
        listening = asyncio.create_task(station.start())
        driving = asyncio.create_task(commands(station, given.serial or f"SN-{given.id}"))
        done, _ = await asyncio.wait({listening, driving}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not isinstance(task.exception(), (ConnectionClosed, type(None))):
                say("failed", what="connection", error=repr(task.exception()))
        driving.cancel()
        listening.cancel()
    say("closed")


if __name__ == "__main__":
    asyncio.run(main())
