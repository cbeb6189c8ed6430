"""An outlet with a car on it: what physically flows, from the installed profiles and the car alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from adapters.ocpp.peer.profiles import ProfileStore


@dataclass(frozen=True, slots=True)
class Car:
    """Wants ``energy_wh``, takes at most ``max_w`` on ``phases`` phases."""

    energy_wh: float
    max_w: float
    phases: int = 3


@dataclass
class Outlet:
    """A connector (1.6) or EVSE (2.x). Currents in A per phase."""

    number: int
    store: ProfileStore
    phases: int = 3
    voltage_v: float = 230.0
    min_a: float = 6.0
    max_a: float = 32.0
    register_wh: float = 0.0
    car: Car | None = None
    transaction: str | None = None
    """Set while a transaction runs; it is what a transaction's profile must name."""
    running: bool = False
    received_wh: float = 0.0
    ignore_limits: bool = False
    _settled: datetime | None = None

    def plug_in(self, car: Car, now: datetime) -> None:
        """A car arrives."""
        self.settle(now)
        self.car, self.received_wh = car, 0.0

    def unplug(self, now: datetime) -> None:
        """It leaves."""
        self.settle(now)
        self.car = None

    def clock_set(self, now: datetime) -> None:
        """The clock shows ``now`` without time having passed; what flowed before is settled."""
        self._settled = now

    def limit_a(self, now: datetime) -> float:
        """Current per phase that the station allows."""
        return self.max_a if self.ignore_limits else self.obeyed_a(now)

    def obeyed_a(self, now: datetime) -> float:
        """Current per phase by the profiles held."""
        used = self.phases if self.car is None else min(self.car.phases, self.phases)
        held = self.store.limit_a(self.number, now, charging=self.running, voltage_v=self.voltage_v, phases=used)
        return self.max_a if held is None else min(held, self.max_a)

    def wish_w(self, now: datetime) -> float:
        """What the car would take without any limit but the cable's."""
        if self.car is None or not self.running or self._full():
            return 0.0
        return min(self.car.max_w, self.max_a * self.voltage_v * min(self.car.phases, self.phases))

    def power_w(self, now: datetime) -> float:
        """What flows at ``now``; also moves the register there."""
        self.settle(now)
        return self._flow(now)

    def state(self, now: datetime) -> str:
        """Charging state in the words of 2.0.1."""
        if self._full():
            return "SuspendedEV"
        return "Charging" if self._flow(now) > 0 else "SuspendedEVSE"

    def settle(self, now: datetime) -> None:
        """Count the energy since the last time, piece by piece between the limits' edges."""
        since, self._settled = self._settled, now
        if since is None or now <= since:
            self._settled = max(filter(None, (since, now)))
            return
        cuts = [since, *sorted({edge for edge in self.store.edges() if since < edge < now}), now]
        for start, end in pairwise(cuts):
            energy = self._flow(start) * (end - start).total_seconds() / 3600
            if self.car is not None:
                energy = min(energy, max(self.car.energy_wh - self.received_wh, 0.0))
            self.register_wh += energy
            self.received_wh += energy

    def _full(self) -> bool:
        return self.car is not None and self.received_wh >= self.car.energy_wh

    def _flow(self, now: datetime) -> float:
        wish = self.wish_w(now)
        if wish <= 0 or self.car is None:
            return 0.0
        used = min(self.car.phases, self.phases)
        amperes = min(self.limit_a(now), wish / (self.voltage_v * used))
        # IEC 61851-1: a duty cycle for less than the minimum means no charging.
        return amperes * self.voltage_v * used if amperes >= self.min_a else 0.0
