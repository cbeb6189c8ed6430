"""Another configuration while sessions run: what is new, what leaves, and what still counts of it. Pure.

What leaves is told to take nothing first (:func:`leave`). Then the controller is given other facts;
the first step that finds a topology it does not know adopts it (:func:`adopt`), however the facts came
to change: by a reload, by a restart, or again after a commit that failed. What an EVSE that is gone
may still hold counts as load until its schedules have ended.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from msgspec.structs import replace

from gateway.app.ledger import held_for_good_w, installed
from gateway.app.state import Departing, Grant, SiteState, Station, Work
from gateway.domain import events as ev
from gateway.domain.envelope import OperatingEnvelope
from gateway.domain.evidence import Json
from gateway.domain.ids import EvidenceId, NodeId, SourceId
from gateway.domain.topology import EvseFacts, Tree

Withdraw = Callable[[Work, OperatingEnvelope, str, EvidenceId], None]
"""How the controller ends an envelope: work, envelope, cause, the entry behind it."""

MAX_CHANGES = 200
"""Changes that one entry names; the file itself has them all."""

ENDINGS_S = 1
"""How much longer than its last step a schedule is counted."""


def leave(work: Work, event: ev.EvsesLeaving) -> None:
    """EVSEs are about to be taken out: from now on they are given nothing, and told so."""
    for evse in event.evses:
        work.causes.append(work.seal("evse.leaving", subject={"evse": evse, "node": evse}))
    work.set_control(leaving=event.evses)
    work.dirty = True


def is_told(state: SiteState, evse: NodeId) -> bool:
    """Whether an EVSE is proven to hold nothing, or nobody can tell it."""
    grant = state.grants.get(evse)
    if grant is None:
        return True
    station = state.stations.get(grant.device.rpartition("#")[0])
    if station is None or not station.connected:
        return True
    waits = grant.share.maybe or grant.session.maybe
    return grant.share.confirmed is not None and not waits and held_for_good_w(grant) == 0


def adopt(work: Work, event: ev.TopologyChanged | None, withdraw: Withdraw) -> None:
    """Make the state fit the tree: forget what it no longer has, meet what is new."""
    if work.control.topology:
        _seal_change(work, event)
    work.set_control(topology=work.facts.tree.version, leaving=())
    _forget_removed(work, withdraw)
    for node in work.facts.tree.evses():
        _meet_device(work, node.path, work.facts.tree.facts(node.path))
    work.dirty = True


def changed(work: Work, event: ev.TopologyChanged) -> None:
    """Another configuration; where its topology is the same, the first step did not adopt any."""
    if not any(draft.type == "topology.changed" for draft in work.evidence):
        _seal_change(work, event)


def _seal_change(work: Work, event: ev.TopologyChanged | None) -> None:
    body: dict[str, Json] = {"before": work.control.topology, "after": work.facts.tree.version}
    if event is not None:
        body |= {
            "changes": [list(change) for change in event.changes[:MAX_CHANGES]],
            "changes_total": len(event.changes),
            "config_sha256": event.config_sha256,
        }
    work.causes.append(work.seal("topology.changed", body=body))


def refused(work: Work, event: ev.TopologyRefused) -> None:
    """A configuration that was not taken; nothing changes."""
    work.seal("topology.refused", body={"problems": list(event.problems)}, reason="CONFIGURATION")


def forget_departed(work: Work) -> None:
    """Count no more what has ended by itself."""
    kept = {evse: gone for evse, gone in work.control.departing.items() if work.now < gone.until}
    if len(kept) < len(work.control.departing):
        work.set_control(departing=kept)
        work.dirty = True


def _forget_removed(work: Work, withdraw: Withdraw) -> None:
    """Drop what belongs to EVSEs, nodes and bindings that the configuration no longer has; evidence stays."""
    tree, departing = work.facts.tree, dict(work.control.departing)
    for evse in [e for e in work.grants if e not in tree.nodes]:
        grant = work.grants[evse]
        gone = _departing(work, grant)
        body = {"counts_w": 0} if gone is None else {"counts_w": gone.power_w}
        work.seal("evse.removed", subject={"evse": evse, "node": evse}, body=body)
        if gone is not None:
            departing[evse] = gone
        del work.grants[evse]
        work.sessions.pop(evse, None)
    departing = {evse: replace(gone, node=_surviving(tree, gone.node)) for evse, gone in departing.items()}
    if departing != work.control.departing:
        work.set_control(departing=departing)
    work.points = {key: point for key, point in work.points.items() if key[0] in tree.nodes}
    served = {node.evse.station for node in tree.evses() if node.evse is not None}
    for station in [s for s in work.stations if s not in served]:
        del work.stations[station]
    for envelope in tuple(work.envelopes.values()):
        if envelope.node not in tree.nodes:
            sealed = work.seal("node.removed", subject={"node": envelope.node, "envelope": envelope.id})
            withdraw(work, envelope, "node_removed", sealed)
            del work.envelopes[envelope.id]
        elif work.control.topology and (SourceId(envelope.source), envelope.node) not in work.facts.policies:
            subject = {"node": envelope.node, "envelope": envelope.id, "peer": envelope.source}
            withdraw(work, envelope, "binding_removed", work.seal("binding.removed", subject=subject))


def _departing(work: Work, grant: Grant) -> Departing | None:
    """What an EVSE may still draw although nobody can tell it anything; None where that has ended.

    What it holds for good is no more ours to count once it is out of the configuration.
    """
    held = (*installed(grant.share), *installed(grant.session))
    guard = timedelta(seconds=work.settings.guard_s + ENDINGS_S)
    until = max((schedule.ends_at + guard for schedule in held), default=work.now)
    if until <= work.now:
        return None
    power_w = max(schedule.at(work.now - guard) for schedule in held)
    return Departing(_surviving(work.facts.tree, grant.evse), power_w, until) if power_w else None


def _surviving(tree: Tree, path: NodeId) -> NodeId:
    """The nearest node above that is still there; the virtual root where none is."""
    while path and path not in tree.nodes:
        path = NodeId(path.rpartition("/")[0])
    return path


def _meet_device(work: Work, evse: NodeId, facts: EvseFacts) -> None:
    """Know the station that serves an EVSE; of another one than before nothing is proven."""
    if facts.station not in work.stations:
        work.stations[facts.station] = Station(facts.station)
    device = f"{facts.station}#{facts.number}"
    known = work.grants.get(evse)
    if known is not None and known.device in ("", device):
        if known.device != device:
            work.set_grant(replace(known, device=device))
        return
    if known is not None:
        work.seal(
            "evse.reassigned",
            subject={"evse": evse, "node": evse, "station": facts.station},
            body={"before": known.device, "after": device},
        )
        work.sessions.pop(evse, None)
    work.set_grant(Grant(evse, device, version=0 if known is None else known.version))
