from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from gateway.cli.logs import JsonLines, to_stderr
from gateway.cli.say import Exit, UsageError, error_lines, table, verb, watts
from gateway.domain.errors import (
    ConfigError,
    ConfigProblem,
    GatewayError,
    LocalError,
    NotUtc,
    PeerUnreachable,
    StoreError,
)
from tests.unit.cli.evening import gridgate


def fails_with(problem: BaseException) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @verb
    def act(json_output: bool = typer.Option(False, "--json")) -> Exit:
        raise problem

    return app


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (StoreError("disk full"), Exit.FAILED),
        (PeerUnreachable("no connection"), Exit.FAILED),
        (LocalError("our bug"), Exit.FAILED),
        (NotUtc("no zone"), Exit.USAGE),
        (UsageError("makes no sense"), Exit.USAGE),
        (ConfigError((ConfigProblem("config.x", "site.yaml", 4, "nodes", "wrong"),)), Exit.USAGE),
    ],
)
def test_an_expected_error_becomes_words_and_a_documented_code(problem: GatewayError, code: Exit) -> None:
    app = fails_with(problem)
    said = CliRunner().invoke(app, [])
    assert said.exit_code == code
    assert said.stderr.startswith("error  ")
    assert "Traceback" not in said.stderr
    as_json = CliRunner().invoke(app, ["--json"])
    assert as_json.exit_code == code
    assert json.loads(as_json.stdout)["error"]["code"] == problem.code


def test_a_bug_of_ours_is_not_hidden() -> None:
    assert isinstance(CliRunner().invoke(fails_with(ZeroDivisionError()), []).exception, ZeroDivisionError)


def test_an_error_says_what_where_why_and_what_to_do() -> None:
    problem = ConfigError(
        (
            ConfigProblem(
                "config.unknown-node", "site.yaml", 41, "bindings[0].node", "no such node", "main/garge", "main/garage"
            ),
        )
    )
    assert error_lines(problem) == [
        "error  config.unknown-node         site.yaml:41, bindings[0].node",
        "       no such node",
        "       found: main/garge",
        '       Did you mean "main/garage"?',
        f"       do: {ConfigError.hint}",
    ]


def test_text_from_a_peer_cannot_command_the_terminal() -> None:
    lines = error_lines(PeerUnreachable("bad \x1b[2J\x07 peer\r\nsecond"))
    assert lines[1:] == ["       bad \\x1b[2J\\x07 peer", "       second"]


def test_tables_are_aligned_with_watts_to_the_right() -> None:
    rows = table([("node", "limit"), ("main", watts(60_000)), ("evse", watts(0)), ("x", watts(None))])
    assert rows == ["node  limit", "main  60 000 W", "evse       0 W", "x     -"]


def test_logs_are_one_json_object_a_line() -> None:
    out = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        to_stderr("info", out)
        logging.getLogger("gridgate.test").warning("two\nlines", extra={"site": "depot", "n": 3})
        logging.getLogger("httpx").info("routine")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    [line] = out.getvalue().splitlines()
    document = json.loads(line)
    assert (document["message"], document["site"], document["n"]) == ("two\nlines", "depot", 3)
    assert (document["level"], document["logger"]) == ("warning", "gridgate.test")
    assert document["at"].endswith("Z")


def test_a_log_line_carries_the_stack_of_a_bug() -> None:
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    assert "ZeroDivisionError: division" in json.loads(JsonLines().format(record))["trace"]


def test_every_verb_has_json() -> None:
    verbs = ["demo", "init", "check", "run", "status", "tree", "explain", "trace", "doctor", "evidence verify"]
    for name in verbs:
        said = gridgate(*name.split(), "--help")
        assert said.code == 0
        assert "--json" in said.out


def test_help_and_version_load_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['gridgate', '--version']\n"
        "from gateway.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'fastapi', 'sqlalchemy', 'httpx', 'numpy', 'cryptography', 'websockets', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["gridgate 0.1.0", "[]"]


@pytest.mark.parametrize("words", [["nonsense", "--json"], ["trace", "--json"], ["status", "--colour", "--json"]])
def test_a_command_line_that_means_nothing_is_told_as_json_too(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "gateway", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "cli.usage"
