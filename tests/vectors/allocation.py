"""Vectors of the form ``gridgate-alloc-cases/1``: one instant, many demands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.domain.allocation import Ask, Filling, Limit, Place, Policy, allocate

FORMAT = "gridgate-alloc-cases/1"

REL_TOLERANCE = 1e-4
"""Of the larger of 1 and the ask's maximum."""

POLICIES = {
    "max_min": Policy.EQUAL,
    "weighted_max_min": Policy.WEIGHTED,
    "strict_priority": Policy.STRICT_PRIORITY,
}

Case = Mapping[str, Any]


def failures(case: Case) -> list[str]:
    """What is wrong with our answer to a case; empty when nothing is."""
    filling = solve(case)
    expected = case["expected"]
    return [
        *_wrong_amounts(case, filling, expected["allocation"]),
        *_wrong_admission(filling, expected.get("not_admitted", [])),
        *_wrong_bindings(filling, expected.get("binding", {})),
    ]


def solve(case: Case) -> Filling:
    """Our answer to a case."""
    return allocate(
        [_place(node) for node in case["nodes"]],
        [_ask(demand) for demand in case["demands"]],
        POLICIES[case["policy"]],
        unit=case["unit"],
        voltage_v=case.get("voltage_v", 230.0),
    )


def _place(node: Mapping[str, Any]) -> Place:
    watts = [Limit(label, node[label]) for label in ("limit_w", "envelope_w") if node.get(label) is not None]
    amperes: dict[str, tuple[Limit, ...]] = {}
    for label in ("limit_a", "envelope_a"):
        for phase, value in (node.get(label) or {}).items():
            if value is not None:
                amperes[phase] = (*amperes.get(phase, ()), Limit(f"{label}:{phase}", value))
    return Place(
        id=node["id"],
        parent=node.get("parent"),
        limits_w=tuple(watts),
        limits_a=amperes,
        fixed_w=node.get("fixed_load_w") or 0.0,
        fixed_a=node.get("fixed_load_a") or {},
    )


def _ask(demand: Mapping[str, Any]) -> Ask:
    return Ask(
        id=demand["id"],
        place=demand["node"],
        max=demand["max"],
        min=demand.get("min") or 0.0,
        weight=demand.get("weight", 1.0),
        priority=demand.get("priority", 0),
        deadline=demand.get("deadline"),
        phases=tuple(demand.get("phases") or ()),
        keep=bool(demand.get("keep")),
    )


def _wrong_amounts(case: Case, filling: Filling, expected: Mapping[str, float]) -> Iterator[str]:
    most = {demand["id"]: demand["max"] for demand in case["demands"]}
    if expected.keys() != filling.allocation.keys():
        yield f"answers for {sorted(filling.allocation)}, expected for {sorted(expected)}"
        return
    for ask, value in expected.items():
        got = filling.allocation[ask]
        if not abs(got - value) <= REL_TOLERANCE * max(1.0, most[ask]):
            yield f"{ask} gets {got:.6g}, expected {value:.6g}"


def _wrong_admission(filling: Filling, expected: list[str]) -> Iterator[str]:
    if sorted(filling.not_admitted) != sorted(expected):
        yield f"not admitted {sorted(filling.not_admitted)}, expected {sorted(expected)}"


def _wrong_bindings(filling: Filling, expected: Mapping[str, list[str]]) -> Iterator[str]:
    for ask, admissible in expected.items():
        got = str(filling.binding.get(ask, "none"))
        if got not in admissible:
            yield f"{ask} is bound by {got}, admissible {admissible}"
