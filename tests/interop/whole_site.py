"""A whole gateway among programs by others: its site, the stations, the meter, and what it recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.infra.clock_system import SystemClock
from gateway.infra.evidence_read import EvidenceReader, StoredEntry
from gateway.ports.adapter import ClientIdentity
from gateway.testing.meters import Meter
from gateway.testing.stage import SitePlan
from tests.interop.peers_stations import ForeignStation, require
from tests.support.gateway import Depot, a_plan
from tests.support.ocpp import until

FLEET = (("ocpp", "1.6"), ("ocpp", "2.0.1"), ("rpc", "1.6"), ("rpc", "2.0.1"))
"""Foreign stations: program and OCPP version."""

PLENTY_W = 90_000
"""All four charge at full current: nobody has to wait for room."""

FULL_A, VOLT_AMPERES = 29.0, 3 * 253
"""What 32 A at the nominal 230 V become where the voltage may stand a tenth above it."""

PATIENCE_S = 40.0
"""Increases are 15 s apart at least, and looked at every 10 s."""


def a_foreign_plan(fleet: Sequence[tuple[str, str]]) -> SitePlan:
    """A depot for these stations whose own limit binds nobody."""
    for kind, _ in fleet:
        require(kind)
    return a_plan(*(version for _, version in fleet), static_w=100_000)


@dataclass
class Fleet:
    """Foreign stations with a car at each."""

    stations: list[ForeignStation]

    @classmethod
    @asynccontextmanager
    async def running(
        cls, depot: Depot, ocpp_port: int, fleet: Sequence[tuple[str, str]], **more: object
    ) -> AsyncIterator[Fleet]:
        """Connect over mutual TLS, boot, and begin to charge. ``more``: options of the stations' programs."""
        async with AsyncExitStack() as stack:
            stations = []
            for plan, (kind, version) in zip(depot.plan.stations, fleet, strict=True):
                station = ForeignStation.running(
                    kind,
                    f"wss://127.0.0.1:{ocpp_port}",
                    plan.id,
                    version=version,
                    serial=plan.serial,
                    identity=depot.stage.pki.stations[plan.id],
                    **more,
                )
                stations.append(await stack.enter_async_context(station))
            for station in stations:
                assert (await station.heard("booted"))["status"] == "Accepted"
            for station in stations:
                station.do("start", token="CARD-1")
                await station.heard("started")
            yield cls(stations)

    def amperes(self) -> list[float]:
        """What each was last told for its transaction, as it counts now; 0 before the first profile."""
        return [next((p["limits"][0][1] for p in reversed(_of_session(s))), 0.0) for s in self.stations]

    def last_limits(self) -> list[list[list[float]]]:
        """The periods that each was last told for its transaction."""
        return [_of_session(s)[-1]["limits"] for s in self.stations]

    def watts(self) -> float:
        """The sum of that."""
        return sum(self.amperes()) * VOLT_AMPERES

    async def full(self) -> None:
        """All may take everything that their outlets have."""
        await until(lambda: self.amperes() == [FULL_A] * len(self.stations), PATIENCE_S)

    async def draw(self, power_w: int) -> None:
        """Every station reports this power."""
        for station in self.stations:
            before = len(station.lines)
            station.do("meter", power_w=power_w)
            await station.heard("metered", before)

    def check_content(self) -> None:
        """No station met anything that its own library would not take."""
        for station in self.stations:
            assert station.of("invalid") == station.of("failed") == []


def _of_session(station: ForeignStation) -> list[dict]:
    return [p for p in station.of("profile") if p["purpose"] == "TxProfile"]


@asynccontextmanager
async def main_meter(depot: Depot, admin_port: int, power_w: int) -> AsyncIterator[Meter]:
    """The grid connection's meter posts until the block ends; its first reading is stored when it begins."""
    identity = depot.stage.pki.meters["main"]
    readings = {"power_w": power_w, "energy_import_wh": 4_711_000}
    meter = Meter("main", identity, f"https://127.0.0.1:{admin_port}", depot.plan.id, lambda _: readings)
    posting = asyncio.create_task(meter.run(SystemClock()))
    try:
        await until(lambda: meter.posted)
        yield meter
    finally:
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
        await meter.close()


@dataclass(frozen=True)
class Consequence:
    """What the evidence says that a message did. ``sent`` and ``acknowledged`` by EVSE, session layer, the first."""

    revised: StoredEntry
    sent: Mapping[str, StoredEntry]
    acknowledged: Mapping[str, StoredEntry]

    def watts(self) -> int:
        """The sum of what was sent for at once."""
        return sum(entry.body["steps"][0]["limit_w"] for entry in self.sent.values())

    @property
    def actor(self) -> Mapping[str, str]:
        """Who said it, by what proof."""
        return self.revised.document["actor"]


def consequence(depot: Depot, request_id: str) -> Consequence:
    """From a message to the decisions that cite it, their commands, and the stations' answers."""
    with EvidenceReader(depot.stage.store) as reader:
        (revised,) = reader.by_subject("request_id", request_id, type="envelope.revised")
        sent: dict[str, StoredEntry] = {}
        acknowledged: dict[str, StoredEntry] = {}
        for decision in reader.effects(revised.id):
            if decision.type != "allocation.decided":
                continue
            for entry in reader.effects(decision.id):
                if entry.type == "setpoint.sent" and entry.body["layer"] == "session":
                    sent.setdefault(entry.subject["evse"], entry)
        for evse, entry in sent.items():
            (answer,) = reader.by_subject("command", entry.subject["command"], type="setpoint.acknowledged")
            acknowledged[evse] = answer
    return Consequence(revised, sent, acknowledged)


def fingerprint(identity: ClientIdentity) -> str:
    """SHA-256 of a certificate as evidence writes it."""
    assert identity.certificate is not None
    certificate = x509.load_pem_x509_certificates(Path(identity.certificate).read_bytes())[0]
    return sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
