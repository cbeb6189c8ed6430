"""What an evidence entry says, in one line for people. Pure; nothing is escaped here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.infra.evidence_read import StoredEntry


def words(entry: StoredEntry) -> str:
    """What an entry says, in one line."""
    subject: Mapping[str, str] = entry.subject
    body: Mapping[str, Any] = entry.body
    return _WORDS.get(entry.type, _plain)(subject, body, str(entry.document.get("reason", "")))


def _plain(subject: Mapping[str, str], body: Mapping[str, Any], reason: str) -> str:
    about = " ".join(f"{kind} {value}" for kind, value in subject.items())
    said = " ".join(f"{key}={value}" for key, value in body.items() if isinstance(value, (str, int)))
    return " · ".join(part for part in (about, said, reason) if part)


def _revised(subject: Mapping[str, str], body: Mapping[str, Any], _reason: str) -> str:
    blocks = body.get("blocks") or ()
    said = ", ".join(
        f"{b['value']} {str(b['dimension']).rpartition('_')[2]} {b['start'][11:16]}–{b['end'][11:16]}"
        for b in blocks[:4]
    )
    more = f" and {len(blocks) - 4} more" if len(blocks) > 4 else ""
    who = f"{subject.get('peer', '?')} request {subject.get('request_id', '?')}"
    return f"{who} · {subject.get('node')} {body.get('kind')} {body.get('direction')}: {said}{more}"


def _moved(subject: Mapping[str, str], body: Mapping[str, Any], _reason: str) -> str:
    values = ", ".join(f"{v['value']} {v['dimension']}" for v in body.get("values") or ())
    step = f"{body.get('from') or '–'} → {body.get('to')} ({body.get('trigger')})"
    return " · ".join(part for part in (f"{subject.get('envelope')} at {subject.get('node')}", step, values) if part)


def _decided(_subject: Mapping[str, str], body: Mapping[str, Any], _reason: str) -> str:
    targets = body.get("targets") or {}
    said = ", ".join(f"{evse} {t['w']} W ({t['binding']})" for evse, t in list(targets.items())[:4])
    more = f" and {len(targets) - 4} more" if len(targets) > 4 else ""
    return f"{body.get('allocated_w')} W to {body.get('asks')} EVSE, {body.get('commands')} command(s): {said}{more}"


def _sent(subject: Mapping[str, str], body: Mapping[str, Any], _reason: str) -> str:
    steps = body.get("steps") or ()
    said = ", ".join(f"{s['limit_w']} W from {s['from'][11:19]}" for s in steps[:4])
    return f"{subject.get('station')} {subject.get('evse')} {body.get('layer')}: {said}"


def _judged(subject: Mapping[str, str], body: Mapping[str, Any], reason: str) -> str:
    span = f"{str(body.get('start'))[11:19]}–{str(body.get('end'))[11:19]}"
    figures = f"limit {body.get('limit_w')} W, mean {body.get('mean_w')} W, coverage {body.get('coverage_pct')} %"
    return " · ".join(part for part in (f"{body.get('verdict')} {subject.get('node')} {span}", figures, reason) if part)


def _reloaded(_subject: Mapping[str, str], body: Mapping[str, Any], _reason: str) -> str:
    changes = body.get("changes") or ()
    said = ", ".join(" ".join(change) for change in changes[:6])
    more = f" and {len(changes) - 6} more" if len(changes) > 6 else ""
    return f"{body.get('before')} → {body.get('after')}: {said or 'found at a start'}{more}"


_WORDS = {
    "envelope.revised": _revised,
    "envelope.state": _moved,
    "allocation.decided": _decided,
    "setpoint.sent": _sent,
    "compliance.interval": _judged,
    "topology.changed": _reloaded,
}
