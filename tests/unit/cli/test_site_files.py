from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from gateway.config import load
from tests.unit.cli.evening import a_site, gridgate


def test_init_writes_a_site_that_check_accepts(tmp_path: Path) -> None:
    file = a_site(tmp_path / "new" / "depot")
    said = gridgate("check", file, "--json")
    assert said.code == 0
    assert said.document["relaxations"] == []
    assert said.document["summary"]["evses"] == 2
    assert stat.S_IMODE((file.parent / "secrets" / "dso.token").stat().st_mode) == 0o600


def test_what_init_writes_as_a_comment_may_be_said(tmp_path: Path) -> None:
    file = a_site(tmp_path / "depot")
    text = re.sub(r"^    # ([a-z_]+: )", r"    \1", file.read_text(), flags=re.MULTILINE)
    file.write_text(text.replace("    reserve_w: 8000", "    # no reserve_w beside a profile"))
    said = gridgate("check", file)
    assert said.code == 0, said.out
    tree = load(file).tree
    assert tree.nodes["main/garage"].derate is not None
    assert tree.phases("main/garage") == ("L2", "L3", "L1")
    assert tree.nodes["main/house"].reserve_w == 9_000


def test_init_says_what_next_and_as_many_stations_as_asked(tmp_path: Path) -> None:
    said = gridgate("init", tmp_path / "big", "--site", "port-3", "--stations", "7")
    assert said.code == 0
    assert f"gridgate run {tmp_path / 'big' / 'site.yaml'}" in said.out
    summary = gridgate("check", tmp_path / "big" / "site.yaml", "--json").document["summary"]
    assert (summary["site"], summary["stations"]) == ("port-3", 7)


@pytest.mark.parametrize("taken", ["site.yaml", "pki", "secrets"])
def test_init_overwrites_nothing(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).touch()
    said = gridgate("init", tmp_path)
    assert said.code == 2
    assert "nothing was written" in said.err
    assert [path.name for path in tmp_path.iterdir()] == [taken]


@pytest.mark.parametrize("words", [("--site", "No Spaces"), ("--stations", "0"), ("--stations", "many")])
def test_init_refuses_what_makes_no_site(tmp_path: Path, words: tuple[str, str]) -> None:
    assert gridgate("init", tmp_path / "x", *words).code == 2
    assert not (tmp_path / "x").exists()


def test_check_says_everything_that_is_wrong_with_its_line(tmp_path: Path) -> None:
    file = a_site(tmp_path / "depot")
    text = file.read_text().replace("node: main\n", "node: mian\n", 1).replace("profile: 3", "profile: 9", 1)
    file.write_text(text)
    said = gridgate("check", file)
    assert said.code == 3
    lines = text.splitlines()
    for wrong in ("node: mian", "profile: 9"):
        number = next(n for n, line in enumerate(lines, 1) if wrong in line)
        assert f"{file}:{number}" in said.out
    document = gridgate("check", file, "--json")
    assert document.code == 3
    assert document.document["ok"] is False
    assert {p["line"] > 0 for p in document.document["problems"]} == {True}


@pytest.mark.parametrize(
    "words", [("check",), ("run",), ("status",), ("tree",), ("evidence", "verify"), ("trace", "x"), ("explain", "x")]
)
def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = gridgate(*words, tmp_path / "site.yaml")
    assert said.code == 2
    assert said.err.startswith("error  config.no-file")
    assert "gridgate init" in said.err
    document = gridgate(*words, tmp_path / "site.yaml", "--json")
    assert document.document["error"]["problems"][0]["code"] == "config.no-file"


def test_run_says_all_mistakes_and_ends_with_2(tmp_path: Path) -> None:
    file = a_site(tmp_path / "depot")
    file.write_text(file.read_text().replace("kind: CIRCUIT", "kind: CIRCUS"))
    said = gridgate("run", file)
    assert said.code == 2
    assert str(file) in said.err
    assert "       do: " in said.err


def test_a_story_clock_that_means_nothing_is_a_usage_error(tmp_path: Path) -> None:
    said = gridgate("run", tmp_path / "site.yaml", "--story-clock", "noon")
    assert said.code == 2
    assert "--story-clock" in said.err


@pytest.mark.parametrize(
    ("words", "text"),
    [(("demo", "price-dip"), "price-dip"), (("demo", "--speed", "0"), "--speed"), (("demo", "--speed", "x"), "speed")],
)
def test_a_demo_that_cannot_be_begun_is_a_usage_error(words: tuple[str, ...], text: str) -> None:
    said = gridgate(*words)
    assert said.code == 2
    assert text in said.err
