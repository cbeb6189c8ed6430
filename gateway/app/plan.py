"""What is wanted of every EVSE at each coming edge: safe shares that fit, and a filling. Pure.

Where anything limits a phase, the allocator shares out amperes per phase, else watts; either way
an EVSE is wanted at whole watts that keep every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from gateway.app.ledger import Balance, held_for_good_w, installed
from gateway.app.limits import Bound, Picture, known_bounds
from gateway.app.state import Grant, Session, Station, Work
from gateway.domain.allocation import (
    Ask,
    Filling,
    Limit,
    Place,
    Spread,
    Unit,
    allocate,
    balanced,
    default_policy,
    laxity_s,
    round_down,
)
from gateway.domain.ids import NodeId, StationId
from gateway.domain.measurement import Quantity
from gateway.domain.quantities import ALL_PHASES, NOMINAL_VOLTAGE_V, Phase
from gateway.domain.schedule import Schedule
from gateway.domain.topology import EvseFacts, Tree

SITE = "@site"
"""The virtual root in the allocator's words."""

MILLI = 1e-6
"""A; a float this close below a whole milliampere is that milliampere."""


@dataclass(frozen=True)
class Plan:
    """What one decision is about. ``wanted[evse][k]`` W at ``picture.instants[k]``."""

    picture: Picture
    shares: Mapping[NodeId, int]
    wanted: Mapping[NodeId, tuple[int, ...]]
    fillings: tuple[Filling, ...]
    schedules: dict[tuple[tuple[int, ...], int], Schedule] = field(default_factory=dict)
    """Made so far, by wanted W and share: where the same is wanted the same one serves."""


def facts_of(work: Work, evse: NodeId) -> EvseFacts:
    """Facts of an EVSE leaf."""
    return work.facts.tree.facts(evse)


def station_of(work: Work, evse: NodeId) -> Station:
    """The line to an EVSE's station."""
    station = facts_of(work, evse).station
    return work.stations.get(station) or Station(StationId(station))


def desired_shares(work: Work, view: Picture) -> dict[NodeId, int]:
    """Safe shares that fit every static limit, every known block and every fallback (rule 7).

    Where the configured ones do not fit, EVSEs keep theirs in order of priority and name, and the
    rest fall to 0. Those that cannot be told come first, with what they may hold for good: the
    others make room (rule 9). Load counts as it is counted now.
    """
    tree = work.facts.tree
    room = {path: _room(view, path, known_bounds(work, path)) for path in tree.nodes}
    stuck = {
        node.path: held_for_good_w(grant) for node in tree.evses() if _is_deaf(work, grant := work.grant(node.path))
    }
    shares: dict[NodeId, int] = {}
    ordered = sorted(tree.evses(), key=lambda n: (n.path not in stuck, -(n.evse.priority if n.evse else 0), n.path))
    for node in ordered:
        facts = facts_of(work, node.path)
        wish = facts.safe_share_w or 0 if node.path not in work.control.leaving else 0
        above = [room[path] for path in tree.ancestors(node.path)]
        fits = all(left >= need for rows in above for left, need in _needs(rows, facts, wish))
        shares[node.path] = wish if fits else 0
        for rows in above:
            _take(rows, facts, max(shares[node.path], stuck.get(node.path, 0)))
    return shares


def may_hold_for_good(work: Work, view: Picture, evse: NodeId, share_w: int) -> bool:
    """Whether every known limit fits a share beside all that the other EVSEs may hold for good."""
    tree = work.facts.tree
    facts = facts_of(work, evse)
    for path in tree.ancestors(evse):
        rows = _room(view, path, known_bounds(work, path))
        for other in tree.evses(path):
            if other.path != evse:
                _take(rows, facts_of(work, other.path), held_for_good_w(work.grant(other.path)))
        if any(left < need for left, need in _needs(rows, facts, share_w)):
            return False
    return True


def _room(view: Picture, path: NodeId, lowest: Mapping[Phase | None, int]) -> dict[Phase | None, int]:
    load = view.loads[path]
    return {
        phase: limit - (load.power_w if phase is None else load.current_ma(phase)) for phase, limit in lowest.items()
    }


def _needs(rows: Mapping[Phase | None, int], facts: EvseFacts, power_w: int) -> list[tuple[int, int]]:
    """What every row that the EVSE crosses has left, and what ``power_w`` would take of it."""
    current_ma = facts.current_ma(power_w)
    return [
        (left, power_w if phase is None else current_ma)
        for phase, left in rows.items()
        if phase is None or phase in facts.phases
    ]


def _take(rows: dict[Phase | None, int], facts: EvseFacts, power_w: int) -> None:
    for phase in rows:
        if phase is None:
            rows[phase] -= power_w
        elif phase in facts.phases:
            rows[phase] -= facts.current_ma(power_w)


