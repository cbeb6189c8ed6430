"""From limits and wishes to commands: allocate, plan schedules, let the ledger choose. Pure.

The allocator says what is wanted at each coming edge; the schedule of an EVSE is the running
minimum of that, cut early by the guard, ending in the safe share. Decreases leave at once,
increases as far as the ledger has room.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from gateway.app import judge
from gateway.app.fleet import settling
from gateway.app.ledger import (
    Balance,
    ending_in,
    fade,
    followed,
    installed,
    is_below,
    latest,
    lowest,
    prune,
    send,
    share_schedule,
)
from gateway.app.limits import Picture, picture, with_shares
from gateway.app.loads import NOMINAL_DECIVOLTS, NOTHING
from gateway.app.plan import Plan, desired_shares, facts_of, may_hold_for_good, plan, station_of
from gateway.app.state import Grant, Held, Sent, Work
from gateway.app.withheld import counted
from gateway.domain.allocation import Binding
from gateway.domain.effects import Command, Layer, Record
from gateway.domain.evidence import Json, Way, canonical, sha256_hex
from gateway.domain.ids import CommandId, EvidenceId, NodeId
from gateway.domain.measurement import Quality, Quantity
from gateway.domain.quantities import Phase, Watts
from gateway.domain.schedule import Schedule, build
from gateway.domain.topology import ROOT

MAX_CAUSES = 16
"""Causes named in one entry; the record behind it has all."""


def decide(work: Work) -> None:
    """Plan, record, command."""
    work.looked_at = work.now
    view = picture(work)
    _prune_all(work)
    shares = desired_shares(work, view)
    balance = _balance(work, view)
    chosen = plan(work, view, shares, balance)
    changed = _remember_targets(work, chosen)
    before, place = len(work.commands), len(work.evidence)
    decision = EvidenceId(work.new_id("dec"))
    _tighten(work, chosen, balance, decision)
    for evse in dict.fromkeys(command.evse for command in work.commands[before:]):
        _count_in(work, balance, evse)
    _loosen(work, chosen, balance, decision)
    _raise_shares(work, chosen, balance, decision)
    _standing(work, chosen, balance)
    if changed or len(work.commands) > before:
        _record(work, chosen, decision, place)


def drawn_w(work: Work, grant: Grant) -> int:
    """What the EVSE is measured to draw, where that is news against what was confirmed.

    A sample older than the last confirmation plus the settling time says nothing about it.
    """
    point = work.points.get((grant.evse, Quantity.P))
    if point is None or point.quality is not Quality.GOOD:
        return 0
    last = max((h.confirmed_at for h in (grant.share, grant.session) if h.confirmed_at is not None), default=None)
    if last is not None and point.measured_at < last + timedelta(seconds=work.settings.settle_s):
        return 0
    fresh = work.now - point.received_at <= timedelta(seconds=work.settings.fresh_s)
    return max(point.value, 0) if fresh else 0


def _prune_all(work: Work) -> None:
    for grant in tuple(work.grants.values()):
        share, faded = fade(grant.share, work.now), fade(grant.session, work.now)
        session = prune(faded, work.now, work.settings)
        if session is grant.session and share is grant.share:
            continue
        after = replace(grant, share=share, session=session)
        # A meter may still tell late what was drawn under a schedule that has just been forgotten.
        work.set_grant(after if session is faded else settling(work, after))


def _balance(work: Work, view: Picture) -> Balance:
    balance = Balance(work.facts.tree, view, work.settings)
    for node in work.facts.tree.evses():
        _count_in(work, balance, node.path)
    return balance


def _count_in(work: Work, balance: Balance, evse: NodeId) -> None:
    grant = work.grant(evse)
    balance.count_in(evse, balance.cases(grant, facts_of(work, evse), drawn_w(work, grant)))


def _remember_targets(work: Work, plan: Plan) -> bool:
    """Write targets and their bindings to the grants; True when one moved by more than the deadband."""
    changed = False
    for node in work.facts.tree.evses():
        grant = work.grant(node.path)
        values = plan.wanted.get(node.path)
        target = Watts(values[0]) if values else Watts(grant.share.confirmed.floor_w if grant.share.confirmed else 0)
        binding = plan.fillings[0].binding.get(node.path) if values else None
        text, place, envelope = _binding_words(work, node.path, binding)
        if abs(target - grant.target_w) > work.settings.deadband_w or text != grant.binding:
            changed = True
        if (target, text) != (grant.target_w, grant.binding) or node.path not in work.grants:
            grant = counted(work, grant)
            work.set_grant(replace(grant, target_w=target, binding=text, binding_node=place, binding_envelope=envelope))
    return changed


def _binding_words(work: Work, evse: NodeId, binding: Binding | None) -> tuple[str, NodeId, str]:
    if binding is None:
        grant = work.grant(evse)
        if grant.lying:
            return "DEVICE lying", evse, ""
        if grant.uncommandable_since is not None:
            return "DEVICE_UNCOMMANDABLE", evse, ""
        return ("SAFE_SHARE offline" if evse in work.sessions else "SAFE_SHARE idle"), evse, ""
    if binding.kind == "demand":
        return "DEMAND", evse, ""
    if binding.kind == "not_admitted":
        # Named where no filling would have: phases that may not differ.
        named = f"NOT_ADMITTED {binding.place}:{binding.label}" if binding.place else "NOT_ADMITTED"
        return named, NodeId(binding.place) or evse, ""
    word = binding_code(work, binding.label)
    kind, _, rest = binding.label.partition(":")
    envelope_id = rest.partition(":")[0] if kind == "envelope" else ""
    return f"{word} {binding.place}:{binding.label}", NodeId(binding.place), envelope_id


def binding_code(work: Work, label: str) -> str:
    """The lineage code of a limit.

    Labels are ``limit_w``, ``limit_va``, ``limit_a:L1``, the same with ``derated``, ``unbalance_a:L1``,
    ``envelope:<id>`` and ``envelope:<id>:L1``.
    """
    kind, _, rest = label.partition(":")
    if kind != "envelope":
        return "DERATE" if kind.startswith("derated") else "STATIC_NODE"
    envelope = work.envelopes.get(rest.partition(":")[0])
    if envelope is not None and envelope.stale:
        return "STALE_POLICY"
    return "ENVELOPE_FALLBACK" if envelope is not None and envelope.fallen else "ENVELOPE"


def _schedule(work: Work, plan: Plan, evse: NodeId) -> Schedule:
    """The running minimum over the coming edges, cut early, ending in the share (rules 3 to 5)."""
    share = plan.shares[evse]
    key = (plan.wanted[evse], share)
    made = plan.schedules.get(key)
    if made is None:
        made = plan.schedules[key] = _made(work, plan, *key)
    return made


def _made(work: Work, plan: Plan, wanted_w: tuple[int, ...], share: int) -> Schedule:
    guard = timedelta(seconds=work.settings.guard_s)
    end = min(work.now + timedelta(seconds=work.settings.validity_s), plan.picture.until - 2 * guard)
    points: list[tuple[datetime, Watts]] = []
    value = max(wanted_w[0], share)
    for instant, wanted in zip(plan.picture.instants, wanted_w, strict=True):
        at = max(instant - guard, work.now)
        if at >= end:
            break
        value = min(value, max(wanted, share))
        if points and points[-1][0] == at:
            points[-1] = (at, Watts(value))
        else:
            points.append((at, Watts(value)))
    points.append((end, Watts(min(share, value))))
    return build(points)


def _tighten(work: Work, plan: Plan, balance: Balance, decision: EvidenceId) -> None:
    """Send every decrease that is due: all of them, at once."""
    over = balance.exceeded()
    for node in work.facts.tree.evses():
        grant, station = work.grant(node.path), station_of(work, node.path)
        if not station.connected:
            continue
        pressed = node.path in work.control.leaving
        pressed = pressed or any(above in over for above in work.facts.tree.ancestors(node.path))
        retry = _retry_due(work, grant)
        _tighten_share(work, grant, plan.shares[node.path], decision, retry=retry)
        if node.path in work.sessions:
            _tighten_session(work, plan, node.path, decision, pressed=pressed, retry=retry)


def _tighten_share(work: Work, grant: Grant, share_w: int, decision: EvidenceId, *, retry: bool) -> None:
    current = latest(grant.share)
    # A retry that no session command will make is made here: one that is due is never passed over.
    alone = grant.evse not in work.sessions or not installed(grant.session)
    again = retry and (_unresolved(grant.share) or alone)
    untold = _unsynced(work, grant) and (retry or grant.retry_at is None)
    if current is None or share_w < current.floor_w or again or untold:
        lowest_w = min((share_w, *(s.floor_w for s in installed(grant.share))))
        _command(work, grant, Layer.SAFE_SHARE, share_schedule(lowest_w), decision, tightens=True)


def _tighten_session(work: Work, plan: Plan, evse: NodeId, decision: EvidenceId, *, pressed: bool, retry: bool) -> None:
    grant = work.grant(evse)
    held = installed(grant.session)
    current = latest(grant.session)
    due = bool(held) and (retry or (grant.retry_at is None and _session_unsynced(work, grant)))
    if current is None:
        return
    if evse not in plan.wanted:
        # It is not asked for anything more; where a limit needs it, it falls to its share.
        least = ending_in(lowest(held, work.now), plan.shares[evse])
        if pressed:
            least = lowest((least, share_schedule(plan.shares[evse])), work.now)
        if grant.wrong_clock:
            # One period without any time in it is all that means the same to both of us.
            least = share_schedule(min(least.floor_w, plan.shares[evse]))
        if due or is_below(least, current, work.now):
            _command(work, grant, Layer.SESSION, least, decision, tightens=True)
        return
    target = _schedule(work, plan, evse)
    slack = 0 if pressed else _slack_w(work, current)
    if is_below(target, current, work.now, slack) or due:
        _command(work, grant, Layer.SESSION, lowest((target, *held), work.now), decision, tightens=True)


def _retry_due(work: Work, grant: Grant) -> bool:
    return grant.retry_at is not None and work.now >= grant.retry_at


def _unresolved(held: Held) -> bool:
    """Whether something may be installed that nobody waits for any more."""
    return any(not sent.open for sent in held.maybe)


def _unsynced(work: Work, grant: Grant) -> bool:
    """Whether this connection has not been told the share yet (reconciliation after a reconnect)."""
    station = station_of(work, grant.evse)
    if grant.share.confirmed_at is not None and grant.share.confirmed_at >= station.since:
        return False
    return not any(sent.generation == station.generation for sent in grant.share.maybe)


def _session_unsynced(work: Work, grant: Grant) -> bool:
    """Whether this connection has not been told the session's schedule yet: it may be lost."""
    station = station_of(work, grant.evse)
    if grant.session.confirmed_at is not None and grant.session.confirmed_at >= station.since:
        return False
    return not any(sent.generation == station.generation for sent in grant.session.maybe)


