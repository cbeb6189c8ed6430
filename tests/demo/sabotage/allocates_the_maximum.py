"""The gateway with an allocator that gives everybody the most they can take."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from gateway.app import decide
from gateway.cli import main
from gateway.domain.allocation import Ask, Filling, Place, Policy

_allocate = decide.allocate


def _give_the_most(places: Sequence[Place], asks: Sequence[Ask], policy: Policy) -> Filling:
    return replace(_allocate(places, asks, policy), allocation={ask.id: ask.max for ask in asks})


decide.allocate = _give_the_most  # the sabotage
sys.exit(main())
