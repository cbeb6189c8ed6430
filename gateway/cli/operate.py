"""``gridgate envelope``, ``fallback`` and ``station``: look at what holds, and act on it with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.options import SITE_FILE, File, Json, load_config
from gateway.cli.say import Exit, NotFound, printable, put, put_json, table, verb
from gateway.cli.source import Access, Anchors, Certificate, Key, Offline, Url, ask, tell

envelopes = typer.Typer(help="Operating envelopes.", no_args_is_help=True)
fallbacks = typer.Typer(help="Limits that outlived their source.", no_args_is_help=True)
stations = typer.Typer(help="Charging stations.", no_args_is_help=True)

Reason = Annotated[str, typer.Option(help="Why, in a sentence; it goes into the evidence.")]
Envelope = Annotated[str, typer.Argument(metavar="ENVELOPE", help="The envelope's id, from `gridgate envelope list`.")]


@envelopes.command("list")
@verb
def list_envelopes(
    file: File = SITE_FILE,
    url: Url = "",
    certificate: Certificate = None,
    key: Key = None,
    anchors: Anchors = None,
    offline: Offline = False,
    json_output: Json = False,
) -> Exit:
    """List every envelope with its state and the values in force."""
    found, source = _envelopes(file, Access(url, certificate, key, anchors, offline))
    if json_output:
        put_json({"envelopes": found, "from": source})
        return Exit.OK
    rows = [(e["envelope"], e["source"], e["node"], e["direction"], e["state"], _values(e)) for e in found]
    for line in table(rows) or ["no envelopes"]:
        put(printable(line))
    return Exit.OK


@envelopes.command("show")
@verb
def show_envelope(
    envelope: Envelope,
    file: File = SITE_FILE,
    url: Url = "",
    certificate: Certificate = None,
    key: Key = None,
    anchors: Anchors = None,
    offline: Offline = False,
    json_output: Json = False,
) -> Exit:
    """Show one envelope."""
    found, source = _envelopes(file, Access(url, certificate, key, anchors, offline))
    document = next((e for e in found if e["envelope"] == envelope), None)
    if document is None:
        raise NotFound(f'no envelope "{envelope}"', hint="`gridgate envelope list` lists them")
    if json_output:
        put_json({**document, "from": source})
        return Exit.OK
    for name, value in document.items():
        text = _values(document) if name == "values" else str(value if value not in (None, "", []) else "-")
        put(printable(f"{name:<16} {text}"))
    return Exit.OK


@envelopes.command("withdraw")
@verb
def withdraw_envelope(
    envelope: Envelope,
    reason: Reason,
    file: File = SITE_FILE,
    url: Url = "",
    certificate: Certificate = None,
    key: Key = None,
    anchors: Anchors = None,
    json_output: Json = False,
) -> Exit:
    """End a living envelope: its limit holds no more. The grid party's next message opens a new one."""
    access = Access(url, certificate, key, anchors)
    return _act(file, access, f"/envelopes/{envelope}/withdraw", reason, json_output)


@fallbacks.command("release")
@verb
def release_fallback(
    envelope: Envelope,
    reason: Reason,
    file: File = SITE_FILE,
    url: Url = "",
    certificate: Certificate = None,
    key: Key = None,
    anchors: Anchors = None,
    json_output: Json = False,
) -> Exit:
    """Release the fallback that stayed in force when its source's relation or its validity ended."""
    access = Access(url, certificate, key, anchors)
    return _act(file, access, f"/envelopes/{envelope}/release", reason, json_output)


@stations.command("list")
@verb
def list_stations(
    file: File = SITE_FILE,
    url: Url = "",
    certificate: Certificate = None,
    key: Key = None,
    anchors: Anchors = None,
    offline: Offline = False,
    json_output: Json = False,
) -> Exit:
    """List the configured stations and whether they are connected."""
    config = load_config(file)
    access = Access(url, certificate, key, anchors, offline)
    status, source = ask(config, access, "", lambda view: view.status())
    seen = {s["station"]: s for s in status["stations"]}
    rows = [
        {
            "station": station.id,
            "serial": station.serial,
            "listener": station.listener,
            "profile": station.profile,
            "evses": [evse.evse for evse in station.evses],
            "connected": bool(seen.get(station.id, {}).get("connected", False)),
            "protocol": seen.get(station.id, {}).get("protocol", ""),
        }
        for station in config.stations
    ]
    if json_output:
        put_json({"stations": rows, "from": source})
        return Exit.OK
    words = [
        (
            str(r["station"]),
            str(r["serial"]),
            f"{r['listener']}, profile {r['profile']}",
            "connected" if r["connected"] else "OFFLINE",
            str(r["protocol"] or "-"),
        )
        for r in rows
    ]
    for line in table(words) or ["no stations"]:
        put(printable(line))
    return Exit.OK


@stations.command("trust")
@verb
def trust_station(
    evse: Annotated[str, typer.Argument(metavar="EVSE", help="The EVSE's node, as in main/garage/evse-1.")],
    reason: Reason,
    file: File = SITE_FILE,
    url: Url = "",
    certificate: Certificate = None,
    key: Key = None,
    anchors: Anchors = None,
    json_output: Json = False,
) -> Exit:
    """Trust an EVSE again that drew more than it may: it is given increases again."""
    return _act(file, Access(url, certificate, key, anchors), f"/evses/{evse}/trust", reason, json_output)


def _envelopes(file: File, access: Access) -> tuple[list[dict[str, Any]], str]:
    config = load_config(file)
    document, source = ask(config, access, "/envelopes", lambda view: {"envelopes": view.envelopes()})
    return list(document["envelopes"]), source


def _act(file: File, access: Access, path: str, reason: str, json_output: bool) -> Exit:
    document = tell(load_config(file), access, path, {"reason": reason})
    if json_output:
        put_json(document)
    else:
        put(printable(f"ok  {document['action']} {document['subject']}"))
        put(printable(f"    evidence under request {document['request_id']}"))
    return Exit.OK


def _values(envelope: Mapping[str, Any]) -> str:
    return ", ".join(f"{v['value']} {v['dimension']}" for v in envelope["values"]) or "-"
