"""``gridgate explain``: why an EVSE has what it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.say import Exit, printable, put, put_json, table, watts
from gateway.cli.source import Site, site_verb
from gateway.domain.ids import NodeId


@site_verb(reads=True)
def explain(
    site: Site,
    evse: Annotated[str, typer.Argument(metavar="EVSE", help="The EVSE's node, as in main/garage/evse-1.")],
) -> Exit:
    """Say which limit binds an EVSE, from which message, why, and until when."""
    document, source = site.ask(f"/evses/{evse}/explain", lambda view: view.explain(NodeId(evse)))
    if site.as_json:
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
        ("bound by", " ".join(part for part in (document["class"], f"({document['code']})") if part)),
        ("at node", str(document["binding_node"] or "-")),
        ("why", document["why"]),
        ("until", document["until"]),
        ("decision", str(document["decision"] or "-")),
        ("session", str(document["session"] or "-")),
    ]
    if not document["proven"]:
        rows.append(("UNPROVEN", "its station has not shown yet that it holds a limit; counted at its most"))
    if document["uncommandable_since"]:
        rows.append(("UNCOMMANDABLE", f"since {document['uncommandable_since']}"))
    if document["lying"]:
        rows.append(("LYING", "draws more than it may; counted at what it draws"))
    out = [f"{document['evse']}  {document['at']}  {alive}", *(_row(name, value) for name, value in rows)]
    envelope = document["envelope"]
    if envelope is not None:
        out.append(f"envelope {envelope['envelope']} from {envelope['source']}: {envelope['state']}")
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
