"""``gridgate evidence``: checks, searches and exports the log that a gateway left or is writing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.options import SITE_FILE, File, Json, Log, Store, log_of
from gateway.cli.say import Exit, UsageError, printable, put, put_json, table, verb

if TYPE_CHECKING:
    from gateway.infra.evidence_read import StoredHead
    from gateway.infra.evidence_verify import Report

app = typer.Typer(help="The evidence log.", no_args_is_help=True)


@app.command("verify")
@verb
def verify(
    file: File = SITE_FILE,
    store: Store = None,
    head: Annotated[
        Path | None, typer.Option(help="The last signed head, where it does not lie beside the store as its .head.")
    ] = None,
    vkey: Annotated[
        str | None, typer.Option(help="The verifier key as you hold it; without it the log's own word is taken.")
    ] = None,
    json_output: Json = False,
) -> Exit:
    """Recompute every hash, signature and look-up of the log, and compare it with the head outside.

    Works beside a running gateway, and on a copy of the store alone with --store. Exit code 3 if
    anything does not hold.
    """
    from gateway.infra.evidence_read import EvidenceReader
    from gateway.infra.evidence_verify import verify_log

    log = log_of(file, store)
    log = log if head is None else Log(log.path, head)
    with EvidenceReader(log.path) as reader:
        stored = reader.head()
    report = verify_log(log.path, head_path=log.head, vkey=vkey)
    if json_output:
        put_json({**document(report, stored), "head_file": None if log.head is None else str(log.head)})
    else:
        for line in lines(report, stored, log.head):
            put(line)
    return Exit.OK if report.ok else Exit.FOUND


@app.command("list")
@verb
def list_entries(  # noqa: PLR0913, PLR0917  one argument per option of the command line
    file: File = SITE_FILE,
    store: Store = None,
    node: Annotated[str | None, typer.Option(help="Only entries about this node.")] = None,
    peer: Annotated[str | None, typer.Option(help="Only entries about this party or operator.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this type, as in envelope.revised.")] = None,
    verdict: Annotated[str | None, typer.Option(help="Only windows judged so, as in BREACH.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Not before this instant (RFC 3339).")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Before this instant (RFC 3339).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest ones.")] = 100,
    json_output: Json = False,
) -> Exit:
    """List entries, newest first. Every option given must hold."""
    from gateway.cli.lineage import sealed_document
    from gateway.cli.search import Wanted, search
    from gateway.infra.evidence_read import EvidenceReader

    log = log_of(file, store)
    wanted = Wanted.of(node=node, peer=peer, type=type_, verdict=verdict, start=from_, end=to)
    with EvidenceReader(log.path) as reader:
        found, is_whole = search(reader, wanted, limit)
    if json_output:
        put_json({"entries": [sealed_document(e) for e in found], "truncated": not is_whole})
        return Exit.OK
    rows = [
        (str(e.idx), f"{e.at:%Y-%m-%d %H:%M:%SZ}", e.type, str(e.body.get("verdict", "")), _about(e.subject), e.id)
        for e in found
    ]
    for line in table(rows) or ["no entry matches"]:
        put(printable(line))
    if not is_whole:
        put(f"there are more; --limit {limit} shows the newest")
    return Exit.OK


@app.command("export")
@verb
def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; new or empty.")],
    file: File = SITE_FILE,
    store: Store = None,
    hashes_only: Annotated[
        bool, typer.Option("--hashes-only", help="Tiles without entries: enough for a witness.")
    ] = False,
    json_output: Json = False,
) -> Exit:
    """Write the log as of its newest signed head as C2SP tlog-tiles, for other people's tools."""
    from gateway.infra.evidence_read import EvidenceReader
    from gateway.infra.evidence_tiles import export_tiles

    log = log_of(file, store)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder", hint="name a new one; an export never overwrites")
    published = export_tiles(log.path, folder, entries=not hashes_only)
    with EvidenceReader(log.path) as reader:
        vkey = reader.head().vkey
    if json_output:
        put_json({"folder": str(folder), "size": published.size, "files": published.files, "vkey": vkey})
    else:
        put(f"ok  {published.size} entries in {published.files} files in {printable(str(folder))}")
        put(printable(f"    key {vkey}"))
    return Exit.OK


def _outside(head: Path | None) -> str:
    if head is None:
        return "no signed head to compare with: a log that was cut off or brought back would not show"
    return f"compared with {printable(str(head))}"


def _about(subject: Mapping[str, str]) -> str:
    """What an entry is about, in one short column."""
    named = (subject.get(kind) for kind in ("evse", "node", "station", "envelope", "peer", "operator"))
    return next((name for name in named if name), "-")


def document(report: Report, head: StoredHead) -> dict[str, Any]:
    """The report as JSON."""
    from gateway.domain.timeline import rfc3339

    return {
        "ok": report.ok,
        "size": report.size,
        "root": report.root,
        "problems": [{"code": p.code, "index": p.index, "message": p.message} for p in report.problems],
        "problem_count": report.problem_count,
        "checkpoint": {
            "size": report.signed_size,
            "signed_at": None if head.signed_at is None else rfc3339(head.signed_at),
            "count": report.checkpoints,
            "vkey": report.vkey,
            "vkey_given": report.vkey_given,
        },
        "raw": {"checked": report.raw_checked, "missing": len(report.raw_missing)},
    }


def lines(report: Report, head: StoredHead, outside: Path | None) -> list[str]:
    """The report in words."""
    signed = "" if head.signed_at is None else f", last at {head.signed_at:%Y-%m-%d %H:%M:%SZ}"
    out = [
        f"entries      {report.size}",
        f"root         {report.root}",
        f"signed       {report.signed_size} of {report.size}, {report.checkpoints} checkpoint(s){signed}",
        f"messages     {report.raw_checked} kept and checked, {len(report.raw_missing)} cited and no longer kept",
        f"outside      {_outside(outside)}",
        f"key          {printable(report.vkey)}",
    ]
    if not report.vkey_given:
        out.append("             the log's own word; compare it with the key you were given (--vkey)")
    for problem in report.problems:
        place = "" if problem.index is None else f"  at {problem.index}"
        out.append(f"error  evidence.{problem.code}{place}")
        out.append(f"       {printable(problem.message)}")
    hidden = report.problem_count - len(report.problems)
    if hidden > 0:
        out.append(f"       and {hidden} more")
    if report.ok:
        out.append("ok  the log verifies")
    else:
        out.append("       do: keep the files as they are, take a copy, and compare with the newest backup")
        out.append("failed  the log does not verify")
    return out
