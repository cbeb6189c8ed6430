"""``gridgate explain``: why an EVSE has what it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.options import SITE_FILE, File, Json, load_config
from gateway.cli.say import Exit, printable, put, put_json, table, verb, watts
from gateway.cli.source import Access, Anchors, Certificate, Key, Offline, Url, ask
from gateway.domain.ids import NodeId


@verb
def explain(
    evse: Annotated[str, typer.Argument(metavar="EVSE", help="The EVSE's node, as in main/garage/evse-1.")],
    file: File = SITE_FILE,
    url: Url = "",
    certificate: Certificate = None,
    key: Key = None,
    anchors: Anchors = None,
    offline: Offline = False,
    json_output: Json = False,
) -> Exit:
    """Say which limit binds an EVSE, from which message, why, and until when."""
    config = load_config(file)
    access = Access(url, certificate, key, anchors, offline)
    document, source = ask(config, access, f"/evses/{evse}/explain", lambda view: view.explain(NodeId(evse)))
    if json_output:
        put_json({**document, "from": source})
        return Exit.OK
    for line in lines(document, source):
        put(printable(line))
    return Exit.OK


def lines(document: Mapping[str, Any], source: str) -> list[str]:
    """The document in words."""
    alive = "running" if source == "gateway" else "from the store, as last written"
    rows = [
        ("target", watts(document["target_w"])),
        ("installed", watts(document["installed_w"])),
        ("worst case", watts(document["worst_case_w"])),
        ("bound by", str(document["binding"] or "-")),
        ("at node", str(document["binding_node"] or "-")),
        ("decision", str(document["decision"] or "-")),
        ("session", str(document["session"] or "-")),
    ]
    if document["uncommandable_since"]:
        rows.append(("UNCOMMANDABLE", f"since {document['uncommandable_since']}"))
    if document["lying"]:
        rows.append(("LYING", "draws more than it may; counted at what it draws"))
    out = [f"{document['evse']}  {document['at']}  {alive}", *(_row(name, value) for name, value in rows)]
    envelope = document["envelope"]
    if envelope is not None:
        until = f" until {envelope['until']}" if envelope["until"] else ""
        out.append(f"envelope {envelope['envelope']} from {envelope['source']}: {envelope['state']}{until}")
        values = [
            (
                f"  {v['value']} {v['dimension']}",
                f"request {v['request_id'] or '-'}",
                f"revision {v['revision'] or '-'}",
            )
            for v in envelope["values"]
        ]
        out += table(values)
    return out


def _row(name: str, value: str) -> str:
    return f"{name:<14} {value}"
