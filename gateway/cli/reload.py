"""``gridgate reload``: have a running gateway read its configuration again."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.say import Exit, printable, put, put_json
from gateway.cli.source import Site, site_verb

PATIENCE_S = 60.0
"""Stations that are taken out are told to take nothing first; one that is slow has 20 s to confirm it."""

Reason = Annotated[str, typer.Option(help="Why, in a sentence; it goes into the evidence.")]


@site_verb(reads=False)
def reload(site: Site, reason: Reason) -> Exit:
    """Have the running gateway read site.yaml again and go on with it.

    The file is taken as a whole or refused as a whole. What only a restart can change is named.
    """
    document = site.tell("/reload", {"reason": reason}, timeout_s=PATIENCE_S)
    if site.as_json:
        put_json(document)
        return Exit.OK
    for change in document["changes"] or ["nothing changed"]:
        put(printable(str(change)))
    put(printable(f"ok    evidence under request {document['request_id']}"))
    return Exit.OK
