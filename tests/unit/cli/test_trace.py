from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.lineage import _windows
from gateway.infra.evidence_read import EvidenceReader
from gateway.infra.store_sql.samples import telemetry_path
from tests.unit.cli.evening import FIRST, SECOND, a_site, gridgate, play_evening


@pytest.mark.parametrize(
    ("time", "request_id", "verdict"),
    [("17:00:33", FIRST, "COMPLIANT"), ("17:04:30", SECOND, "BREACH")],
)
def test_a_meter_value_leads_to_the_message_that_set_the_limit_and_to_the_verdict(
    evening: Path, time: str, request_id: str, verdict: str
) -> None:
    said = gridgate("trace", f"main@2026-03-01T{time}Z", evening, "--json").document
    assert said["kind"] == "measurement"
    assert said["measurement"]["value"] == 35_000
    assert said["measurement"]["measured_at"] == f"2026-03-01T{time[:-1]}0Z"
    assert said["measurement"]["covered"] is True
    assert said["set_by"] == [request_id]
    assert request_id in said["requests"]
    [window] = said["verdicts"]
    assert (window["node"], window["verdict"]) == ("main", verdict)
    assert window["start"] <= f"2026-03-01T{time}Z" < window["end"]
    assert said["truncated"] is False


def test_the_newest_value_is_meant_when_no_time_is_given(evening: Path) -> None:
    said = gridgate("trace", "main", evening, "--json").document
    assert said["measurement"]["measured_at"] == "2026-03-01T17:06:30Z"
    assert said["measurement"]["covered"] is False
    assert said["verdicts"][0]["end"] == "2026-03-01T17:06:00Z"
    assert said["set_by"] == [SECOND]


def test_the_chain_is_in_order_of_time_with_causes_above_their_effects(evening: Path) -> None:
    entries = gridgate("trace", "main@2026-03-01T17:04:30Z", evening, "--json").document["entries"]
    assert [e["index"] for e in entries] == sorted(e["index"] for e in entries)
    seen: dict[str, int] = {}
    for entry in entries:
        levels = [seen[c] for c in entry["cause"] if c in seen]
        assert entry["level"] == 1 + max(levels, default=-1)
        seen[entry["id"]] = entry["level"]
    assert {"envelope.revised", "allocation.decided", "envelope.state", "compliance.interval"} <= {
        e["type"] for e in entries
    }


def test_a_message_leads_to_everything_that_it_caused(evening: Path) -> None:
    said = gridgate("trace", SECOND, evening, "--json").document
    assert said["kind"] == "request"
    asked = [e for e in said["entries"] if e["asked"]]
    assert [e["type"] for e in asked] == ["envelope.revised"]
    assert {v["verdict"] for v in said["verdicts"]} >= {"BREACH"}
    assert said["requests"] == [SECOND]


def test_an_entry_and_an_envelope_are_found_by_their_ids(evening: Path) -> None:
    [window] = gridgate("trace", "main@2026-03-01T17:04:30Z", evening, "--json").document["verdicts"]
    assert gridgate("trace", window["id"], evening, "--json").document["kind"] == "entry"
    envelope = gridgate("trace", window["envelope"], evening, "--json").document
    assert envelope["kind"] == "envelope"
    assert envelope["requests"][0] == FIRST


def test_a_value_below_a_judged_node_is_traced_to_the_node_above(evening: Path) -> None:
    with EvidenceReader(evening.parent / "gridgate.db") as reader:
        windows, covered = _windows(reader, "main/garage/evse-1", reader.tail(1)[0].at)
    assert [w.subject["node"] for w in windows] == ["main"]
    assert not covered


def test_people_read_the_same_as_text(evening: Path) -> None:
    said = gridgate("trace", "main@2026-03-01T17:04:30Z", evening)
    assert "35 000 W measured 2026-03-01 17:04:30Z, GOOD, by urn:gridgate:meter:main" in said.out
    assert f"dso request {SECOND} · main primary import: 30000 w 17:02–18:00" in said.out
    assert "BREACH main 17:04:00–17:05:00 · limit 30000 W, mean 35000 W" in said.out
    assert said.out.splitlines()[-1] == "verdicts  BREACH"


@pytest.mark.parametrize("asked", ["nobody", "main@2026-02-01T00:00:00Z", "evd_0000000000000000000000000"])
def test_what_is_not_there_is_said_with_a_code(evening: Path, asked: str) -> None:
    said = gridgate("trace", asked, evening)
    assert said.code == 1
    assert said.err.startswith("error  trace.unknown-id")
    assert "       do: " in said.err
    document = gridgate("trace", asked, evening, "--json")
    assert (document.code, document.document["error"]["code"]) == (1, "trace.unknown-id")


def test_a_time_that_is_none_is_a_usage_error(evening: Path) -> None:
    said = gridgate("trace", "main@tomorrow", evening)
    assert said.code == 2
    assert "domain.not-utc" in said.err


def test_without_samples_everything_else_is_still_found(tmp_path: Path) -> None:
    file = a_site(tmp_path / "depot")
    play_evening(file)
    telemetry_path(tmp_path / "depot" / "gridgate.db").unlink()
    assert gridgate("trace", SECOND, file).code == 0
    assert gridgate("trace", "dso", file).code == 0
    assert gridgate("trace", "main@2026-03-01T17:04:30Z", file).code == 1
