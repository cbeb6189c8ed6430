"""Why an EVSE has what it has: which limit binds it, of which class, from which message, why, until when. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.app.envelopes import limits_at
from gateway.app.ledger import worst_case_w
from gateway.app.limits import Bound, Picture, factor_at, picture, static_bounds, surroundings
from gateway.app.state import Grant, SiteFacts, SiteState, Work
from gateway.domain.calendar import WHOLE
from gateway.domain.envelope import OperatingEnvelope, covering
from gateway.domain.errors import UnknownNode
from gateway.domain.evidence import Json
from gateway.domain.ids import NodeId
from gateway.domain.lifecycle import State
from gateway.domain.timeline import rfc3339
from gateway.domain.topology import EvseFacts

FRESH, FALLBACK, STALE = "fresh envelope", "fallback envelope", "stale-data policy"
STATIC, DEVICE = "static node limit", "device limit"

CLASSES = {
    "ENVELOPE": FRESH,
    "ENVELOPE_FALLBACK": FALLBACK,
    "STALE_POLICY": STALE,
    "STATIC_NODE": STATIC,
    "DERATE": STATIC,
    "SAFE_SHARE": STATIC,
    "DEMAND": DEVICE,
    "DEVICE": DEVICE,
    "DEVICE_UNCOMMANDABLE": DEVICE,
}
"""The field's five classes, by the first word of a binding. NOT_ADMITTED is of the limit that leaves too little."""


@dataclass(frozen=True, slots=True)
class _Reason:
    """``until`` is an instant, or says in words what ends it."""

    code: str
    node: NodeId
    why: str
    until: str
    envelope: OperatingEnvelope | None = None


def explain(facts: SiteFacts, state: SiteState, evse: NodeId, now: datetime) -> dict[str, Json]:
    """The binding limit of an EVSE in the words of the five classes; its grant beside it, W.

    Raises:
        UnknownNode: no such EVSE.
    """
    node = facts.tree.node(evse)
    if node.evse is None:
        raise UnknownNode(f'"{evse}" is no EVSE', hint="name a node of kind EVSE; `gridgate tree` lists them")
    work = Work(facts, state, now)
    grant, session = work.grant(evse), state.sessions.get(evse)
    reason = _reason(work, grant, node.evse)
    confirmed = grant.session.confirmed or grant.share.confirmed
    return {
        "evse": evse,
        "at": rfc3339(now),
        "target_w": grant.target_w,
        "installed_w": None if confirmed is None else confirmed.at(now),
        "efficiency_permille": node.evse.efficiency,
        "worst_case_w": worst_case_w(grant, node.evse, now, work.settings, 0),
        "proven": grant.share.confirmed is not None,
        "class": CLASSES.get(reason.code, ""),
        "code": reason.code,
        "why": reason.why,
        "until": reason.until,
        "binding": grant.binding,
        "binding_node": reason.node,
        "envelope": None if reason.envelope is None else _envelope(work, reason.envelope, now),
        "decision": grant.decision,
        "session": None if session is None else session.id,
        "uncommandable_since": None if grant.uncommandable_since is None else rfc3339(grant.uncommandable_since),
        "lying": grant.lying,
    }


def _reason(work: Work, grant: Grant, facts: EvseFacts) -> _Reason:
    word, _, rest = grant.binding.partition(" ")
    envelope = work.envelopes.get(grant.binding_envelope)
    if envelope is not None:
        return _of_envelope(work, envelope)
    match word:
        case "STATIC_NODE" | "DERATE":
            label = rest.removeprefix(f"{grant.binding_node}:")
            return _of_static(work, grant.binding_node, label)
        case "NOT_ADMITTED":
            return _not_admitted(work, grant, facts)
        case "DEMAND":
            text = f"it gets all that it asks for; station and EVSE take {facts.max_w} W at most"
            return _Reason(word, grant.evse, text, "as long as vehicle and station ask for no more")
        case "DEVICE":
            text = "it draws more than it may; it counts at what it draws and is given no increase"
            return _Reason(word, grant.evse, text, "until an operator trusts it again (`gridgate station trust`)")
        case "DEVICE_UNCOMMANDABLE":
            text = "its station does not answer, or does not confirm what it was told; it counts at its worst case"
            return _Reason(word, grant.evse, text, "until it answers")
        case "SAFE_SHARE":
            return _safe_share(work, grant)
        case _:
            return _Reason("", grant.evse, "nothing was decided about it yet", "until the next decision")


def _safe_share(work: Work, grant: Grant) -> _Reason:
    text, until = "no vehicle asks for power", "until a vehicle asks"
    if grant.evse in work.sessions:
        text, until = "its station is not connected", "until its station connects"
    proven = grant.share.confirmed is not None
    share = "it holds the permanent share of its node" if proven else "its permanent share is not confirmed yet"
    return _Reason("SAFE_SHARE", grant.evse, f"{text}: {share}", until)


