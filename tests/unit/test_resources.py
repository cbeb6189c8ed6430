"""Generated files: what is committed is what the adapters make."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from gateway.domain.errors import LocalError
from gateway.resources import drift, generated, main, write


def test_committed_files_are_what_the_adapters_generate():
    assert drift(generated()) == []


def test_check_reports_success_by_its_exit_code(capsys: pytest.CaptureFixture[str]):
    assert main(["--check"]) == 0
    assert capsys.readouterr().out == ""


def test_a_changed_file_a_missing_file_and_a_stray_one_are_each_named(tmp_path: Path):
    write({"schemas/a.json": b"1", "adapters/x.py": b"2"}, tmp_path)
    (tmp_path / "schemas/old.json").write_bytes(b"{}")
    wanted = {"schemas/a.json": b"9", "schemas/b.json": b"3", "adapters/x.py": b"2"}
    assert drift(wanted, tmp_path) == [
        "changed: schemas/a.json",
        "missing: schemas/b.json",
        "made by nobody: schemas/old.json",
    ]


def test_writing_twice_touches_nothing_the_second_time(tmp_path: Path):
    wanted = {"schemas/x/1.0/m.json": json.dumps({}).encode()}
    assert write(wanted, tmp_path) == ["schemas/x/1.0/m.json"]
    assert write(wanted, tmp_path) == []
    assert drift(wanted, tmp_path) == []


def test_two_adapters_may_not_make_the_same_file():
    twice = [EntryPoint(name, "adapters.ocpp:ADAPTER", "gridgate.adapters") for name in ("a", "b")]
    with pytest.raises(LocalError, match=r"adapter b may not make adapters/ocpp/wire"):
        generated(twice)
