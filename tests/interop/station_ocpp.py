"""A charging station made of the PyPI package ocpp (ChargePoint), as OCPP 1.6 or 2.0.1.

It shares no code with gridgate: run it with ``.peers/ocpp/bin/python`` (see ``install_ocpp.sh``).

    station_ocpp.py --url ws://127.0.0.1:8887 --id CP-1 --version 1.6 [--serial SN-CP-1]
                    [--cert FILE --key FILE --ca FILE] [--password TEXT]
                    [--overstate AMPERES] [--foreign AMPERES] [--rotation STR] [--ahead SECONDS]

It keeps the profiles that it is sent, and computes its composite schedule from them. ``--overstate``
adds to what it reports of it; ``--foreign`` is a TxDefaultProfile on level 3 that was there before;
``--rotation`` is how its connector 1 is wired; its clock is ``--ahead`` of the true one.

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
    {"event": "cleared", "status": "Accepted", ...} {"event": "configured", ...}
    {"event": "refused", "id": 900003, "reason": "..."}  a profile that it does not take
    {"event": "composite", "outlet": 1, "unit": "A", "limits": [[0, 6.5]]}  as it answers it
    {"event": "reported", "ids": [5]}  profiles that it was asked for
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
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from ocpp.exceptions import OCPPError
from ocpp.routing import after, on
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


class Clock:
    ahead = timedelta(0)


def shown() -> datetime:
    """What its clock shows."""
    return datetime.now(timezone.utc) + Clock.ahead  # noqa: UP017 - the peer's Python may be older


def now() -> str:
    return shown().isoformat(timespec="seconds").replace("+00:00", "Z")


MAX_A, VOLTS, PHASES = 32.0, 230.0, 3
FOREIGN_ID, FOREIGN_LEVEL = 5, 3
MAXIMA = ("ChargePointMaxProfile", "ChargingStationMaxProfile", "ChargingStationExternalConstraints")


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@dataclass
class Profile:
    """One that is installed: ``body`` as it came, ``schedule`` its first."""

    outlet: int
    id: int
    body: dict
    schedule: dict

    @property
    def place(self) -> tuple:
        return self.outlet, self.body["charging_profile_purpose"], self.body["stack_level"]

    def value(self, at: datetime) -> float | None:
        """Amperes per phase at an instant; None where it says nothing."""
        for name, gone in (("valid_from", lambda edge: at < edge), ("valid_to", lambda edge: at >= edge)):
            if name in self.body and gone(instant(self.body[name])):
                return None
        passed = (at - instant(self.schedule["start_schedule"])).total_seconds()
        if passed < 0 or passed >= self.schedule.get("duration", float("inf")):
            return None
        current = [p for p in self.schedule["charging_schedule_period"] if p["start_period"] <= passed][-1]
        watts = self.schedule["charging_rate_unit"] == "W"
        # The package reads limits of 1.6 as decimals.
        limit = float(current["limit"])
        return limit / (VOLTS * current.get("number_phases", PHASES)) if watts else limit

    def edges(self) -> list:
        start = instant(self.schedule["start_schedule"])
        offsets = [p["start_period"] for p in self.schedule["charging_schedule_period"]]
        offsets += [self.schedule["duration"]] if "duration" in self.schedule else []
        valid = [instant(self.body[name]) for name in ("valid_from", "valid_to") if name in self.body]
        return [start + timedelta(seconds=s) for s in offsets] + valid


@dataclass
class Profiles:
    """What the station holds. ``strict``: another profile in the same place is refused (2.0.1), not replaced."""

    strict: bool
    overstate_a: float = 0.0
    held: list = field(default_factory=list)
    charging: bool = False
    """Whether a transaction runs, or is being started."""

    def install(self, new: Profile) -> str:
        """Empty when it is installed, else why not."""
        if new.body["charging_profile_kind"] != "Absolute":
            return "UnsupportedKind"
        if new.body["charging_profile_purpose"] == "TxProfile" and not (self.charging and new.outlet):
            return "TxNotFound"
        beside = [old for old in self.held if old.place == new.place and old.id != new.id]
        if beside and self.strict:
            return "DuplicateProfile"
        self.held = [old for old in self.held if old.id != new.id and old not in beside] + [new]
        return ""

    def clear(self, matches: object) -> str:
        before = len(self.held)
        self.held = [profile for profile in self.held if not matches(profile)]
        return "Accepted" if len(self.held) < before else "Unknown"

    def transaction_over(self) -> None:
        self.charging = False
        self.held = [p for p in self.held if p.body["charging_profile_purpose"] != "TxProfile"]

    def composite(self, outlet: int, start: datetime, seconds: int, unit: str) -> list:
        """Offsets and limits in ``unit``: the truth, and what it overstates."""
        end = start + timedelta(seconds=seconds)
        edges = sorted({start, *(e for p in self.held for e in p.edges() if start < e < end)})
        factor = VOLTS * PHASES if unit == "W" else 1.0
        return [
            [int((edge - start).total_seconds()), round((self.allowed(outlet, edge) + self.overstate_a) * factor, 1)]
            for edge in edges
        ]

    def allowed(self, outlet: int, at: datetime) -> float:
        """Amperes per phase: the transaction's own limit or the default, below every maximum."""
        own = self.highest("TxProfile", (outlet,), at) if self.charging else None
        for outlets in ((outlet,), (0,)):
            own = self.highest("TxDefaultProfile", outlets, at) if own is None else own
        maxima = [self.highest(purpose, (0, outlet), at) for purpose in MAXIMA]
        return min([MAX_A, *(limit for limit in (own, *maxima) if limit is not None)])

    def highest(self, purpose: str, outlets: tuple, at: datetime) -> float | None:
        found = [
            (p.body["stack_level"], p.value(at))
            for p in self.held
            if p.body["charging_profile_purpose"] == purpose and p.outlet in outlets and p.value(at) is not None
        ]
        return max(found)[1] if found else None


