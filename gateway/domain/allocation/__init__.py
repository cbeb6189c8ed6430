"""Sharing out headroom at one instant: exact, deterministic, no I/O and no clock.

``allocate`` for a site as it stands, ``CompiledTree`` for many fillings of one topology.
"""

from gateway.domain.allocation.allocate import allocate, round_down
from gateway.domain.allocation.model import Ask, Binding, Filling, Limit, Place, Policy, Unit, Violation
from gateway.domain.allocation.tree import NO_LIMIT, CompiledTree, Seats

__all__ = [
    "NO_LIMIT",
    "Ask",
    "Binding",
    "CompiledTree",
    "Filling",
    "Limit",
    "Place",
    "Policy",
    "Seats",
    "Unit",
    "Violation",
    "allocate",
    "round_down",
]