def _loosen(work: Work, plan: Plan, balance: Balance, decision: EvidenceId) -> None:
    """Send increases and renewals as far as every ancestor has room at every edge (rule 2)."""
    for node in work.facts.tree.evses():
        evse = node.path
        grant = work.grant(evse)
        if evse not in plan.wanted or grant.session.waits() or grant.share.confirmed is None:
            continue
        held = balance.cases(followed(grant), facts_of(work, evse), 0)
        fitting = _fit(work, plan, evse, _schedule(work, plan, evse), balance.ceiling(evse, held))
        if not _worth_it(work, grant, fitting):
            continue
        _command(work, grant, Layer.SESSION, fitting, decision, tightens=False)
        _count_in(work, balance, evse)


def _raise_shares(work: Work, plan: Plan, balance: Balance, decision: EvidenceId) -> None:
    """Give back a share that had to fall, once every limit known fits it for good."""
    for node in work.facts.tree.evses():
        evse, grant = node.path, work.grant(node.path)
        held, share_w = grant.share, plan.shares[node.path]
        if held.confirmed is None or held.maybe or share_w <= held.confirmed.floor_w or grant.lying:
            continue
        if grant.uncommandable_since is not None or not station_of(work, evse).connected:
            continue
        case = balance.cases(followed(grant), facts_of(work, evse), 0)
        if share_w <= min(balance.ceiling(evse, case)) and may_hold_for_good(work, plan.picture, evse, share_w):
            _command(work, grant, Layer.SAFE_SHARE, share_schedule(share_w), decision, tightens=False)
            _count_in(work, balance, evse)