def _of_static(work: Work, path: NodeId, label: str) -> _Reason:
    """A limit of the node itself, as it stands now: what derates it may have changed since the decision."""
    node = work.facts.tree.node(path)
    if label.startswith("unbalance") and node.unbalance_max_ma is not None:
        most = f"{node.unbalance_max_ma / 1000:g} A at most"
        text = (
            f"the phases of {path} may differ by {most}, and {label.partition(':')[2]} carries more than the lightest"
        )
        return _Reason("STATIC_NODE", path, text, "until the other phases carry more, or the configuration changes")
    factor = factor_at(work, node, work.now)
    dimension = label.partition("_")[2]
    bound = next((b for b in static_bounds(node, factor) if b.label.partition("_")[2] == dimension), None)
    if bound is None:
        text = f"{path} had a limit that the configuration no longer has"
        return _Reason("STATIC_NODE", path, text, "until the next decision")
    value = f"{bound.value} W" if bound.phase is None else f"{bound.value / 1000:g} A on {bound.phase}"
    if dimension == "va":
        value += f" ({node.apparent_max_va} VA at a power factor of {node.assumed_pf / WHOLE:g})"
    if factor == WHOLE:
        text = f"{path} is built for {value}, shared by all below it"
        return _Reason("STATIC_NODE", path, text, "until the configuration changes")
    text = f"{path} is derated to {factor / 10:g} % of what it is built for: {value}, shared by all below it"
    until = "until its season or temperature changes" if node.varies else "until the configuration changes"
    return _Reason("DERATE", path, text, until)


def _of_envelope(work: Work, envelope: OperatingEnvelope) -> _Reason:
    now, source, since = work.now, envelope.source, rfc3339(envelope.entered_at)
    back = f"until {source} is back with a fresh message"
    if envelope.stale:
        text = f"the last fallback of {source} outlived it ({envelope.cause or 'its validity ended'}, {since})"
        until = f"{back}, or an operator releases it (`gridgate fallback release`)"
        return _Reason("STALE_POLICY", envelope.node, text, until, envelope)
    if envelope.fallen:
        text = f"{source} is silent or left a gap since {since}; its binding falls back to {envelope.fallback_rule}"
        until = back if envelope.fallback_ends is None else rfc3339(envelope.fallback_ends)
        return _Reason("ENVELOPE_FALLBACK", envelope.node, text, until, envelope)
    if envelope.state is State.FALLBACK_ELIGIBLE:
        text = f"the last value of {source} holds through the grace that began at {since}"
        until = rfc3339(envelope.entered_at + timedelta(seconds=envelope.grace_s))
        return _Reason("ENVELOPE", envelope.node, text, until, envelope)
    ends = [block.end for block in covering(envelope.primary, now)]
    text = f"{source} limits {envelope.node} ({envelope.state.value} since {since})"
    until = rfc3339(min(ends)) if ends else f"until the next message of {source}"
    return _Reason("ENVELOPE", envelope.node, text, until, envelope)


def _not_admitted(work: Work, grant: Grant, facts: EvseFacts) -> _Reason:
    """Its minimum does not fit: named after what was remembered, else the limit above that leaves the least of it."""
    _, _, rest = grant.binding.partition(" ")
    if rest:
        limit = _of_static(work, grant.binding_node, rest.removeprefix(f"{grant.binding_node}:"))
        text = f"its least, {facts.min_w} W, would be too much: {limit.why}"
        return _Reason(limit.code, limit.node, text, limit.until)
    view = picture(work)
    above = [(path, bound) for path in work.facts.tree.ancestors(grant.evse) for bound in view.bounds[path][0]]
    path, bound = min(above, key=lambda pair: _left(work, view, pair[0], pair[1], facts))
    kind, _, rest = bound.label.partition(":")
    envelope = work.envelopes.get(rest.partition(":")[0]) if kind == "envelope" else None
    limit = _of_static(work, path, bound.label) if envelope is None else _of_envelope(work, envelope)
    text = f"too little is left under {path} for its least, {facts.min_w} W: {limit.why}"
    return _Reason(limit.code, limit.node, text, limit.until, envelope)


def _left(work: Work, view: Picture, path: NodeId, bound: Bound, facts: EvseFacts) -> float:
    """What a limit leaves beside load and targets, as a part of the EVSE's least."""
    below = [(e.evse, work.grant(e.path).target_w) for e in work.facts.tree.evses(path) if e.evse is not None]
    load, phase = view.loads[path], bound.phase
    if phase is None:
        return (bound.value - load.power_w - sum(w for _, w in below)) / max(facts.min_w, 1)
    taken_ma = load.current_ma(phase) + sum(other.current_ma(w) for other, w in below if phase in other.phases)
    return (bound.value - taken_ma) / max(facts.min_ma, 1) if phase in facts.phases else float("inf")


def _envelope(work: Work, envelope: OperatingEnvelope, now: datetime) -> Json:
    requests = dict(envelope.messages)
    return {
        "envelope": envelope.id,
        "source": envelope.source,
        "state": envelope.state.value,
        "values": [
            {
                "dimension": v.dimension.value,
                "value": v.value,
                "revision": v.revision,
                "request_id": requests.get(v.revision, ""),
            }
            for v in limits_at(envelope, now, surroundings(work, envelope))
        ],
    }
