"""``gridgate envelope``, ``fallback`` and ``station``: look at what holds, and act on it with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.say import Exit, NotFound, UsageError, printable, put, put_json, table
from gateway.cli.source import Site, site_verb

envelopes = typer.Typer(help="Operating envelopes.", no_args_is_help=True)
fallbacks = typer.Typer(help="Limits that outlived their source.", no_args_is_help=True)
stations = typer.Typer(help="Charging stations.", no_args_is_help=True)

Reason = Annotated[str, typer.Option(help="Why, in a sentence; it goes into the evidence.")]
Envelope = Annotated[str, typer.Argument(metavar="ENVELOPE", help="The envelope's id, from `gridgate envelope list`.")]
Station = Annotated[
    str, typer.Argument(metavar="ID", help="What the station calls itself, from `gridgate station list`.")
]


@envelopes.command("list")
@site_verb(reads=True)
def list_envelopes(site: Site) -> Exit:
    """List every envelope with its state and the values in force."""
    found, source = _envelopes(site)
    if site.as_json:
        put_json({"envelopes": found, "from": source})
        return Exit.OK
    rows = [(e["envelope"], e["source"], e["node"], e["direction"], e["state"], _values(e)) for e in found]
    for line in table(rows) or ["no envelopes"]:
        put(printable(line))
    return Exit.OK


@envelopes.command("show")
@site_verb(reads=True)
def show_envelope(site: Site, envelope: Envelope) -> Exit:
    """Show one envelope."""
    found, source = _envelopes(site)
    document = next((e for e in found if e["envelope"] == envelope), None)
    if document is None:
        raise NotFound(f'no envelope "{envelope}"', hint="`gridgate envelope list` lists them")
    if site.as_json:
        put_json({**document, "from": source})
        return Exit.OK
    for name, value in document.items():
        text = _values(document) if name == "values" else str(value if value not in (None, "", []) else "-")
        put(printable(f"{name:<16} {text}"))
    return Exit.OK


@envelopes.command("withdraw")
@site_verb(reads=False)
def withdraw_envelope(site: Site, envelope: Envelope, reason: Reason) -> Exit:
    """End a living envelope: its limit holds no more. The grid party's next message opens a new one."""
    return _act(site, f"/envelopes/{envelope}/withdraw", {"reason": reason})


@fallbacks.command("release")
@site_verb(reads=False)
def release_fallback(site: Site, envelope: Envelope, reason: Reason) -> Exit:
    """Release the fallback that stayed in force when its source's relation or its validity ended."""
    return _act(site, f"/envelopes/{envelope}/release", {"reason": reason})


@stations.command("list")
@site_verb(reads=True)
def list_stations(site: Site) -> Exit:
    """List the configured stations, whether they are connected, and unknown ones that were refused."""
    document, source = _stations(site)
    if site.as_json:
        put_json({**{name: document[name] for name in ("stations", "approved", "unknown")}, "from": source})
        return Exit.OK
    rows = [
        (
            str(s["station"]),
            str(s["serial"]),
            f"{s['listener']}, profile {s['profile']}",
            "connected" if s["connected"] else "OFFLINE",
            str(s["protocol"] or "-"),
            f"its place is held by {s['held_by']}" if s["held_by"] else "",
        )
        for s in document["stations"]
    ]
    rows += [
        (
            str(s["station"]),
            str(s["serial"] or "-"),
            f"{s['listener']}, profile {s['profile']}",
            "unknown",
            "-",
            f"{s['times']} time(s), last {s['last_at']} from {s['address']}, credential {s['credential']}",
        )
        for s in document["unknown"]
    ]
    for line in table(rows) or ["no stations"]:
        put(printable(line))
    return Exit.OK


@stations.command("trust")
@site_verb(reads=False)
def trust_station(
    site: Site,
    evse: Annotated[str, typer.Argument(metavar="EVSE", help="The EVSE's node, as in main/garage/evse-1.")],
    reason: Reason,
) -> Exit:
    """Trust an EVSE again that drew more than it may: it is given increases again."""
    return _act(site, f"/evses/{evse}/trust", {"reason": reason})


@stations.command("approve")
@site_verb(reads=False)
def approve_station(
    site: Site,
    station: Station,
    evse: Annotated[str, typer.Option(help="The EVSE whose configured station it replaces.")],
    reason: Reason,
    credential: Annotated[
        str, typer.Option(help="What it showed; needed where two of the same name knocked. The first digits will do.")
    ] = "",
) -> Exit:
    """Let a station in that knocked and was refused, instead of the one that is configured at an EVSE.

    It serves every EVSE of that station and counts at its most until it has proven that it follows.
    """
    path = f"/stations/{station}/approve"
    return _act(site, path, {"reason": reason, "evse": evse, "credential": _credential(site, station, credential)})


@stations.command("revoke")
@site_verb(reads=False)
def revoke_station(site: Site, station: Station, reason: Reason) -> Exit:
    """Take an approval back: the station is cut off, and its place is the configured one's again."""
    return _act(site, f"/stations/{station}/revoke", {"reason": reason})


def _stations(site: Site) -> tuple[dict[str, Any], str]:
    return site.ask("/stations", lambda view: view.stations())


def _credential(site: Site, station: str, given: str) -> str:
    """The one credential that is meant, in full."""
    found = [
        str(s["credential"])
        for s in _stations(site)[0]["unknown"]
        if s["station"] == station and s["credential"].startswith(given.lower())
    ]
    if not found:
        said = f"no station {station} knocked" if not given else f"no station {station} knocked with {given}"
        raise NotFound(said, hint="`gridgate station list` says who did")
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} stations called {station} knocked: {', '.join(found)}", hint="say which with --credential"
        )
    return found[0]


def _envelopes(site: Site) -> tuple[list[dict[str, Any]], str]:
    document, source = site.ask("/envelopes", lambda view: {"envelopes": view.envelopes()})
    return list(document["envelopes"]), source


def _act(site: Site, path: str, body: Mapping[str, str]) -> Exit:
    document = site.tell(path, body)
    if site.as_json:
        put_json(document)
    else:
        put(printable(f"ok  {document['action']} {document['subject']}"))
        put(printable(f"    evidence under request {document['request_id']}"))
    return Exit.OK


def _values(envelope: Mapping[str, Any]) -> str:
    return ", ".join(f"{v['value']} {v['dimension']}" for v in envelope["values"]) or "-"
