"""What a node can carry, what of it is committed, free, and taken away, now and over the coming time. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from gateway.app.decide import binding_code, drawn_w
from gateway.app.ledger import worst_case_w
from gateway.app.limits import Bound, Picture, picture
from gateway.app.loads import Load
from gateway.app.plan import facts_of
from gateway.app.state import SiteFacts, SiteState, Work
from gateway.domain.calendar import quarters
from gateway.domain.evidence import Json
from gateway.domain.ids import NodeId
from gateway.domain.quantities import ALL_PHASES, Phase
from gateway.domain.timeline import rfc3339
from gateway.domain.topology import Node


def describe_capacity(facts: SiteFacts, state: SiteState, path: NodeId, now: datetime, minutes: int) -> dict[str, Json]:
    """The capacity of a node from ``now`` on for ``minutes``.

    Raises:
        UnknownNode: no such node.
    """
    node = facts.tree.node(path)
    work = Work(facts, state, now)
    look = Look(work, now + timedelta(minutes=minutes), facts.tree.ancestors(path))
    return {
        "site": facts.tree.site,
        "node": path,
        "at": rfc3339(now),
        "until": rfc3339(now + timedelta(minutes=minutes)),
        "denied_w": denied_w(work, path),
        "capacity": look.steps(node),
    }


def denied_w(work: Work, path: NodeId) -> int:
    """What sessions below a node would take now, and are not given, W."""
    total = 0
    for node in work.facts.tree.evses(path):
        session, grant = work.sessions.get(node.path), work.grant(node.path)
        if session is not None and session.wants_power is not False and grant.binding != "DEMAND":
            wish_w = min(w for w in (facts_of(work, node.path).max_w, session.max_w) if w is not None)
            total += max(wish_w - grant.target_w, 0)
    return total


class Look:
    """Limits and commitments at every coming edge and quarter-hour until ``until``, at some nodes.

    Committed is counted load, as it is counted now, and the most that everything below may draw by
    what is and may be installed.
    """

    def __init__(self, work: Work, until: datetime, nodes: Iterable[NodeId]) -> None:
        self._work = work
        self._view: Picture = picture(work, until, quarters(work.now, until))
        self._phases = (None, *ALL_PHASES) if self._view.has_phases() else (None,)
        self._tightest = {
            (path, phase): [_tightest(bounds, phase) for bounds in rows]
            for path, rows in self._view.bounds.items()
            for phase in self._phases
        }
        count = len(self._view.instants)
        self._committed = {
            (path, phase): [_of(self._view.loads[path], phase)] * count for path in nodes for phase in self._phases
        }
        for node in work.facts.tree.evses():
            self._commit(node.path)

    def steps(self, node: Node) -> list[Json]:
        """One entry for each time from which it is another: in W, and in mA for every phase that is limited.

        ``current``: the limit in force; ``curtailed``: what of that which it is built for is taken away;
        ``available``: what neither it nor anything above it has committed. None: nothing limits it.
        """
        found: list[Json] = []
        last: Json = None
        for k, instant in enumerate(self._view.instants):
            limited = [p for p in self._phases if p is not None and self._tightest[node.path, p][k] is not None]
            phases = {str(p): self._amounts(node, k, p) for p in limited}
            step: dict[str, Json] = {**self._amounts(node, k, None), "phases": phases or None}
            if step != last:
                found.append({"from": rfc3339(instant), **step})
                last = step
        return found

    def _commit(self, evse: NodeId) -> None:
        """Count what an EVSE may draw at it and at everything above it."""
        work, facts = self._work, facts_of(self._work, evse)
        above = [path for path in work.facts.tree.ancestors(evse) if (path, None) in self._committed]
        if not above:
            return
        grant = work.grant(evse)
        drawn = drawn_w(work, grant)
        cases = [worst_case_w(grant, facts, at, work.settings, drawn) for at in self._view.instants]
        for phase in self._phases:
            if phase is None or phase in facts.phases:
                more = cases if phase is None else [facts.current_ma(case) for case in cases]
                for path in above:
                    row = self._committed[path, phase]
                    row[:] = [a + b for a, b in zip(row, more, strict=True)]

    def _amounts(self, node: Node, k: int, phase: Phase | None) -> dict[str, Json]:
        unit = "w" if phase is None else "ma"
        bound = self._tightest[node.path, phase][k]
        built = min((x.value for x in node.limits() if x.phase is phase), default=None)
        current = None if bound is None else bound.value
        return {
            f"current_{unit}": current,
            "source": None if bound is None else bound.label,
            "code": None if bound is None else binding_code(self._work, bound.label),
            f"committed_{unit}": self._committed[node.path, phase][k],
            f"available_{unit}": self._available(node.path, k, phase),
            f"curtailed_{unit}": None if current is None or built is None else max(built - current, 0),
        }

    def _available(self, path: NodeId, k: int, phase: Phase | None) -> int | None:
        rooms = (
            bound.value - self._committed[above, phase][k]
            for above in self._work.facts.tree.ancestors(path)
            if (bound := self._tightest[above, phase][k]) is not None
        )
        least = min(rooms, default=None)
        return None if least is None else max(least, 0)


def _tightest(bounds: Iterable[Bound], phase: Phase | None) -> Bound | None:
    return min((bound for bound in bounds if bound.phase is phase), key=lambda bound: bound.value, default=None)


def _of(load: Load, phase: Phase | None) -> int:
    return load.power_w if phase is None else load.current_ma(phase)
