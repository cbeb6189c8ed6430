"""How scarce power is shared: the words of a site's policy. What they mean is in ``gateway.domain.allocation``."""

from __future__ import annotations

from enum import StrEnum


class Policy(StrEnum):
    """How what is scarce is shared among what was admitted (allocator.md §7.3)."""

    EQUAL = "equal"
    """The same level for all; weights are not looked at."""
    WEIGHTED = "weighted"
    """Level times weight."""
    PROPORTIONAL = "proportional"
    """Level times maximum."""
    LAXITY_LEVEL = "laxity_level"
    """All become equally short of time, as far as the step allows."""
    STRICT_PRIORITY = "strict_priority"
    """All minima first, then tier after tier, by level times weight inside a tier."""
    FCFS = "fcfs"
    """All minima first, then each all it can take, by arrival."""
    EDF = "edf"
    """The same by deadline."""
    LLF = "llf"
    """The same by laxity, the least first."""
