"""What the allocator is asked and what it answers. Values only, no arithmetic beyond checks.

Everything here is one instant and one direction: positive numbers share out one headroom. A
demand's variable is its total power in W, or its current per used phase in A.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

from gateway.domain.errors import InfeasibleAllocation

PHASES = ("L1", "L2", "L3")

Unit = Literal["W", "A"]


@dataclass(frozen=True, slots=True)
class Limit:
    """A labelled limit of a place, W or A; 0 allows nothing.

    Raises:
        InfeasibleAllocation: negative or not finite. "No limit" is said by leaving it out.
    """

    label: str
    value: float

    def __post_init__(self) -> None:
        if not (isfinite(self.value) and self.value >= 0):
            raise InfeasibleAllocation(f"limit {self.label} is {self.value!r}, not a finite number of at least 0")


@dataclass(frozen=True, slots=True)
class Place:
    """A point of the tree. Its limits hold for the sum of everything at it and below it.

    Args:
        limits_w: limits on power; the smallest binds, the first named of equals is blamed.
        limits_a: limits on current by phase, amperes.
        fixed_w: power at this very place that nobody here can change; negative is generation.
        fixed_a: current by phase at this very place that nobody here can change.

    Raises:
        InfeasibleAllocation: an unknown phase or a fixed load that is no finite number.
    """

    id: str
    parent: str | None
    limits_w: tuple[Limit, ...] = ()
    limits_a: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    fixed_w: float = 0.0
    fixed_a: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for phase in (*self.limits_a, *self.fixed_a):
            if phase not in PHASES:
                raise InfeasibleAllocation(f"place {self.id}: no phase {phase!r}; there are {', '.join(PHASES)}")
        if not all(map(isfinite, (self.fixed_w, *self.fixed_a.values()))):
            raise InfeasibleAllocation(f"place {self.id}: fixed load is not finite")


@dataclass(frozen=True, slots=True)
class Ask:
    """What one consumer could use: nothing, or anything from ``min`` to ``max``.

    Args:
        priority: higher comes first.
        deadline: smaller comes first among equal priorities; ``None`` comes last.
        phases: phases used, for unit A; none named counts as all three.
        arrived: when it came, on the deadlines' clock, s; ``None`` comes last (FCFS).
        laxity_s: how long it could wait and still be ready (``policy.laxity_s``); ``None`` is not known.
        keep: the minimum cannot be taken away. It is reserved before all others, and where such
            minima alone exceed a limit they stand as a violation instead of falling to 0.
        voltage_v: phase to neutral, where it is not the problem's (unit A).
        loose: whatever the ask takes on all its phases together, any one of them may carry (unit A):
            what is true of a device that is told its power only.

    Raises:
        InfeasibleAllocation: not ``0 <= min <= max``, a weight or voltage of 0 or less, an unknown phase.
    """

    id: str
    place: str
    max: float
    min: float = 0.0
    weight: float = 1.0
    priority: int = 0
    deadline: float | None = None
    phases: tuple[str, ...] = ()
    keep: bool = False
    voltage_v: float | None = None
    loose: bool = False
    arrived: float | None = None
    laxity_s: float | None = None

    def __post_init__(self) -> None:
        if not (isfinite(self.max) and 0 <= self.min <= self.max):
            raise InfeasibleAllocation(f"ask {self.id}: not 0 <= min <= max with min {self.min!r}, max {self.max!r}")
        if not (isfinite(self.weight) and self.weight > 0):
            raise InfeasibleAllocation(f"ask {self.id}: weight {self.weight!r} is not a finite number above 0")
        if self.voltage_v is not None and not (isfinite(self.voltage_v) and self.voltage_v > 0):
            raise InfeasibleAllocation(f"ask {self.id}: voltage {self.voltage_v!r} V is not a finite number above 0")
        for name, value in (("deadline", self.deadline), ("arrived", self.arrived), ("laxity_s", self.laxity_s)):
            if value is not None and not isfinite(value):
                raise InfeasibleAllocation(f"ask {self.id}: {name} {value!r} is not finite; leave it out")
        if len(set(self.phases)) != len(self.phases) or not set(self.phases) <= set(PHASES):
            raise InfeasibleAllocation(f"ask {self.id}: phases {self.phases!r} are not distinct ones of {PHASES}")


@dataclass(frozen=True, slots=True)
class Binding:
    """Why an ask got no more: all it asked, its minimum did not fit, or a limit of a place."""

    kind: Literal["demand", "not_admitted", "limit"]
    place: str = ""
    label: str = ""

    def __str__(self) -> str:
        return f"{self.place}:{self.label}" if self.kind == "limit" else self.kind


DEMAND = Binding("demand")
NOT_ADMITTED = Binding("not_admitted")


@dataclass(frozen=True, slots=True)
class Violation:
    """A limit exceeded by load that nobody here can lower, by ``excess`` in the limit's own unit."""

    place: str
    label: str
    excess: float


@dataclass(frozen=True, slots=True)
class Stay:
    """What has become of an ask: admitted or refused since an instant, s on the asks' clock.

    ``room_since``: since when a refused one has had room for a restart.
    """

    admitted: bool
    since: float
    room_since: float | None = None


@dataclass(frozen=True, slots=True)
class Filling:
    """The answer, unrounded.

    Args:
        allocation: by ask, in the unit asked for; 0, or from ``min`` to ``max``.
        binding: by ask, the one limit that stopped it (allocator.md §6, ``primary_binding``).
        not_admitted: asks whose minimum did not fit, in the order they were refused.
        headroom: by ``place:label``, what the limit leaves to asks, floored at 0, in its own unit.
        violations: limits that fixed load and kept minima exceed (``LOAD_EXCEEDS_LIMIT``).
        minimum: by ask; needed to round.
        stays: by ask, since when it is admitted or refused; empty where no past was given.
    """

    allocation: Mapping[str, float]
    binding: Mapping[str, Binding]
    not_admitted: tuple[str, ...]
    headroom: Mapping[str, float]
    violations: tuple[Violation, ...]
    minimum: Mapping[str, float]
    stays: Mapping[str, Stay] = field(default_factory=dict)

    @property
    def standing(self) -> dict[str, float]:
        """By place, the largest excess of load that nobody here can lower; empty is well."""
        worst: dict[str, float] = {}
        for violation in self.violations:
            worst[violation.place] = max(worst.get(violation.place, 0.0), violation.excess)
        return worst
