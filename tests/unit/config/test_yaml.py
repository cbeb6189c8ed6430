"""Files that are no site at all: one clear mistake each, at its line, and never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config import load
from gateway.config.lines import MAX_FILE_BYTES
from gateway.domain.errors import ConfigError
from tests.unit.config.site_file import SiteFile, problems_of


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        ("", "config.empty-file", 0),
        ("# nothing but a remark\n", "config.empty-file", 0),
        ("\n- a\n- b\n", "config.no-mapping", 2),
        ("just words\n", "config.no-mapping", 1),
        ("site:\n  id: a\n\ttimezone: UTC\n", "config.yaml", 3),
        ("site:\n  id: 'a\n", "config.yaml", 3),
        ("a: 1\n---\nb: 2\n", "config.yaml", 2),
        ("a: [1, 2\n", "config.yaml", 2),
        (b"a: b\nc: \xff\n", "config.encoding", 2),
        ("a: b\nc: \x07\n", "config.yaml", 2),
        ("a: b\nc: *nowhere\n", "config.yaml", 2),
        ("[" * 100_000, "config.too-deep", 1),
        ("- " * 100_000, "config.too-deep", 1),
        ("{a: " * 100_000, "config.too-deep", 1),
        ("? " * 100_000, "config.too-deep", 1),
        ("[\n" * 100_000, "config.too-deep", 33),
        ("#" * (MAX_FILE_BYTES + 1), "config.file-size", 0),
    ],
)
def test_what_is_no_readable_mapping_is_one_mistake(tmp_path: Path, content: str | bytes, code: str, line: int) -> None:
    (problem,) = problems_of(tmp_path / "site.yaml", content)
    assert (problem.code, problem.line) == (code, line)
    assert problem.file == str(tmp_path / "site.yaml")


def test_a_tab_is_answered_with_spaces(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path / "site.yaml", "site:\n\tid: a\n")
    assert "spaces" in problem.suggestion


def test_a_missing_file_a_folder_and_a_pipe_are_mistakes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nowhere.yaml", tmp_path, tmp_path / "pipe", Path("a\0b")):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert [problem.code for problem in caught.value.problems] == ["config.no-file"]


def test_a_byte_order_mark_does_no_harm(depot: SiteFile) -> None:
    depot.load()
    depot.path.write_bytes(b"\xef\xbb\xbf" + depot.path.read_bytes())
    assert load(depot.path).site == "depot"


def test_every_duplicate_key_is_found_with_the_line_of_the_first(tmp_path: Path) -> None:
    found = problems_of(tmp_path / "site.yaml", "site:\n  id: a\n  id: b\nstore: {path: a, path: b}\nsite: {}\n")
    doubles = {(p.line, p.key, p.found) for p in found if p.code == "config.duplicate-key"}
    assert doubles == {
        (3, "site.id", "first on line 2"),
        (4, "store.path", "first on line 4"),
        (5, "site", "first on line 1"),
    }


def test_a_bomb_of_aliases_is_refused_where_it_is_used(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    found = problems_of(tmp_path / "site.yaml", "\n".join(lines))
    aliases = [p for p in found if p.code == "config.yaml-alias"]
    assert (aliases[0].line, aliases[0].key) == (2, "a1[0]")


def test_a_value_that_holds_itself_is_refused(tmp_path: Path) -> None:
    found = problems_of(tmp_path / "site.yaml", "site: &me\n  id: *me\n")
    assert ("config.yaml-alias", 2, "site.id") in {(p.code, p.line, p.key) for p in found}


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!mine", "!!binary", "!!set"])
def test_tags_make_no_objects(tmp_path: Path, tag: str) -> None:
    found = problems_of(tmp_path / "site.yaml", f"site:\n  id: {tag} {{}}\n")
    assert ("config.yaml-tag", 2, "site.id") in {(p.code, p.line, p.key) for p in found}


def test_keys_that_are_no_names_are_refused(tmp_path: Path) -> None:
    found = problems_of(tmp_path / "site.yaml", "site:\n  ? [a, b]\n  : 1\n")
    assert ("config.key", 2) in {(p.code, p.line) for p in found}


def test_old_yaml_cannot_turn_words_into_truth(depot: SiteFile) -> None:
    depot.load()
    depot.path.write_text(
        "%YAML 1.1\n---\n" + depot.path.read_text().replace("allow_private: true", "allow_private: yes")
    )
    with pytest.raises(ConfigError) as caught:
        load(depot.path)
    assert [(p.key, p.found) for p in caught.value.problems] == [("peers[0].allow_private", "yes")]


def test_more_mistakes_than_anybody_reads_are_counted_only(tmp_path: Path) -> None:
    found = problems_of(tmp_path / "site.yaml", "".join(f"key{n}: 1\n" for n in range(1_000)))
    assert len(found) == 201
    assert "804 more" in found[-1].message
