"""Every vector, and the checker itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.vectors import allocation, caltech
from tests.vectors.__main__ import main
from tests.vectors.folder import ROOT, find

EXAMPLES = "allocator/allocation_examples.json"
MONTH = "allocator/acn_caltech_2019_03.csv"


def cases() -> list[Any]:
    found: list[Any] = json.loads(find(EXAMPLES).read_text(encoding="utf-8"))["cases"]
    return found


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case['id']} {case['title']}")
def test_the_allocator_gives_what_the_vector_expects(case: dict[str, Any]) -> None:
    assert allocation.failures(case) == []


def test_the_committed_copy_passes_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ROOT / "tests" / "data" / EXAMPLES)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "8 passed, 0 failed"


def test_a_case_with_limits_on_phases_is_read_label_by_label() -> None:
    """Two on L2 share what envelope and house leave, one on L1 has all it wants, one does not fit."""
    case = {
        "id": "P1",
        "unit": "A",
        "voltage_v": 230,
        "policy": "strict_priority",
        "nodes": [
            {"id": "site", "parent": None, "kind": "SITE", "limit_a": {"L1": 63, "L2": 63, "L3": 63}},
            {
                "id": "f",
                "parent": "site",
                "kind": "CIRCUIT",
                "envelope_a": {"L1": 32, "L2": 32, "L3": 10},
                "fixed_load_a": {"L2": 6, "L3": 5},
            },
        ],
        "demands": [
            {"id": "a", "node": "f", "max": 20, "min": 6, "phases": ["L2"], "priority": 1},
            {"id": "b", "node": "f", "max": 20, "min": 6, "phases": ["L2"]},
            {"id": "c", "node": "f", "max": 16, "phases": ["L1"]},
            {"id": "d", "node": "f", "max": 16, "min": 6, "phases": ["L1", "L2", "L3"]},
        ],
        "expected": {
            "allocation": {"a": 20, "b": 6, "c": 16, "d": 0},
            "not_admitted": ["d"],
            "binding": {
                "a": ["demand"],
                "b": ["f:envelope_a:L2"],
                "c": ["demand"],
                "d": ["not_admitted"],
            },
        },
    }
    assert allocation.failures(case) == []


def wrong_copy(folder: Path, **expected: Any) -> str:
    document = {"format": allocation.FORMAT, "cases": cases()[:2]}
    document["cases"][0]["expected"] |= expected
    path = folder / "wrong.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "expected",
    [
        {"allocation": {"a": 10_001.0, "b": 10_000.0, "c": 9_990.0}},
        {"allocation": {"a": 10_000.0, "b": 10_000.0}},
        {"not_admitted": ["a"]},
        {"binding": {"a": ["site:envelope_w"]}},
    ],
)
def test_a_wrong_answer_is_one_line_and_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], expected: dict[str, Any]
) -> None:
    assert main([wrong_copy(tmp_path, **expected)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("X01: ")
    assert last == "1 passed, 1 failed"


def test_a_case_that_is_no_problem_fails_instead_of_ending_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({"format": allocation.FORMAT, "cases": [{"id": "Y"}, *cases()]}), encoding="utf-8")
    assert main([str(path)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"{len(cases())} passed, 1 failed"


@pytest.mark.parametrize("text", ['{"format": "gridgate-tea-cases/1", "cases": []}', "[]", "{", ""])
def test_an_unknown_format_is_a_mistake_of_use(tmp_path: Path, text: str) -> None:
    path = tmp_path / "unknown.json"
    path.write_text(text, encoding="utf-8")
    assert main([str(path)]) == 2


def test_no_file_at_all_is_a_mistake_of_use(tmp_path: Path) -> None:
    assert main([]) == 2
    assert main([str(tmp_path / "absent.json")]) == 2


@pytest.mark.parametrize(
    "limit_kw", [kw if kw == 30 else pytest.param(kw, marks=pytest.mark.slow) for kw in caltech.BOARD]
)
def test_a_month_at_caltech_delivers_what_is_known_of_every_policy(limit_kw: int) -> None:
    assert caltech.board(find(MONTH), limit_kw, known=True).problems == []


HEADER = "idx,station,arrival_5min,departure_5min,energy_kwh,max_kw"


def test_another_month_is_a_scoreboard_without_expectations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "month.csv"
    path.write_text(f"{HEADER}\n0,A,0,12,6.6,6.6\n1,B,0,24,6.6,6.6\n", encoding="utf-8")
    assert main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 5 * len(caltech.BOARD)
    assert lines[0].startswith("10 kW, llf          100.000 % of the energy")
    assert lines[-1] == "5 passed, 0 failed"


@pytest.mark.parametrize("text", ["a,b\n1,2\n", f"{HEADER}\n0,A,zero,12,6.6,6.6\n", f"{HEADER}\n"])
def test_a_table_that_is_no_month_is_a_mistake_of_use(tmp_path: Path, text: str) -> None:
    path = tmp_path / "month.csv"
    path.write_text(text, encoding="utf-8")
    assert main([str(path)]) == 2
