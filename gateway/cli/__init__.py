"""The command ``gridgate``. One file per verb; heavy packages are imported inside the verb."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gateway.cli import (
    certs,
    check,
    demo,
    doctor,
    evidence,
    explain,
    init,
    operate,
    peer,
    reload,
    replay,
    run,
    status,
    trace,
    tree,
)
from gateway.cli.say import Exit, UsageError, complain

app = typer.Typer(
    name="gridgate",
    help="Envelopes in, safe limits out, evidence back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 ok, 1 failed, 2 usage or bad configuration, 3 found problems.",
)
app.command("demo")(demo.demo)
app.command("init")(init.init)
app.command("check")(check.check)
app.command("run")(run.run)
app.command("reload")(reload.reload)
app.command("status")(status.status)
app.command("tree")(tree.tree)
app.command("explain")(explain.explain)
app.command("trace")(trace.trace)
app.command("replay")(replay.replay)
app.command("doctor")(doctor.doctor)
app.add_typer(operate.envelopes, name="envelope")
app.add_typer(operate.fallbacks, name="fallback")
app.add_typer(operate.stations, name="station")
app.add_typer(peer.app, name="peer")
app.command("adjust")(peer.adjust)
app.add_typer(evidence.app, name="evidence")
app.add_typer(certs.app, name="certs")


def _version(wanted: bool) -> None:
    if wanted:
        from gateway import __version__

        print(f"gridgate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Envelopes in, safe limits out, evidence back."""


def main() -> None:
    """Run the command line; ends the process."""
    if "--json" not in sys.argv:
        sys.exit(app())
    try:
        code = app(standalone_mode=False)
    except Exception as problem:
        # The parser's own errors know how to say themselves; everything else is a bug to be seen.
        if not hasattr(problem, "format_message"):
            raise
        complain(UsageError(problem.format_message()), as_json=True)
        code = Exit.USAGE
    sys.exit(code or Exit.OK)
