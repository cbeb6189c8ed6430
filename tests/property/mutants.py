"""Gateways broken on purpose, one rule each: the judge must notice every one of them.

Each mutant is a function that spoils the controller while its context lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

from msgspec import structs

from gateway.app import decide, envelopes, fleet, ledger, limits, plan, site, state
from gateway.app.state import Grant, Held, SiteState, Work
from gateway.domain.envelope import Block
from gateway.domain.events import SourceHeard
from gateway.domain.quantities import Watts
from gateway.domain.schedule import Schedule, build

Mutant = Callable[[], AbstractContextManager[None]]

MUTANTS: dict[str, Mutant] = {}


def mutant(spoil: Callable[[], Iterator[None]]) -> Mutant:
    """Register under the function's name, with blanks."""
    made = contextmanager(spoil)
    MUTANTS[spoil.__name__.strip("_").replace("_", " ")] = made
    return made


@contextmanager
def _stored(change: Callable[[SiteState], SiteState]) -> Iterator[None]:
    """What a restart makes of what was stored."""
    whole = state.from_sections

    def spoilt(seq: int, sections: Mapping[str, Mapping[str, Any]]) -> SiteState:
        return change(whole(seq, sections))

    with patch.object(state, "from_sections", spoilt):
        yield


@contextmanager
def _worst_case(change: Callable[[Grant], Grant]) -> Iterator[None]:
    """What the ledger believes a station may hold."""
    whole = ledger.worst_case_w

    def spoilt(grant: Grant, *others: Any) -> int:
        return whole(change(grant), *others)

    with patch.object(ledger, "worst_case_w", spoilt):
        yield


@mutant
def _zero_taken_for_none() -> Iterator[None]:
    whole = limits.bounds_of
    with patch.object(limits, "bounds_of", lambda *args: [b for b in whole(*args) if b.value]):
        yield


@mutant
def _none_taken_for_zero() -> Iterator[None]:
    whole = limits.static_bounds

    def spoilt(node: Any) -> Any:
        return whole(node if node.import_max_w is not None else replace(node, import_max_w=Watts(0)))

    with patch.object(limits, "static_bounds", spoilt):
        yield


@mutant
def _only_the_newest_command_counts() -> Iterator[None]:
    """No max(old, new)."""

    def newest(held: Held) -> Held:
        return Held(held.maybe[-1].schedule, held.confirmed_at) if held.maybe else held

    def change(grant: Grant) -> Grant:
        return structs.replace(grant, share=newest(grant.share), session=newest(grant.session))

    with _worst_case(change):
        yield


@mutant
def _the_end_of_a_block_belongs_to_it_and_its_start_does_not() -> Iterator[None]:
    def closed(blocks: tuple[Block, ...], instant: datetime) -> tuple[Block, ...]:
        return tuple(b for b in blocks if b.start < instant <= b.end)

    with patch.object(envelopes, "covering", closed):
        yield


@mutant
def _a_restart_forgets_the_fallback() -> Iterator[None]:
    def change(stored: SiteState) -> SiteState:
        known = {key: structs.replace(e, fallback=(), fallen=()) for key, e in stored.envelopes.items()}
        return replace(stored, envelopes=known)

    with _stored(change):
        yield


@mutant
def _a_restart_forgets_what_was_on_its_way() -> Iterator[None]:
    def change(stored: SiteState) -> SiteState:
        def settled(held: Held) -> Held:
            return structs.replace(held, maybe=(), fading=())

        known = {
            key: structs.replace(g, share=settled(g.share), session=settled(g.session))
            for key, g in stored.grants.items()
        }
        return replace(stored, grants=known)

    with _stored(change):
        yield


@mutant
def _cuts_are_not_placed_early() -> Iterator[None]:
    whole = decide._schedule

    def late(work: Work, *others: Any) -> Schedule:
        schedule = whole(work, *others)
        guard = timedelta(seconds=work.settings.guard_s)
        first, *cuts = schedule.steps
        return build([(first.start, first.limit_w), *((step.start + guard, step.limit_w) for step in cuts)])

    with patch.object(decide, "_schedule", late), patch.object(decide, "_fit", lambda *args: args[3]):
        yield


@mutant
def _a_schedule_never_ends() -> Iterator[None]:
    whole = decide._schedule

    def endless(*args: Any) -> Schedule:
        steps = whole(*args).steps
        return Schedule(steps[:-1] or steps)

    with patch.object(decide, "_schedule", endless):
        yield


@mutant
def _safe_shares_need_not_fit() -> Iterator[None]:
    def wished(work: Work, _view: Any) -> Any:
        return {node.path: plan.facts_of(work, node.path).safe_share_w or 0 for node in work.facts.tree.evses()}

    with patch.object(decide, "desired_shares", wished):
        yield


@mutant
def _an_empty_evse_counts_nothing() -> Iterator[None]:
    whole = ledger.worst_case_w

    def spoilt(grant: Grant, *others: Any) -> int:
        return whole(grant, *others) if grant.occupied or grant.share.confirmed is None else 0

    with patch.object(ledger, "worst_case_w", spoilt):
        yield


@mutant
def _a_lost_decrease_is_not_repeated() -> Iterator[None]:
    def as_if_told(_work: Work, grant: Grant, _cause: Any) -> Grant:
        return structs.replace(grant, uncommandable_since=None, retry_at=None)

    with (
        patch.object(fleet, "_uncommandable", as_if_told),
        patch.object(decide, "_session_unsynced", lambda *_args: False),
    ):
        yield


@mutant
def _a_car_needs_no_time_to_follow() -> Iterator[None]:
    with _worst_case(ledger.followed):
        yield


@mutant
def _phases_do_not_count() -> Iterator[None]:
    sums = limits.bounds_of, limits.static_bounds

    def spoilt(whole: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: type(whole(*args))(b for b in whole(*args) if b.phase is None)

    with (
        patch.object(limits, "bounds_of", spoilt(sums[0])),
        patch.object(limits, "static_bounds", spoilt(sums[1])),
    ):
        yield


@mutant
def _a_silent_source_is_believed() -> Iterator[None]:
    whole = site._HANDLERS[SourceHeard]

    def spoilt(work: Work, event: SourceHeard) -> None:
        whole(work, replace(event, alive_until=None))

    with patch.dict(site._HANDLERS, {SourceHeard: spoilt}):
        yield


@mutant
def _increases_do_not_wait_for_room() -> Iterator[None]:
    with patch.object(decide, "_fit", lambda *args: args[3]):
        yield
