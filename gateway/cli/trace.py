"""``gridgate trace``: the lineage of an entry, a message, a thing, or a measured value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.options import SITE_FILE, File, Json, Store, log_of
from gateway.cli.say import Exit, NotFound, printable, put, put_json, verb, watts

if TYPE_CHECKING:
    from gateway.cli.lineage import Lineage, Measured


@verb
def trace(
    id: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="An evidence id, a message's id, a station, session, transaction, envelope or command, "
            "or a measured value as NODE or NODE@TIME (RFC 3339).",
        ),
    ],
    file: File = SITE_FILE,
    store: Store = None,
    json_output: Json = False,
) -> Exit:
    """Walk the evidence: back to the message that caused it, on to the verdict.

    Reads the store alone, with the gateway running or not.
    """
    from gateway.cli.lineage import trace as find
    from gateway.infra.evidence_read import EvidenceReader

    log = log_of(file, store)
    with EvidenceReader(log.path) as reader:
        found = find(reader, id)
    if found is None:
        raise NotFound(
            f'nothing in {log.path} is called "{printable(id)}"',
            code="trace.unknown-id",
            hint="`gridgate status` and `gridgate tree` show names; a measured value is NODE or NODE@TIME",
        )
    if json_output:
        put_json(found.document())
    else:
        for line in lines(found):
            put(line)
    return Exit.OK


def lines(found: Lineage) -> list[str]:
    """The chain in words, oldest first, causes above and left of what they led to."""
    from gateway.cli.words import words

    out = [f"trace  {printable(found.id)}  ({printable(found.kind)})"]
    if found.measurement is not None:
        out += _measured(found.measurement)
    levels = found.levels()
    for entry in found.entries:
        mark = "*" if entry.id in found.starts else " "
        indent = "  " * min(levels[entry.id], 12)
        out.append(f"{mark} {entry.at:%Y-%m-%d %H:%M:%SZ}  {indent}{printable(entry.type)}  {printable(words(entry))}")
        out.append(f"{'':24}{indent}{printable(entry.id)}")
    out.append(f"requests  {', '.join(printable(r) for r in found.requests) or '-'}")
    if found.set_by:
        out.append(f"set by    {', '.join(printable(r) for r in found.set_by)}")
    out.append(f"verdicts  {', '.join(str(e.body.get('verdict')) for e in found.verdicts) or '-'}")
    if found.truncated:
        out.append("There is more than is shown; trace one of the ids above to go on from there.")
    return out


def _measured(measured: Measured) -> list[str]:
    sample = measured.sample
    out = [
        f"value  {printable(measured.node)} {watts(sample.value)} measured {sample.at:%Y-%m-%d %H:%M:%SZ}, "
        f"{sample.quality.value}, by {printable(sample.source) or '-'}"
    ]
    if not measured.covered:
        out.append("       no judged window holds it; below is the last one before, if any")
    return out
