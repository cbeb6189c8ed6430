"""What a session was denied, per envelope or limit that bound it. Pure.

Between two changes of target, binding or wish the same power is denied all the time, so it is
counted when one of them changes and when the session ends, not in every step. A restart changes
none of them: what was installed went on holding.
"""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from gateway.app.plan import facts_of
from gateway.app.state import Grant, Work


def counted(work: Work, grant: Grant) -> Grant:
    """The grant with everything counted that its session was denied until now."""
    session = work.sessions.get(grant.evse)
    if session is None or work.now == grant.withheld_at:
        return grant
    label = grant.binding_envelope or grant.binding
    wish_w = min(v for v in (facts_of(work, grant.evse).max_w, session.max_w) if v is not None)
    denied_w = max(0, wish_w - grant.target_w)
    if not denied_w or session.wants_power is False or label in ("", "DEMAND"):
        return replace(grant, withheld_at=work.now)
    since_ms = (work.now - grant.withheld_at) // timedelta(milliseconds=1)
    withheld = {**grant.withheld_mws, label: grant.withheld_mws.get(label, 0) + denied_w * max(since_ms, 0)}
    return replace(grant, withheld_mws=withheld, withheld_at=work.now)


def begun(work: Work, grant: Grant) -> Grant:
    """The grant at the start of a session: nothing denied yet."""
    return replace(grant, withheld_mws={}, withheld_at=work.now)
