"""What a policy means: along which line each ask follows the common level, or who is served before whom. Pure.

Policies are of two kinds (allocator.md §7.3). Under most, everybody rises together, each along
``clip(weight * (level - start), min, max)``, and the policy is the choice of weight and start.
Under the others asks are served in turns, after all minima have been set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from gateway.domain.allocation.model import Ask
from gateway.domain.sharing import Policy

UNKNOWN_LAXITY_S = 3_600.0
"""How patient an ask counts of which departure or energy is not known."""

ONE_BY_ONE = frozenset({Policy.FCFS, Policy.EDF, Policy.LLF})


def laxity_s(time_left_s: float, energy_wh: float, power_w: float) -> float:
    """How long a car could still wait and be ready in time, s; negative: it cannot be ready any more.

    Args:
        energy_wh: what it still wants.
        power_w: the most it can take, above 0.
    """
    return time_left_s - 3_600.0 * energy_wh / power_w


def default_policy(asks: Sequence[Ask]) -> Policy:
    """Laxity where any departure is known, else by weight."""
    return Policy.WEIGHTED if all(ask.laxity_s is None for ask in asks) else Policy.LAXITY_LEVEL


def weights(asks: Sequence[Ask], policy: Policy) -> list[float]:
    """By ask, its units per unit of level."""
    if policy in (Policy.WEIGHTED, Policy.STRICT_PRIORITY):
        return [float(ask.weight) for ask in asks]
    if policy in (Policy.PROPORTIONAL, Policy.LAXITY_LEVEL):
        return [float(ask.max) or 1.0 for ask in asks]
    return [1.0] * len(asks)


def starts(asks: Sequence[Ask], policy: Policy, step_s: float) -> list[float]:
    """By ask, the level at which it begins to rise above nothing.

    LAXITY_LEVEL: who can wait ``step_s`` longer than the most urgent begins when that one has all
    it can take. The level is the sheet's ``s`` in steps, counted from the most urgent.
    """
    if policy is not Policy.LAXITY_LEVEL:
        return [0.0] * len(asks)
    patience = [_patience(ask) for ask in asks]
    least = min(patience, default=0.0)
    return [(one - least) / step_s for one in patience]


def turns(asks: Sequence[Ask], policy: Policy) -> list[list[int]] | None:
    """Who is served before whom, as numbers of asks; ``None`` where all rise together."""
    if policy is Policy.STRICT_PRIORITY:
        tiers = sorted({ask.priority for ask in asks}, reverse=True)
        members: dict[int, list[int]] = {tier: [] for tier in tiers}
        for n, ask in enumerate(asks):
            members[ask.priority].append(n)
        return list(members.values())
    if policy in ONE_BY_ONE:
        key = _URGENCY[policy]
        return [[n] for n in sorted(range(len(asks)), key=lambda n: (key(asks[n]), asks[n].id))]
    return None


def _patience(ask: Ask) -> float:
    return UNKNOWN_LAXITY_S if ask.laxity_s is None else ask.laxity_s


def _last_if_unknown(value: float | None) -> float:
    return inf if value is None else value


_URGENCY: dict[Policy, Callable[[Ask], float]] = {
    Policy.FCFS: lambda ask: _last_if_unknown(ask.arrived),
    Policy.EDF: lambda ask: _last_if_unknown(ask.deadline),
    Policy.LLF: lambda ask: _last_if_unknown(ask.laxity_s),
}
