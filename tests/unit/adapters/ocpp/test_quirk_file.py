"""An operator's own rows: read after the shipped ones, and every mistake named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.ocpp import ADAPTER
from adapters.ocpp.core.quirks import Effect, Quirk, effect_of
from adapters.ocpp.quirk_table import MAX_FILE_BYTES, quirks, quirks_with
from gateway.domain.errors import ConfigError
from gateway.testing.clock import ManualClock
from tests.support.ocpp import FakeGate, a_context, a_station

GOOD = """\
# ours
- name: acme-composite
  vendor: ACME
  seen: reports 32 A whatever it obeys
  effect: {skip_proof: true}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "quirks.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(folder: Path, text: str) -> list[tuple[int, str, str, str]]:
    """Line, key, message and suggestion of each."""
    with pytest.raises(ConfigError) as refused:
        quirks_with(written(folder, text))
    assert {problem.file for problem in refused.value.problems} == {str(folder / "quirks.yaml")}
    assert {problem.code for problem in refused.value.problems} == {"ocpp.quirk"}
    return [(p.line, p.key, p.message, p.suggestion) for p in refused.value.problems]


def test_rows_of_the_operator_come_after_the_shipped_ones(tmp_path: Path):
    table = quirks_with(written(tmp_path, GOOD))
    assert table[:-1] == quirks()
    own = Quirk("acme-composite", "reports 32 A whatever it obeys", vendor="ACME", effect=Effect(skip_proof=True))
    assert table[-1] == own
    assert effect_of(table, {"vendor": "Acme Inc."}) == Effect(skip_proof=True)


def test_without_a_file_there_are_the_shipped_rows():
    assert quirks_with(None) == quirks()


def test_a_row_of_the_same_name_takes_the_place_of_a_shipped_one(tmp_path: Path):
    row = "- {name: go-e-pause, vendor: go-e, seen: watts only, effect: {unit: W}}"
    assert effect_of(quirks_with(written(tmp_path, row)), {"vendor": "go-e"}) == Effect(unit="W")


def test_a_misspelt_key_is_named_with_its_line_and_what_was_meant(tmp_path: Path):
    assert mistakes(tmp_path, GOOD.replace("vendor:", "vendr:")) == [
        (3, "[0].vendr", "no such key", "did you mean vendor?")
    ]


def test_a_misspelt_effect_is_named_with_its_line_and_what_was_meant(tmp_path: Path):
    assert mistakes(tmp_path, GOOD.replace("skip_proof", "skip_prof")) == [
        (5, "[0].effect.skip_prof", "no such key", "did you mean skip_proof?")
    ]


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (GOOD.replace("true", "7"), 5, "[0].effect.skip_proof"),
        (GOOD.replace("{skip_proof: true}", "{unit: kW}"), 5, "[0].effect.unit"),
        (GOOD.replace("{skip_proof: true}", "{kind: relative}"), 5, "[0].effect.kind"),
        (GOOD.replace("{skip_proof: true}", f"{{hint: {'x' * 65}}}"), 5, "[0].effect.hint"),
        (GOOD.replace("{skip_proof: true}", "[skip_proof]"), 5, "[0].effect"),
        (GOOD.replace("  effect: {skip_proof: true}\n", ""), 2, "[0].effect"),
        (GOOD.replace("  vendor: ACME\n", ""), 2, "[0].vendor"),
        (GOOD.replace("vendor: ACME", "vendor: 4711"), 3, "[0].vendor"),
        (GOOD.replace("  seen: reports 32 A whatever it obeys\n", ""), 2, "[0].seen"),
        (GOOD + GOOD, 7, "[1].name"),
        (GOOD + "- just text\n", 6, "[1]"),
        ("quirks: []\n", 1, ""),
        ("", 1, ""),
        (GOOD + "- {name: x\n", 7, ""),
        (GOOD + "- {name: x, name: y}\n", 6, ""),
    ],
)
def test_each_mistake_has_its_line_and_its_key(tmp_path: Path, text: str, line: int, key: str):
    assert [(found[0], found[1]) for found in mistakes(tmp_path, text)] == [(line, key)]


def test_all_mistakes_are_told_at_once(tmp_path: Path):
    text = GOOD.replace("true", "maybe") + "- {nam: x, seen: y, vendor: z, effect: {unit: A}}\n"
    assert [found[:2] for found in mistakes(tmp_path, text)] == [(5, "[0].effect.skip_proof"), (6, "[1].nam")]


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path):
    with pytest.raises(ConfigError) as refused:
        quirks_with(tmp_path / "none.yaml")
    assert [(p.line, p.message.partition(":")[0]) for p in refused.value.problems] == [(0, "cannot be read")]
    (tmp_path / "binary.yaml").write_bytes(b"- a\n- \xff\n")
    with pytest.raises(ConfigError) as refused:
        quirks_with(tmp_path / "binary.yaml")
    assert [(p.line, p.message) for p in refused.value.problems] == [(2, "expected UTF-8 text")]
    assert mistakes(tmp_path, "#" * (MAX_FILE_BYTES + 1)) == [(0, "", f"larger than {MAX_FILE_BYTES} bytes", "")]


def test_the_adapter_reads_the_file_that_its_option_names(tmp_path: Path):
    good = written(tmp_path, GOOD)
    ADAPTER.open(a_context(FakeGate(), ManualClock(), a_station(), options={"quirks_file": str(good)}))
    bad = written(tmp_path, GOOD.replace("vendor:", "vendr:"))
    with pytest.raises(ConfigError) as refused:
        ADAPTER.open(a_context(FakeGate(), ManualClock(), a_station(), options={"quirks_file": str(bad)}))
    assert [p.message for p in refused.value.problems] == ["no such key"]


@pytest.mark.parametrize("options", [{"quirks_file": 7}, {"quirks_file": ""}, {"quirk_file": "a.yaml"}])
def test_an_option_that_is_none_is_a_mistake(options: dict[str, str | int | bool]):
    with pytest.raises(ConfigError):
        ADAPTER.open(a_context(FakeGate(), ManualClock(), a_station(), options=options))
