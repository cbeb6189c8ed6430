"""``gridgate tree``: the electrical tree with what is allowed, given and measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.cli.say import Exit, printable, put, put_json, table, watts
from gateway.cli.source import Site, site_verb


@site_verb(reads=True)
def tree(site: Site) -> Exit:
    """Show the electrical tree: limit, allocated and measured power of every node."""
    document, source = site.ask("/tree", lambda view: view.tree())
    if site.as_json:
        put_json({**document, "from": source})
        return Exit.OK
    for line in lines(document, source):
        put(printable(line))
    return Exit.OK


def lines(document: Mapping[str, Any], source: str) -> list[str]:
    """The tree in words, parents first."""
    alive = "running" if source == "gateway" else "from the store, as last written"
    rows = [("node", "limit", "allocated", "measured", "bound by")]
    for node in sorted(document["nodes"], key=lambda n: n["node"].split("/")):
        path = str(node["node"])
        rows.append(
            (
                "  " * path.count("/") + path.rpartition("/")[2],
                watts(node["limit_w"]),
                watts(node["allocated_w"]),
                watts(node["measured_w"]),
                " ".join(str(word) for word in (node["binding"], "LYING" if node["lying"] else None) if word)
                or str(node["limit_source"] or ""),
            )
        )
    return [f"site {document['site']}  {document['at']}  {alive}", *table(rows)]
