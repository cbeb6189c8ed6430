"""The gateway with an allocator that gives everybody the most they can take."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.domain import allocation
from gateway.domain.allocation import Ask, Filling, Place, Policy

_allocate = allocation.allocate


def _give_the_most(places: Sequence[Place], asks: Sequence[Ask], policy: Policy, **rest: Any) -> Filling:
    return replace(_allocate(places, asks, policy, **rest), allocation={ask.id: ask.max for ask in asks})


allocation.allocate = _give_the_most  # the sabotage, before anybody takes it from there
from gateway.cli import main  # noqa: E402

sys.exit(main())