def tell_profile(profile: Profile, reason: str) -> None:
    if reason:
        say("refused", id=profile.id, reason=reason)
        return
    schedule = profile.schedule
    say(
        "profile",
        outlet=profile.outlet,
        id=profile.id,
        purpose=profile.body["charging_profile_purpose"],
        stack_level=profile.body["stack_level"],
        transaction=profile.body.get("transaction_id"),
        unit=schedule["charging_rate_unit"],
        limits=[[p["start_period"], p["limit"]] for p in schedule["charging_schedule_period"]],
        start=schedule.get("start_schedule"),
    )


def foreign_schedule(amperes: float) -> dict:
    """What somebody else left, long ago and for ever."""
    periods = [{"start_period": 0, "limit": amperes}]
    return {"start_schedule": "2020-01-01T00:00:00Z", "charging_rate_unit": "A", "charging_schedule_period": periods}


def foreign_body(**more: object) -> dict:
    return {
        "stack_level": FOREIGN_LEVEL,
        "charging_profile_purpose": "TxDefaultProfile",
        "charging_profile_kind": "Absolute",
        **more,
    }


class Station16(ChargePoint16):
    transaction: int | None = None
    rotation = ""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.profiles = Profiles(strict=False)

    def keep_foreign(self, amperes: float) -> None:
        schedule = foreign_schedule(amperes)
        body = foreign_body(charging_profile_id=FOREIGN_ID, charging_schedule=schedule)
        self.profiles.held.append(Profile(1, FOREIGN_ID, body, schedule))

    @on("SetChargingProfile")
    def set_profile(self, connector_id: int, cs_charging_profiles: dict, **_: object) -> object:
        body = cs_charging_profiles
        profile = Profile(connector_id, body["charging_profile_id"], body, body["charging_schedule"])
        reason = self.profiles.install(profile)
        tell_profile(profile, reason)
        return result16.SetChargingProfile(status="Rejected" if reason else "Accepted")

    @on("ClearChargingProfile")
    def clear_profile(self, **wanted: object) -> object:
        def matches(profile: Profile) -> bool:
            if "id" in wanted:
                return profile.id == wanted["id"]
            names = ("connector_id", "charging_profile_purpose", "stack_level")
            return all(wanted.get(name, own) == own for name, own in zip(names, profile.place))  # noqa: B905 - the peer's Python may be older

        status = self.profiles.clear(matches)
        say("cleared", status=status, **wanted)
        return result16.ClearChargingProfile(status=status)

    @on("GetCompositeSchedule")
    def get_composite(self, connector_id: int, duration: int, charging_rate_unit: str = "A", **_: object) -> object:
        start = shown()
        limits = self.profiles.composite(connector_id, start, duration, charging_rate_unit)
        say("composite", outlet=connector_id, unit=charging_rate_unit, limits=limits)
        periods = [{"startPeriod": offset, "limit": limit, "numberPhases": PHASES} for offset, limit in limits]
        return result16.GetCompositeSchedule(
            status="Accepted",
            connector_id=connector_id,
            schedule_start=start.isoformat(timespec="seconds"),
            charging_schedule={
                "duration": duration,
                "chargingRateUnit": charging_rate_unit,
                "chargingSchedulePeriod": periods,
            },
        )

    @on("GetConfiguration")
    def get_configuration(self, key: list | None = None, **_: object) -> object:
        known = {
            "ChargeProfileMaxStackLevel": "5",
            "ChargingScheduleAllowedChargingRateUnit": "Current,Power",
            "ChargingScheduleMaxPeriods": "10",
        }
        if self.rotation:
            known["ConnectorPhaseRotation"] = f"0.RST,1.{self.rotation}"
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
        # What follows the answer may be read before this goes on.
        self.profiles.charging = True
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
        self.profiles.transaction_over()
        await self.status("Available")


