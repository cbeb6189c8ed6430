"""What `gridgate replay` shows and draws of the stored evening, and of a copy of its store."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gateway.cli.drawing import drawing
from gateway.cli.past import Past, Verdict, within
from gateway.domain.timeline import parse_rfc3339, rfc3339
from tests.unit.cli.evening import T0, at, gridgate

SVG = "{http://www.w3.org/2000/svg}"


def store_of(evening: Path) -> Path:
    return evening.parent / "gridgate.db"


def of_class(text: str, kind: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(text)  # noqa: S314  our own drawing
    return [element for element in root.iter() if element.get("class") == kind]


def a_past(**changes: object) -> Past:
    values: dict = {
        "node": "main",
        "start": T0,
        "end": at(60),
        "limit": [(T0, 40_000), (at(30), 20_000)],
        "allocated": [(T0, 10_000), (at(30), None), (at(40), 12_000)],
        "measured": [(T0, 9_000), (at(10), 21_000)],
        "meters": ["main"],
        "verdicts": [],
        "fallbacks": [],
    }
    return Past(**{**values, **changes})


def test_the_limit_follows_what_the_grid_party_said_also_where_nothing_was_decided(evening: Path) -> None:
    said = gridgate("replay", store_of(evening), "--json")
    assert said.code == 0, said.err
    limits = {text: value for text, value in said.document["limit_w"]}
    assert limits[rfc3339(at(2))] == 30_000
    assert next(v for t, v in reversed(limits.items()) if parse_rfc3339(t) < at(2)) == 40_000
    assert {value for _, value in said.document["measured_w"]} == {35_000}
    assert said.document["meters"] == ["main"]


def test_the_table_tells_how_the_windows_were_judged_as_the_log_has_it(evening: Path) -> None:
    sealed = gridgate("evidence", "list", evening, "--node", "main", "--type", "compliance.interval", "--json").document
    said = gridgate("replay", store_of(evening), "--json").document
    assert [v["id"] for v in said["verdicts"]] == [e["id"] for e in reversed(sealed["entries"])]
    assert "BREACH" in {v["verdict"] for v in said["verdicts"]}
    text = gridgate("replay", store_of(evening)).out
    assert text.count("BREACH") == sum(v["verdict"] == "BREACH" for v in said["verdicts"])


def test_a_part_of_the_time_is_cut_out_and_begins_with_what_held_before(evening: Path) -> None:
    whole = gridgate("replay", store_of(evening), "--json").document
    part = gridgate("replay", store_of(evening), "--from", rfc3339(at(3)), "--to", rfc3339(at(4)), "--json").document
    assert part["limit_w"][0] == [rfc3339(at(3)), 30_000]
    assert len(part["measured_w"]) == 12
    assert len(whole["measured_w"]) > 70


def test_a_copy_alone_is_replayed_like_the_original_and_nothing_is_written_to_it(evening: Path, tmp_path: Path) -> None:
    for name in ("gridgate.db", "gridgate-telemetry.db"):
        shutil.copy(evening.parent / name, tmp_path / name)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    original = gridgate("replay", store_of(evening), "--json").document
    assert gridgate("replay", tmp_path / "gridgate.db", "--json").document == original
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name in before} == before


def test_a_drawing_has_limit_allocation_measurement_and_breaches(evening: Path, tmp_path: Path) -> None:
    file = tmp_path / "evening.svg"
    said = gridgate("replay", store_of(evening), "--svg", file)
    assert said.code == 0, said.err
    text = file.read_text("utf-8")
    counts = {kind: len(of_class(text, kind)) for kind in ("limit", "allocated", "measured", "breach")}
    assert min(counts.values()) >= 1, counts
    again = gridgate("replay", store_of(evening), "--svg", file)
    assert again.code == 2, "nothing is overwritten"


@pytest.mark.parametrize(
    ("words", "code"), [(("--node", "main/nowhere"), 1), (("--from", "yesterday"), 2), (("--svg", "."), 2)]
)
def test_what_cannot_be_shown_is_said(evening: Path, words: tuple[str, ...], code: int) -> None:
    assert gridgate("replay", store_of(evening), *words).code == code


def test_steps_that_are_cut_begin_with_what_held_before() -> None:
    steps = [(T0, 1), (at(10), 2), (at(20), 3)]
    assert within(steps, at(10), at(20)) == [(at(10), 2)]
    assert within(steps, at(15), at(25)) == [(at(15), 2), (at(20), 3)]
    assert within(steps, T0 - timedelta(minutes=1), at(5)) == [(T0, 1)]


def test_a_limit_is_drawn_as_steps_from_edge_to_edge() -> None:
    (line,) = of_class(drawing(a_past()), "limit")
    corners = [tuple(map(float, corner.split(","))) for corner in line.get("points", "").split()]
    assert [x for x, _ in corners] == [70.0, 525.0, 525.0, 980.0, 980.0]
    assert corners[0][1] == corners[1][1] < corners[2][1] == corners[3][1]


def test_where_nothing_is_known_nothing_is_drawn() -> None:
    assert len(of_class(drawing(a_past()), "allocated")) == 2
    assert of_class(drawing(a_past(measured=[], meters=[], limit=[])), "limit") == []


def test_breaches_and_fallbacks_are_shaded_and_other_verdicts_are_not() -> None:
    verdicts = [Verdict(at(k), at(k + 10), 1, 2, 2, word, "e") for k, word in ((0, "BREACH"), (10, "COMPLIANT"))]
    text = drawing(a_past(verdicts=verdicts, fallbacks=[(at(20), at(30))]))
    assert len(of_class(text, "breach")) == len(of_class(text, "fallback")) == 1


def test_names_cannot_break_the_drawing() -> None:
    assert of_class(drawing(a_past(node='<a b="c">&')), "limit")
