"""What an operator may do to a running site. Pure.

Every act is an entry of its own, with who, why and the message; whether it fits is asked before
(:func:`check`) and again when its turn comes, for the site may have moved on in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from gateway.app.state import Grant, SiteState, Work
from gateway.domain.envelope import OperatingEnvelope
from gateway.domain.errors import ActionRefused, GatewayError, UnknownEnvelope, UnknownNode
from gateway.domain.events import OperatorActed, OperatorAction
from gateway.domain.evidence import Json
from gateway.domain.ids import EvidenceId, NodeId

Withdraw = Callable[[Work, OperatingEnvelope, str, EvidenceId], None]
"""How the controller ends an envelope: work, envelope, cause, the entry behind it."""


def check(state: SiteState, action: OperatorAction, subject: str) -> None:
    """Whether the action means anything now.

    Raises:
        UnknownEnvelope, UnknownNode: no such subject.
        ActionRefused: it is there, and there is nothing to do about it.
    """
    if _KINDS[action] in _ADAPTERS:
        return  # whoever does it knows what fits
    if action is OperatorAction.TRUST:
        grant = state.grants.get(subject)
        if grant is None:
            raise UnknownNode(f'no EVSE "{subject}" was ever limited here', hint="`gridgate tree` lists them")
        if not grant.lying:
            raise ActionRefused(f"{subject} is not held for lying", hint="`gridgate explain EVSE` says what binds it")
        return
    envelope = state.envelopes.get(subject)
    if envelope is None:
        raise UnknownEnvelope(f'no envelope "{subject}"', hint="`gridgate envelope list` lists them")
    if action is OperatorAction.RELEASE and not envelope.stale:
        raise ActionRefused(
            f"{subject} holds no stale policy: it is {envelope.state.value}",
            hint="only what outlived its source is released; `gridgate envelope withdraw` ends a living one",
        )
    if action is OperatorAction.WITHDRAW and envelope.state.is_final:
        raise ActionRefused(
            f"{subject} has ended already: it is {envelope.state.value}",
            hint="a stale policy is ended by `gridgate fallback release`" if envelope.stale else "",
        )


def act(work: Work, event: OperatorActed, withdraw: Withdraw) -> None:
    """Do it, or seal why not."""
    kind = _KINDS[event.action]
    subject = {"operator": event.message.actor.principal, kind: event.subject}
    try:
        check(_now(work), event.action, event.subject)
    except GatewayError as problem:
        body = {"action": event.action.value, "why": event.reason, "text": str(problem)}
        work.seal("operator.refused", subject=subject, message=event.message, body=body, reason=problem.code)
        return
    said: dict[str, Json] = {"action": event.action.value, "why": event.reason, **dict(event.detail)}
    if event.evses:
        subject["evse"] = subject["node"] = event.evses[0]
        said["evses"] = list(event.evses)
    sealed = work.seal("operator.acted", subject=subject, message=event.message, body=said)
    if kind in ("peer", "site"):
        return
    work.causes.append(sealed)
    work.dirty = True
    if kind == "station":
        _forget(work, event.evses)
    elif event.action is OperatorAction.TRUST:
        work.set_grant(replace(work.grants[event.subject], lying=False))
    else:
        withdraw(work, work.envelopes[event.subject], f"operator: {event.reason}", sealed)


def _forget(work: Work, evses: Iterable[NodeId]) -> None:
    """Another station serves these EVSEs: nothing is proven of it, each counts at its most until it is."""
    for evse in evses:
        known = work.grant(evse)
        work.set_grant(Grant(evse, known.device, version=known.version))


_KINDS = {
    OperatorAction.WITHDRAW: "envelope",
    OperatorAction.RELEASE: "envelope",
    OperatorAction.TRUST: "evse",
    OperatorAction.APPROVE: "station",
    OperatorAction.REVOKE: "station",
    OperatorAction.REGISTER: "peer",
    OperatorAction.RENEW: "peer",
    OperatorAction.END: "peer",
    OperatorAction.HANDSHAKE: "peer",
    OperatorAction.ADJUST: "peer",
    OperatorAction.RELOAD: "site",
}


_ADAPTERS = frozenset({"peer", "station", "site"})
"""What others know by name, adapters and the process, and the controller does not."""


def _now(work: Work) -> SiteState:
    """The state as the events before this one left it."""
    return dataclasses.replace(work.state, envelopes=work.envelopes, grants=work.grants)