class Station201(ChargePoint201):
    transaction = "foreign-tx-1"
    sequence = 0
    rotation = ""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.profiles = Profiles(strict=True)

    def keep_foreign(self, amperes: float) -> None:
        schedule = {"id": 1, **foreign_schedule(amperes)}
        body = foreign_body(id=FOREIGN_ID, charging_schedule=[schedule])
        self.profiles.held.append(Profile(1, FOREIGN_ID, body, schedule))

    @on("SetChargingProfile")
    def set_profile(self, evse_id: int, charging_profile: dict, **_: object) -> object:
        body = charging_profile
        profile = Profile(evse_id, body["id"], body, body["charging_schedule"][0])
        reason = self.profiles.install(profile)
        tell_profile(profile, reason)
        if reason:
            return result201.SetChargingProfile(status="Rejected", status_info={"reason_code": reason})
        return result201.SetChargingProfile(status="Accepted")

    @on("ClearChargingProfile")
    def clear_profile(self, charging_profile_id: int | None = None, **more: dict) -> object:
        criteria = more.get("charging_profile_criteria", {})

        def matches(profile: Profile) -> bool:
            if charging_profile_id is not None:
                return profile.id == charging_profile_id
            names = ("evse_id", "charging_profile_purpose", "stack_level")
            return all(criteria.get(name, own) == own for name, own in zip(names, profile.place))  # noqa: B905 - the peer's Python may be older

        status = self.profiles.clear(matches)
        say("cleared", status=status, id=charging_profile_id, **criteria)
        return result201.ClearChargingProfile(status=status)

    @on("GetCompositeSchedule")
    def get_composite(self, duration: int, evse_id: int, charging_rate_unit: str = "A", **_: object) -> object:
        start = shown()
        limits = self.profiles.composite(evse_id, start, duration, charging_rate_unit)
        say("composite", outlet=evse_id, unit=charging_rate_unit, limits=limits)
        return result201.GetCompositeSchedule(
            status="Accepted",
            schedule={
                "evse_id": evse_id,
                "duration": duration,
                "schedule_start": start.isoformat(timespec="seconds"),
                "charging_rate_unit": charging_rate_unit,
                "charging_schedule_period": [
                    {"start_period": offset, "limit": limit, "number_phases": PHASES} for offset, limit in limits
                ],
            },
        )

    def wanted(self, charging_profile: dict, evse_id: int | None) -> list:
        names = ("charging_profile_purpose", "stack_level")
        return [
            p
            for p in self.profiles.held
            if evse_id in (None, p.outlet) and all(charging_profile.get(n, p.body[n]) == p.body[n] for n in names)
        ]

    @on("GetChargingProfiles")
    def get_profiles(self, charging_profile: dict, evse_id: int | None = None, **_: object) -> object:
        found = self.wanted(charging_profile, evse_id)
        return result201.GetChargingProfiles(status="Accepted" if found else "NoProfiles")

    @after("GetChargingProfiles")
    async def report_profiles(
        self, request_id: int, charging_profile: dict, evse_id: int | None = None, **_: object
    ) -> None:
        found = self.wanted(charging_profile, evse_id)
        for index, profile in enumerate(found, 1):
            await self.call(
                call201.ReportChargingProfiles(
                    request_id=request_id,
                    charging_limit_source="CSO",
                    evse_id=profile.outlet,
                    charging_profile=[profile.body],
                    tbc=index < len(found),
                ),
                suppress=False,
            )
        say("reported", ids=[profile.id for profile in found])

    @on("GetVariables")
    def get_variables(self, get_variable_data: list, **_: object) -> object:
        known = {"ProfileStackLevel": "5", "RateUnit": "A,W", "PeriodsPerSchedule": "10"}

        def result(component: dict, variable: dict) -> dict:
            wired = variable["name"] == "PhaseRotation" and component["name"] == "EVSE"
            value = self.rotation if wired else known.get(variable["name"], "")
            status = "Accepted" if value else "UnknownVariable"
            return {
                "attribute_status": status,
                "attribute_value": value,
                "component": component,
                "variable": variable,
            }

        return result201.GetVariables(
            get_variable_result=[result(d["component"], d["variable"]) for d in get_variable_data]
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
        self.profiles.charging = True
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
        self.profiles.transaction_over()
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
    for name in ("serial", "cert", "key", "ca", "password", "rotation"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--overstate", type=float, default=0.0)
    parser.add_argument("--foreign", type=float)
    parser.add_argument("--ahead", type=float, default=0.0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    Clock.ahead = timedelta(seconds=given.ahead)
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
        station.rotation = given.rotation or ""
        station.profiles.overstate_a = given.overstate
        if given.foreign is not None:
            station.keep_foreign(given.foreign)
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
