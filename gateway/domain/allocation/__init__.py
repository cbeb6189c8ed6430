"""Sharing out headroom at one instant: exact, deterministic, no I/O and no clock.

``allocate`` for a site as it stands, with a ``Workspace`` for many fillings of one site.
"""

from gateway.domain.allocation.allocate import allocate, round_down
from gateway.domain.allocation.arrays import Rise
from gateway.domain.allocation.held import HeldFilling
from gateway.domain.allocation.model import Ask, Binding, Filling, Limit, Place, Stay, Unit, Violation
from gateway.domain.allocation.policy import default_policy, laxity_s
from gateway.domain.allocation.rotation import Pace, Past
from gateway.domain.allocation.tree import NO_LIMIT, CompiledTree, Seats
from gateway.domain.allocation.unbalance import Spread, balanced
from gateway.domain.allocation.workspace import Workspace
from gateway.domain.sharing import Policy

__all__ = [
    "NO_LIMIT",
    "Ask",
    "Binding",
    "CompiledTree",
    "Filling",
    "HeldFilling",
    "Limit",
    "Pace",
    "Past",
    "Place",
    "Policy",
    "Rise",
    "Seats",
    "Spread",
    "Stay",
    "Unit",
    "Violation",
    "Workspace",
    "allocate",
    "balanced",
    "default_policy",
    "laxity_s",
    "round_down",
]
