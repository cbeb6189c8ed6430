"""Laying one set of blocks over another: the same as deciding every edge by itself, and fast."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.domain.envelope import Block, overlay, tighten_overlaps
from gateway.domain.ids import EvidenceId
from gateway.domain.quantities import Dimension

T0 = datetime(2026, 3, 1, tzinfo=UTC)
DIMENSIONS = (Dimension.SUM_W, Dimension.L1_A)


def a_block(start: int, length: int, value: int, dimension: Dimension, revision: str = "") -> Block:
    begin = T0 + timedelta(minutes=start)
    return Block(begin, begin + timedelta(minutes=length), value, dimension, EvidenceId(revision))


BLOCKS = st.lists(
    st.builds(a_block, st.integers(0, 30), st.integers(1, 12), st.integers(0, 4), st.sampled_from(DIMENSIONS)),
    max_size=12,
)


def values_at(blocks: tuple[Block, ...], minute: int, dimension: Dimension) -> list[int]:
    instant = T0 + timedelta(minutes=minute)
    return [b.value for b in blocks if b.dimension is dimension and b.start <= instant < b.end]


@given(BLOCKS)
def test_where_blocks_overlap_the_tightest_holds_and_nothing_is_said_twice(blocks: list[Block]) -> None:
    flat = tighten_overlaps(blocks)
    for dimension, minute in itertools.product(DIMENSIONS, range(45)):
        told = values_at(tuple(blocks), minute, dimension)
        assert values_at(flat, minute, dimension) == ([min(told)] if told else [])


@given(BLOCKS, BLOCKS)
def test_new_blocks_replace_old_ones_exactly_where_they_speak(old: list[Block], new: list[Block]) -> None:
    before = tighten_overlaps([replace(b, revision=EvidenceId("old")) for b in old])
    after = overlay(before, new)
    for dimension, minute in itertools.product(DIMENSIONS, range(45)):
        told = values_at(tuple(new), minute, dimension)
        assert values_at(after, minute, dimension) == ([min(told)] if told else values_at(before, minute, dimension))


def test_a_month_of_quarter_hours_is_laid_over_another_without_comparing_each_with_each() -> None:
    """3 × 3,360 blocks: pairwise comparing took over a minute, and the timeout of this test is 60 s."""
    phases = (Dimension.L1_A, Dimension.L2_A, Dimension.L3_A)
    month = [a_block(15 * i, 15, i % 7, d) for i in range(3_360) for d in phases]
    shifted = [a_block(15 * i + 5, 15, i % 5, d) for i in range(3_360) for d in phases]
    assert len(overlay(tighten_overlaps(month), shifted)) >= len(tighten_overlaps(shifted))
