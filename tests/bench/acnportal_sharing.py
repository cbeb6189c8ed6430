"""acnportal's round robin on one site, timed inside its own process. Runs in ``.peers/acnportal``.

Its argument is a JSON document: ``increment_a``, ``evses`` (``name``, ``phase`` 0 to 2, ``max_a``) and
``constraints`` (``evses`` by name, ``limit_a``). For every line on stdin it schedules once and prints a line:
``seconds`` of ``RoundRobin.schedule`` alone, and ``amperes`` by EVSE.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from time import perf_counter
from typing import Any

from acnportal.acnsim import Battery, ChargingNetwork, Current, EventQueue, Simulator
from acnportal.acnsim.interface import Interface
from acnportal.acnsim.models.ev import EV
from acnportal.acnsim.models.evse import EVSE
from acnportal.algorithms import RoundRobin, first_come_first_served

VOLTAGE_V = 230.0
PERIOD_MIN = 5
STAY = 100
ENERGY_KWH = 60.0


def interface(site: dict[str, Any], scheduler: RoundRobin) -> Interface:
    """A simulation with a car at every EVSE that wants more than it can get."""
    network = ChargingNetwork()
    for evse in site["evses"]:
        # The package's phases lie 120 degrees apart; cars of one constraint share a phase, so magnitudes add up.
        network.register_evse(EVSE(evse["name"], max_rate=evse["max_a"]), VOLTAGE_V, 30 - 120 * evse["phase"])
    for n, constraint in enumerate(site["constraints"]):
        network.add_constraint(Current(constraint["evses"]), constraint["limit_a"], name=f"c{n}")
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 -- as old as the peer
    simulator = Simulator(network, scheduler, EventQueue(), start, period=PERIOD_MIN, verbose=False)
    for evse in site["evses"]:
        name = evse["name"]
        battery = Battery(2 * ENERGY_KWH, 0, VOLTAGE_V * evse["max_a"] / 1_000)
        network.plugin(EV(0, STAY, ENERGY_KWH, name, f"s-{name}", battery))
    return Interface(simulator)


def main(site: dict[str, Any]) -> None:
    """Schedule once a line."""
    scheduler = RoundRobin(first_come_first_served, continuous_inc=site["increment_a"])
    face = interface(site, scheduler)
    scheduler.register_interface(face)
    for _ in sys.stdin:
        sessions = face.active_sessions()
        start = perf_counter()
        rates = scheduler.schedule(sessions)
        seconds = perf_counter() - start
        print(json.dumps({"seconds": seconds, "amperes": {name: float(r[0]) for name, r in rates.items()}}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