def _is_deaf(work: Work, grant: Grant) -> bool:
    """Whether an EVSE may hold a share, proven or not, and does not take another now."""
    told = grant.uncommandable_since is None and station_of(work, grant.evse).connected
    return bool(installed(grant.share)) and not told


def asking(work: Work, grant: Grant) -> Session | None:
    """The session that may be given more than the share, if its station can be commanded."""
    session = work.sessions.get(grant.evse)
    if (
        session is None
        or grant.evse in work.control.leaving
        or grant.lying
        or grant.wrong_clock
        or grant.uncommandable_since is not None
    ):
        return None
    return session if station_of(work, grant.evse).connected else None


def plan(work: Work, view: Picture, shares: Mapping[NodeId, int], balance: Balance) -> Plan:
    """Fill at every coming edge; an edge at which nothing differs from the one before has its filling."""
    filler = _Filler(work, view, shares, balance)
    fillings: list[Filling] = []
    rounded: list[dict[NodeId, int]] = []
    for k in range(balance.count):
        if k and filler.is_like(k, k - 1):
            fillings.append(fillings[-1])
            rounded.append(rounded[-1])
        else:
            fillings.append(filler.fill(k))
            rounded.append(filler.whole_watts(fillings[-1]))
    wanted = {evse: tuple(values[evse] for values in rounded) for evse in (rounded[0] if rounded else {})}
    return Plan(view, shares, wanted, tuple(fillings))


class _Wish(NamedTuple):
    """What an EVSE could use, W: ``base_w`` that it may hold in any case, and beside it nothing or
    from ``least_w`` to ``most_w``. ``kept``: the least cannot be taken away.

    A safe share below the least that charges is such a base: it counts, and makes no minimum.
    """

    base_w: int
    least_w: int
    most_w: int
    kept: bool