def _fit(work: Work, plan: Plan, evse: NodeId, target: Schedule, ceiling: list[int]) -> Schedule:
    """The target capped so that the sum of worst cases keeps every limit at every edge."""
    least = facts_of(work, evse).min_w
    share = plan.shares[evse]
    guard = timedelta(seconds=work.settings.guard_s)
    # What stands in the schedule `guard` before an edge is what is read at that edge.
    caps: dict[datetime, int] = dict.fromkeys((work.now, *(e for e in target.edges if e > work.now)), 2**53)
    for k, instant in enumerate(plan.picture.instants):
        at = max(instant - guard, work.now)
        caps[at] = min(caps.get(at, 2**53), ceiling[k])
    points: list[tuple[datetime, Watts]] = []
    value = target.at(work.now)
    for at in sorted(caps):
        value = Watts(min(value, target.at(at), caps[at]))
        if value < least:
            value = Watts(min(value, share))
        points.append((at, value))
    return build(points)


def _worth_it(work: Work, grant: Grant, schedule: Schedule) -> bool:
    current = latest(grant.session)
    if current is None:
        share = grant.share.confirmed.floor_w if grant.share.confirmed else 0
        return schedule.at(work.now) > share + work.settings.deadband_w
    now_w = schedule.at(work.now)
    slack = _slack_w(work, current)
    if is_below(schedule, current, work.now, slack):
        return False  # that is for a decrease to do; one too small to send must not keep a renewal back
    if now_w > schedule.floor_w and _session_unsynced(work, grant):
        return True
    half = timedelta(seconds=work.settings.validity_s / 2)
    if any(current.at(t) < schedule.at(t) - slack for t in current.edges if work.now < t < work.now + half):
        return True
    rested = work.now >= grant.increased_at + timedelta(seconds=work.settings.increase_every_s)
    return rested and now_w > current.at(work.now) + slack


