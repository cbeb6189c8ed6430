"""A charging station with cars, for the demo and tests: the other side of the line.

It shares our wire model, so it proves the demo, not interoperability; programs written by others
do that (``tests/interop``).
"""

from __future__ import annotations

from adapters.ocpp.peer.outlet import Car, Outlet
from adapters.ocpp.peer.profiles import Profile, ProfileStore
from adapters.ocpp.peer.station import Accepted, SimulatedStation

__all__ = ["Accepted", "Car", "Outlet", "Profile", "ProfileStore", "SimulatedStation"]