class _Filler:
    """The allocator's problem of one decision, edge by edge."""

    def __init__(self, work: Work, view: Picture, shares: Mapping[NodeId, int], balance: Balance) -> None:
        self._work, self._view, self._shares, self._balance = work, view, shares, balance
        self._tree: Tree = work.facts.tree
        self._spread: dict[str, Spread] = {
            path: Spread(node.unbalance_max_ma / 1_000, self._tree.phases(path))
            for path, node in self._tree.nodes.items()
            if node.unbalance_max_ma is not None
        }
        self._amperes = view.has_phases() or bool(self._spread)
        self._sessions = {
            node.path: session
            for node in self._tree.evses()
            if (session := asking(work, work.grant(node.path))) is not None
        }
        self._wishes = {evse: self._wish(evse, session) for evse, session in self._sessions.items()}
        self._drafts = work.facts.drafts
        self._counted = [node.path for node in self._tree.evses() if node.path not in self._sessions]

    @cached_property
    def _asks(self) -> list[Ask]:
        return [self._ask(evse, session) for evse, session in self._sessions.items()]

    def is_like(self, k: int, other: int) -> bool:
        """Whether two edges have the same problem."""
        bounds, cases = self._view.bounds, self._balance.by_evse
        return all(rows[k] == rows[other] for rows in bounds.values()) and all(
            cases[evse][k] == cases[evse][other] for evse in self._counted
        )

    def fill(self, k: int) -> Filling:
        """Share out what the limits of one edge leave."""
        places = [Place(SITE, None)]
        places += [self._place(path, k) for path in self._tree.nodes]
        unit: Unit = "A" if self._amperes else "W"
        workspace = self._work.facts.workspace(places)
        policy = self._work.facts.sharing or default_policy(self._asks)

        def fill(asks: Sequence[Ask]) -> Filling:
            return allocate(places, asks, policy, unit=unit, voltage_v=NOMINAL_VOLTAGE_V, workspace=workspace)

        return balanced(fill, places, self._asks, self._spread) if self._spread else fill(self._asks)

    def whole_watts(self, filling: Filling) -> dict[NodeId, int]:
        """The filling in whole W, rounded towards tighter on every row."""
        given = self._in_watts(filling)
        return {evse: watts + self._wishes[evse].base_w for evse, watts in given.items()}

    def _in_watts(self, filling: Filling) -> dict[NodeId, int]:
        if not self._amperes:
            return {NodeId(evse): watts for evse, watts in round_down(filling).items()}
        whole = {}
        for evse, current_a in filling.allocation.items():
            current_ma = int((current_a + MILLI) * 1_000)
            most_w = self._wishes[NodeId(evse)].most_w
            whole[NodeId(evse)] = min(_even_w(facts_of(self._work, NodeId(evse)), current_ma), most_w)
        return whole

    def _counted_w(self, path: NodeId, k: int) -> int:
        """What the EVSE takes whatever is given out, W; 0 for other nodes."""
        if path in self._wishes:
            return self._wishes[path].base_w
        cases = self._balance.by_evse.get(path)
        return 0 if cases is None else cases[k]

    def _place(self, path: NodeId, k: int) -> Place:
        """The node at one edge; the same one where neither its limits nor what it takes have changed."""
        counted_w, bounds = self._counted_w(path, k), self._view.bounds[path][k]
        made_of = bounds, counted_w, self._view.own_loads[path], self._amperes
        known = self._drafts.places.get(path)
        if known is None or known[0] != made_of:
            known = self._drafts.places[path] = made_of, self._made(path, bounds, counted_w)
        return known[1]

    def _made(self, path: NodeId, bounds: tuple[Bound, ...], counted_w: int) -> Place:
        load = self._view.own_loads[path]
        power_w = float(load.power_w)
        currents = {str(phase): load.current_ma(phase) / 1_000 for phase in ALL_PHASES} if self._amperes else {}
        if counted_w:
            power_w += counted_w
            facts = facts_of(self._work, path)
            for phase in facts.phases if self._amperes else ():
                currents[str(phase)] += facts.current_ma(counted_w) / 1_000
        return Place(
            path,
            self._tree.node(path).parent or SITE,
            limits_w=tuple(Limit(b.label, float(b.value)) for b in bounds if b.phase is None),
            limits_a=_by_phase(bounds) if self._amperes else {},
            # The allocator counts the power of fixed currents by itself; power is known better.
            fixed_w=power_w - NOMINAL_VOLTAGE_V * sum(currents.values()),
            fixed_a=currents,
        )

    def _wish(self, evse: NodeId, session: Session) -> _Wish:
        facts, share_w = facts_of(self._work, evse), self._shares[evse]
        own_limit = self._tree.node(evse).import_max_w
        most: int = min(v for v in (facts.max_w, session.max_w, own_limit) if v is not None)
        least = max(facts.min_w, share_w)
        if session.wants_power is False:
            most = min(most, least)
        most = max(most, share_w)
        least = min(least, most)
        base = share_w if share_w < least else 0
        return _Wish(base, least - base, most - base, kept=0 < share_w == least)

    def _ask(self, evse: NodeId, session: Session) -> Ask:
        wish = self._wishes[evse]
        patience_s = _laxity_s(self._work, session, wish.base_w + wish.most_w)
        made_of = wish, session.started_at, session.departure_at, patience_s, self._amperes
        known = self._drafts.asks.get(evse)
        if known is None or known[0] != made_of:
            known = self._drafts.asks[evse] = made_of, self._asked(evse, session, wish, patience_s)
        return known[1]

    def _asked(self, evse: NodeId, session: Session, wish: _Wish, patience_s: float | None) -> Ask:
        facts = facts_of(self._work, evse)
        least, most = (
            _even_ma(facts, power_w) / 1_000 if self._amperes else float(power_w)
            for power_w in (wish.least_w, wish.most_w)
        )
        return Ask(
            id=evse,
            place=evse,
            max=most,
            min=least,
            weight=float(facts.weight),
            priority=facts.priority,
            arrived=session.started_at.timestamp(),
            laxity_s=patience_s,
            deadline=session.departure_at.timestamp() if session.departure_at is not None else None,
            phases=tuple(str(phase) for phase in facts.phases),
            keep=wish.kept,
            voltage_v=facts.voltage_v,
            loose=facts.told_power,
        )


def _laxity_s(work: Work, session: Session, power_w: int) -> float | None:
    """How long a car could still wait; None if it did not say until when and how much, or nothing measures it."""
    point = work.points.get((session.evse, Quantity.E_IMPORT))
    if session.departure_at is None or session.asked_wh is None or session.meter_start_wh is None or point is None:
        return None
    left_wh = max(session.asked_wh - max(point.value - session.meter_start_wh, 0), 0)
    return laxity_s((session.departure_at - work.now).total_seconds(), left_wh, power_w) if power_w else None


def _even_ma(facts: EvseFacts, power_w: int) -> int:
    """Power spread evenly over the EVSE's phases, mA on each, rounded up."""
    return -(-power_w * 10_000 // (round(facts.voltage_v * 10) * len(facts.phases)))


def _even_w(facts: EvseFacts, current_ma: int) -> int:
    """The inverse, rounded down: what came from whole watts gives at least them."""
    return current_ma * round(facts.voltage_v * 10) * len(facts.phases) // 10_000


def _by_phase(bounds: tuple[Bound, ...]) -> dict[str, tuple[Limit, ...]]:
    out: dict[str, tuple[Limit, ...]] = {}
    for bound in bounds:
        if bound.phase is not None:
            out[bound.phase] = (*out.get(bound.phase, ()), Limit(bound.label, bound.value / 1_000))
    return out