def _slack_w(work: Work, current: Schedule) -> int:
    """What a schedule may differ from what is wanted before it is worth a command, W."""
    return max(work.settings.deadband_w, current.at(work.now) * 3 // 100)


def _command(
    work: Work, grant: Grant, layer: Layer, schedule: Schedule, decision: EvidenceId, *, tightens: bool
) -> None:
    """Enter a command into ``maybe``, seal its intent, hand it out (rule 1: durable before sent)."""
    station = station_of(work, grant.evse)
    session = work.sessions.get(grant.evse)
    version = grant.version + 1
    command = CommandId(work.new_id("cmd"))
    sealed = work.seal(
        "setpoint.sent",
        subject={"evse": grant.evse, "node": grant.evse, "station": station.id, "command": command},
        cause=(decision, *((session.evidence,) if session is not None else ())),
        body={
            "layer": layer.value,
            "version": version,
            "generation": station.generation,
            "tightens": tightens,
            "steps": [{"from": _text(s.start), "limit_w": s.limit_w} for s in schedule.steps],
        },
        way=Way.OUT,
    )
    sent = Sent(command, version, schedule, work.now, station.generation)
    held = send(grant.share if layer is Layer.SAFE_SHARE else grant.session, sent)
    grant = replace(grant, version=version, decision=decision, retry_at=None)
    grant = replace(grant, share=held) if layer is Layer.SAFE_SHARE else replace(grant, session=held)
    if not tightens:
        grant = replace(grant, increased_at=work.now)
    work.set_grant(grant)
    work.commands.append(
        Command(
            id=command,
            evse=grant.evse,
            station=station.id,
            layer=layer,
            version=version,
            schedule=schedule,
            generation=station.generation,
            tightens=tightens,
            transaction=session.transaction if session is not None and layer is Layer.SESSION else None,
            phases=len(facts_of(work, grant.evse).phases),
            sent=sealed,
        )
    )


def _standing(work: Work, plan: Plan, balance: Balance) -> None:
    """Open and close standing violations: what exceeds a limit now although all is at its floor."""
    sizes = {
        _standing_key(path, phase): excess if phase is None else max(1, excess * NOMINAL_DECIVOLTS // 10_000)
        for (path, phase), excess in balance.excess_now().items()
    }
    before = work.control.standing
    for text in sorted({*before, *sizes}):
        size = sizes.get(text, 0)
        if (text in before) != bool(size) or size > before.get(text, 0) + 1_000:
            _seal_standing(work, plan, text, size)
    if sizes != before:
        kept = {text: max(size, before.get(text, 0)) for text, size in sizes.items()}
        if kept != before:
            work.set_control(standing=kept)
    for path in sorted({e.node for e in work.envelopes.values() if e.node in plan.picture.loads}):
        taken = with_shares(work.facts.tree, path, plan.picture.loads[path], plan.shares)
        judge.complain(work, path, taken)


def _standing_key(path: NodeId, phase: Phase | None) -> str:
    """``main`` for power, ``main@L1`` for a phase."""
    return path if phase is None else f"{path}@{phase}"


def _seal_standing(work: Work, plan: Plan, key: str, size_w: int) -> None:
    path, _, phase = key.partition("@")
    load = plan.picture.loads.get(NodeId(path), NOTHING)
    of_phase = Phase(phase) if phase else None
    counted = load.power_w if of_phase is None else load.current_ma(of_phase)
    limit = plan.picture.limit(NodeId(path), 0, of_phase) if path in plan.picture.bounds else None
    reason = "LOAD_EXCEEDS_LIMIT" if counted > (limit or 0) else "DECREASE_UNCONFIRMED" if size_w else ""
    work.seal(
        "violation.standing" if size_w else "violation.ended",
        subject={"node": path},
        cause=tuple(work.causes[:MAX_CAUSES]),
        body={"excess_w": size_w, "load_w": load.power_w, **({"phase": phase} if phase else {})},
        reason=reason,
    )


def _record(work: Work, plan: Plan, decision: EvidenceId, place: int) -> None:
    """Seal the decision; the whole of it stands in a record beside the log."""
    document = canonical(_document(work, plan, decision))
    digest = sha256_hex(document)
    work.records.append(Record(digest, "application/json", document))
    revisions = {
        EvidenceId(bound.revision)
        for path in plan.picture.bounds
        for bound in plan.picture.bounds[path][0]
        if bound.revision
    }
    work.seal(
        "allocation.decided",
        as_id=decision,
        place=place,
        subject={"decision": decision},
        cause=tuple([*work.causes, *sorted(revisions), work.control.decision])[:MAX_CAUSES],
        body={
            "record": digest,
            "topology": work.facts.tree.version,
            "asks": len(plan.wanted),
            "allocated_w": sum(values[0] for values in plan.wanted.values()),
            "commands": len(work.commands),
            "tick": work.ticks[-1] if work.ticks else "",
            "targets": {
                evse: {"w": values[0], "binding": work.grant(evse).binding}
                for evse, values in list(plan.wanted.items())[:200]
            },
        },
    )
    work.set_control(decision=decision, decided_at=work.now)


def _document(work: Work, plan: Plan, decision: EvidenceId) -> Json:
    return {
        "decision": decision,
        "at": _text(work.now),
        "topology": work.facts.tree.version,
        "previous": work.control.decision,
        "instants": [_text(t) for t in plan.picture.instants],
        "nodes": {
            path: {
                "load_w": plan.picture.loads[path].power_w,
                "limits": [
                    [
                        {"label": b.label, "w" if b.phase is None else "ma": b.value, "revision": b.revision}
                        for b in bounds
                    ]
                    for bounds in plan.picture.bounds[path]
                ],
            }
            for path in plan.picture.bounds
            if path != ROOT
        },
        "evses": {
            evse: {"wanted_w": list(values), "share_w": plan.shares[evse], "binding": work.grant(evse).binding}
            for evse, values in plan.wanted.items()
        },
    }


def _text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
