"""The state in words: plain JSON for status pages. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.app.capacity import Look, denied_w
from gateway.app.judge import node_power_w
from gateway.app.limits import picture
from gateway.app.state import SiteFacts, SiteState, Work
from gateway.domain.envelope import OperatingEnvelope
from gateway.domain.evidence import Json
from gateway.domain.quantities import ALL_PHASES
from gateway.domain.timeline import rfc3339


def describe_site(facts: SiteFacts, state: SiteState, now: datetime) -> dict[str, Json]:
    """Sources, stations, sessions and open violations."""
    return {
        "site": facts.tree.site,
        "at": rfc3339(now),
        "topology": facts.tree.version,
        "sequence": state.seq,
        "sources": [
            {
                "source": s.id,
                "alive": s.is_alive(now),
                "alive_until": None if s.alive_until is None else rfc3339(s.alive_until),
                "ended": s.ended,
            }
            for s in state.sources.values()
        ],
        "stations": [
            {"station": s.id, "connected": s.connected, "protocol": s.protocol, "generation": s.generation}
            for s in state.stations.values()
        ],
        "sessions": [
            {"session": s.id, "evse": s.evse, "transaction": s.transaction, "started_at": rfc3339(s.started_at)}
            for s in state.sessions.values()
        ],
        "envelopes": describe_envelopes(state),
        "standing_violations_w": dict(state.control.standing),
    }


def describe_envelopes(state: SiteState) -> list[Json]:
    """Every envelope with its state and the values in force."""
    return [_envelope(e) for e in sorted(state.envelopes.values(), key=lambda e: e.id)]


def describe_tree(facts: SiteFacts, state: SiteState, now: datetime) -> dict[str, Json]:
    """Per node: the limit in force and its source, what is allocated and measured.

    ``capacity`` looks as far ahead as what is granted now reaches; see :class:`gateway.app.capacity.Look`.
    """
    work = Work(facts, state, now)
    view = picture(work)
    look = Look(work, now + timedelta(seconds=work.settings.reach_s), facts.tree.nodes)
    nodes: list[Json] = []
    for path, node in facts.tree.nodes.items():
        bound = min((b for b in view.bounds[path][0] if b.phase is None), key=lambda b: b.value, default=None)
        phases = {str(p): limit for p in ALL_PHASES if (limit := view.limit(path, 0, p)) is not None}
        grants = [work.grant(e.path) for e in facts.tree.evses(path)]
        own = work.grant(path) if node.evse is not None else None
        nodes.append(
            {
                "node": path,
                "kind": node.kind.value,
                "phases": [str(phase) for phase in facts.tree.phases(path)],
                "limit_w": None if bound is None else bound.value,
                "limit_source": None if bound is None else bound.label,
                "allocated_w": sum(g.target_w for g in grants),
                "measured_w": node_power_w(work, path),
                "limit_ma": phases or None,
                "denied_w": denied_w(work, path),
                "capacity": look.steps(node),
                "load_w": view.loads[path].power_w,
                "binding": own.binding if own is not None else None,
                "lying": own.lying if own is not None else None,
            }
        )
    return {"site": facts.tree.site, "at": rfc3339(now), "nodes": nodes}


def _envelope(envelope: OperatingEnvelope) -> Json:
    values = envelope.fallen or envelope.held
    return {
        "envelope": envelope.id,
        "source": envelope.source,
        "node": envelope.node,
        "direction": envelope.direction.value,
        "key": envelope.key,
        "state": envelope.state.value,
        "since": rfc3339(envelope.entered_at),
        "cause": envelope.cause,
        "stale_policy": envelope.stale,
        "fallback": envelope.fallback_rule,
        "values": [{"dimension": v.dimension.value, "value": v.value} for v in values],
        "blocks": len(envelope.primary),
        "fallback_blocks": len(envelope.fallback),
        "flags": list(envelope.flags),
    }
