"""``gridgate evidence``: checks the log that a gateway left or is writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.options import SITE_FILE, File, Json, load_config
from gateway.cli.say import Exit, printable, put, put_json, verb

if TYPE_CHECKING:
    from gateway.infra.evidence_read import StoredHead
    from gateway.infra.evidence_verify import Report

app = typer.Typer(help="The evidence log.", no_args_is_help=True)


@app.command("verify")
@verb
def verify(
    file: File = SITE_FILE,
    vkey: Annotated[
        str | None, typer.Option(help="The verifier key as you hold it; without it the log's own word is taken.")
    ] = None,
    json_output: Json = False,
) -> Exit:
    """Recompute every hash, signature and look-up of the log, and compare it with the head outside.

    Works beside a running gateway. Exit code 3 if anything does not hold.
    """
    from gateway.infra.evidence_read import EvidenceReader
    from gateway.infra.evidence_verify import verify_log

    config = load_config(file)
    with EvidenceReader(config.store.path) as reader:
        head = reader.head()
    report = verify_log(config.store.path, head_path=config.store.head, vkey=vkey)
    if json_output:
        put_json(document(report, head))
    else:
        for line in lines(report, head):
            put(line)
    return Exit.OK if report.ok else Exit.FOUND


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


def lines(report: Report, head: StoredHead) -> list[str]:
    """The report in words."""
    signed = "" if head.signed_at is None else f", last at {head.signed_at:%Y-%m-%d %H:%M:%SZ}"
    out = [
        f"entries      {report.size}",
        f"root         {report.root}",
        f"signed       {report.signed_size} of {report.size}, {report.checkpoints} checkpoint(s){signed}",
        f"messages     {report.raw_checked} kept and checked, {len(report.raw_missing)} cited and no longer kept",
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
