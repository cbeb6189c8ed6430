"""``gridgate status``: sources, envelopes, stations, sessions, and what is owed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.cli.say import Exit, printable, put, put_json, table, watts
from gateway.cli.source import Site, site_verb


@site_verb(reads=True)
def status(site: Site) -> Exit:
    """Show the site now: grid parties, envelopes, stations, sessions, open violations."""
    document, source = site.ask("", lambda view: view.status())
    if site.as_json:
        put_json({**document, "from": source})
        return Exit.OK
    for line in lines(document, source):
        put(printable(line))
    return Exit.OK


def lines(document: Mapping[str, Any], source: str) -> list[str]:
    """The document in words."""
    alive = "running" if source == "gateway" else "from the store, as last written"
    out = [f"site {document['site']}  {document['at']}  {alive}"]
    out += _section("grid parties", [_source(s) for s in document["sources"]])
    out += _section("envelopes", [_envelope(e) for e in document["envelopes"]])
    out += _section("stations", [_station(s) for s in document["stations"]])
    out += _section("sessions", [(s["evse"], s["session"], f"since {s['started_at']}") for s in document["sessions"]])
    out += _section("owed", [(peer, f"{n} fact(s)") for peer, n in sorted(document["outbox"].items()) if n])
    standing = sorted(document["standing_violations_w"].items())
    out += _section("STANDING VIOLATIONS", [(node, f"{watts(size)} above the limit") for node, size in standing])
    return out


def _section(title: str, rows: list[tuple[str, ...]]) -> list[str]:
    return ["", title, *(f"  {row}" for row in table(rows))] if rows else []


def _source(source: Mapping[str, Any]) -> tuple[str, ...]:
    word = "ended" if source["ended"] else "alive" if source["alive"] else "LOST"
    return source["source"], word, f"until {source['alive_until']}" if source["alive_until"] else ""


def _envelope(envelope: Mapping[str, Any]) -> tuple[str, ...]:
    values = ", ".join(f"{v['value']} {v['dimension']}" for v in envelope["values"]) or "-"
    return envelope["envelope"], envelope["node"], envelope["direction"], envelope["state"], values


def _station(station: Mapping[str, Any]) -> tuple[str, ...]:
    return station["station"], "connected" if station["connected"] else "OFFLINE", station["protocol"] or "-"
