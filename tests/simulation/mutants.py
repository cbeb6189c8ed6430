"""Gateways broken on purpose: the simulated world must notice every one of them.

Those of the controller are the property tests'; those here break what stands around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from adapters.ocpp.core import holding
from gateway.infra.runner import Runner
from tests.property.mutants import MUTANTS as OF_THE_CONTROLLER

Mutant = Callable[[], AbstractContextManager[None]]


@contextmanager
def _acknowledged_before_it_is_durable() -> Iterator[None]:
    whole = Runner._commit

    def hasty(self: Runner, jobs: Any, unit: Any, changes: Any, after: Any) -> None:
        self._answer(jobs, ())
        whole(self, jobs, unit, changes, after)

    with patch.object(Runner, "_commit", hasty):
        yield


@contextmanager
def _increases_leave_though_they_are_not_stored() -> Iterator[None]:
    whole = Runner._not_committed

    def generous(self: Runner, jobs: Any, changes: Any, problem: BaseException) -> None:
        self._dispatch(changes.commands)
        whole(self, jobs, changes, problem)

    with patch.object(Runner, "_not_committed", generous):
        yield


@contextmanager
def _a_refusal_counts_as_accepted() -> Iterator[None]:
    whole = holding.fate.of_command

    def credulous(*given: Any) -> Any:
        answer = whole(*given)
        return type(answer)(answer.command, answer.evse, answer.generation, holding.Outcome.ACCEPTED)

    with patch.object(holding.fate, "of_command", credulous):
        yield


MUTANTS: dict[str, Mutant] = {
    "acknowledged before it is durable": _acknowledged_before_it_is_durable,
    "increases leave though they are not stored": _increases_leave_though_they_are_not_stored,
    "a refusal counts as accepted": _a_refusal_counts_as_accepted,
    **{
        name: OF_THE_CONTROLLER[name]
        for name in (
            "zero taken for none",
            "only the newest command counts",
            "increases do not wait for room",
            "a schedule never ends",
            "a silent source is believed",
        )
    },
}
