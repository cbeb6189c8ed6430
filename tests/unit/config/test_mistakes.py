"""One thing wrong with a sound site, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config.document import Row
from gateway.config.parse import _field
from gateway.domain.errors import ConfigProblem
from tests.unit.config.site_file import GONE, SiteFile, problems_of

STATION = {"id": "CP-9", "serial": "SN-9", "listener": "ocpp"}
PEER = {"id": "agg", "adapter": "oscp", "listener": "grid", "certificate": {"san_uri": "urn:gridgate:party:agg"}}
BINDING = {"peer": "dso", "group": "G-2", "node": "main/garage"}
EVSE = {"node": "main/garage/evse-9", "station": "CP-1", "number": 2}
LOOSE = {"host": "127.0.0.1", "port": 0, "trust": "insecure"}


def the_problem(depot: SiteFile) -> ConfigProblem:
    found = depot.problems()
    assert len(found) == 1, [(p.code, p.line, p.key, p.message) for p in found]
    problem = found[0]
    assert (problem.line > 0) is (problem.message != "this section is needed")
    assert problem.message and problem.file == str(depot.path)
    return problem


SHAPES = [
    ("site.id", GONE, "missing-key"),
    ("site.id", 7, "value"),
    ("site.id", "a b", "value"),
    ("site.operator_domain", "https://example.org", "value"),
    ("site.sharing", "fairly", "value"),
    ("site.timezone", GONE, "missing-key"),
    ("site.timezone", "Europe/Berlim", "timezone"),
    ("site.timezone", "../etc/passwd", "value"),
    ("nodes[0].kind", "GRID", "value"),
    ("nodes[0].import_max_w", "60 kW", "value"),
    ("nodes[0].import_max_w", 60_000.5, "value"),
    ("nodes[0].import_max_w", True, "value"),
    ("nodes[0].import_max_w", -1, "range"),
    ("nodes[0].export_max_w", None, "empty-value"),
    ("nodes[1].import_max_a.L1", "63 A", "value"),
    ("nodes[1].import_max_a.L4", 63, "unknown-key"),
    ("nodes[1].import_max_a", 63, "value"),
    ("nodes[2].reserve_w", -1, "range"),
    ("nodes[2].reserve_profile", [{"start": "06:00", "w": 1}], "unused-key"),
    ("nodes[2].reserve_profile", [{"start": "6:00", "w": 1}], "value"),
    ("nodes[2].reserve_profile", [{"start": "06:10", "w": 1}], "value"),
    ("nodes[1].reserve_profile", [{"start": "06:00", "watts": 1, "w": 1}], "unknown-key"),
    ("nodes[1].reserve_profile", [{"start": "06:00", "w": 1}, {"start": "06:00", "w": 2}], "duplicate"),
    ("nodes[0].derate", 1.2, "range"),
    ("nodes[0].derate", "80 %", "value"),
    ("nodes[2].derate", 0.8, "unused-key"),
    ("nodes[0].derate_seasons", [{"start": "02-30", "end": "03-01", "fraction": 0.9}], "date"),
    ("nodes[0].derate_seasons", [{"start": "June", "end": "06-30", "fraction": 0.9}], "value"),
    ("nodes[0].derate_seasons", [{"start": "06-01", "fraction": 0.9}], "missing-key"),
    ("nodes[0].derate_heat", [{"above_c": 35, "fraction": 0.9}, {"above_c": 35, "fraction": 0.8}], "duplicate"),
    ("nodes[0].apparent_max_va", "63 kVA", "value"),
    ("nodes[0].assumed_pf", 0.9, "unused-key"),
    ("nodes[1].supply", "AC4", "value"),
    ("nodes[1].supply", "AC1", "topology-supply"),
    ("nodes[0].phase_map", ["L1", "L1"], "phase-not-present"),
    ("nodes[2].efficiency", 1.5, "range"),
    ("evses[0].efficiency", 0.9, "topology-efficiency"),
    ("evses[0].number", 0, "range"),
    ("evses[0].phases", [], "range"),
    ("evses[0].phases[1]", "L4", "value"),
    ("evses[0].voltage_v", float("inf"), "value"),
    ("evses[0].min_a", 33, "topology-min-above-max"),
    ("evses[0].phases", ["L1", "L1"], "phase-not-present"),
    ("stations[0].serial", 123_456, "value"),
    ("stations[0].profile", 4, "range"),
    ("stations[0].rate_unit", "kW", "value"),
    ("peers[0].certificate", {}, "missing-key"),
    ("peers[0].certificate", {"sha256": "abc"}, "value"),
    ("peers[0].certificate", GONE, "missing-key"),
    ("peers[0].url_hosts", "example.org", "value"),
    ("peers[0].url_hosts[0]", "https://example.org/oscp", "value"),
    ("peers[0].url_hosts[0]", "example.org:70000", "value"),
    ("peers[0].options", {"a": [1]}, "value"),
    ("bindings[0].on_loss", "fallback", "value"),
    ("bindings[0].gap_grace_s", -1, "range"),
    ("bindings[0].window_s", 0, "range"),
    ("bindings[0].recover_s", "1m", "value"),
    ("bindings[0].demands_envelope", "yes", "value"),
    ("bindings[0].fallback", "zero", "value"),
    ("bindings[0].fallback", ["fixed"], "missing-key"),
    ("bindings[0].fixed_w", 10_000, "unused-key"),
    ("bindings[0].fallback", ["zero", "fallback_blocks"], "unreached"),
    ("bindings[0].fallback", ["fallback_blocks", "fallback_blocks"], "duplicate"),
    ("bindings[0].phases", ["L1", "L2"], "range"),
    ("bindings[0].phases", ["L1", "L2", "L2"], "duplicate"),
    ("listeners.grid.port", 70_000, "range"),
    ("listeners.grid.trust", "tls", "value"),
    ("listeners.grid.policy", "moderm", "value"),
    ("listeners.grid.public_url", "http://grid.example.org", "value"),
    ("listeners.grid.host", "127.0.0.1:80", "value"),
    ("listeners.a b", LOOSE, "value"),
    ("client.grid.key", GONE, "missing-key"),
    ("adapters.oscp", {"key_file": None}, "empty-value"),
    ("adapters.oscp", {"key_file": ["a"]}, "value"),
    ("adapters.ospc", {"key_file": "a"}, "unknown-adapter"),
    ("nodes", {}, "value"),
    ("listeners", [], "value"),
    ("store", GONE, "missing-key"),
    ("store.head", "gridgate.db", "duplicate"),
    ("store.path", "nowhere/gridgate.db", "no-folder"),
]
REFERENCES = [
    ("evses[0].station", "CP-11", "unknown-station"),
    ("stations[0].listener", "ocp", "unknown-listener"),
    ("stations[0].meter_node", "main/hous", "unknown-node"),
    ("peers[0].listener", "gird", "unknown-listener"),
    ("bindings[0].peer", "dos", "unknown-peer"),
    ("bindings[0].node", "mian", "unknown-node"),
    ("meters[0].node", "main/hose", "unknown-node"),
    ("client.gird", {}, "unknown-listener"),
    ("peers[0].adapter", "oscpp", "unknown-adapter"),
]
DUPLICATES = [
    ("nodes[3]", {"path": "main/house", "kind": "LOAD"}, "nodes[3].path"),
    ("evses[4]", {**EVSE, "node": "main/garage/evse-1"}, "evses[4].node"),
    ("evses[4]", {**EVSE, "number": 1}, "evses[4].number"),
    ("stations[4]", {**STATION, "id": "CP-1"}, "stations[4].id"),
    ("stations[4]", {**STATION, "serial": "SN-CP-1"}, "stations[4].serial"),
    ("peers[1]", {**PEER, "id": "dso"}, "peers[1].id"),
    ("peers[1]", {**PEER, "certificate": {"san_uri": "urn:gridgate:party:dso"}}, "peers[1].certificate"),
    (
        "peers[1]",
        {**PEER, "certificate": {"san_uri": "urn:gridgate:party:dso", "subject_cn": "dso"}},
        "peers[1].certificate",
    ),
    ("bindings[1]", {**BINDING, "group": "DEPOT-7"}, "bindings[1].group"),
    ("bindings[1]", {**BINDING, "node": "main"}, "bindings[1].node"),
    ("meters[2]", {"node": "main", "principal": "urn:gridgate:meter:main"}, "meters[2].principal"),
]
TREES = [
    ("nodes[0].import_max_w", GONE, "topology-no-root-limit", "nodes[0].import_max_w"),
    ("nodes[0].kind", "CIRCUIT", "topology-root", "nodes[0].kind"),
    ("nodes[2].path", "mian/house", "topology-unknown-parent", "nodes[2].path"),
    ("nodes[2].kind", "GRID_CONNECTION", "topology-multi-root", "nodes[2].kind"),
    ("nodes[2].kind", "EVSE", "evse-as-node", "nodes[2].kind"),
    ("evses[0].node", "main/house/evse-1", "topology-leaf-with-child", "evses[0].node"),
    ("evses[0].node", "main/" + "/".join("a" * 16), "topology-too-deep", "evses[0].node"),
]


@pytest.mark.parametrize(("key", "value", "code"), SHAPES)
def test_a_value_that_cannot_be_is_named_with_its_key(depot: SiteFile, key: str, value: Any, code: str) -> None:
    problem = the_problem(depot.tell(key, value))
    assert problem.code == f"config.{code}"
    assert problem.key.startswith(key.partition("[")[0].partition(".")[0])


@pytest.mark.parametrize(("key", "value", "code"), REFERENCES)
def test_a_reference_to_nothing_comes_with_the_nearest_name(depot: SiteFile, key: str, value: Any, code: str) -> None:
    problem = the_problem(depot.tell(key, value))
    assert (problem.code, problem.key) == (f"config.{code}", key)
    assert problem.suggestion.startswith("did you mean")


@pytest.mark.parametrize(("key", "value", "where"), DUPLICATES)
def test_what_must_be_unique_is(depot: SiteFile, key: str, value: Any, where: str) -> None:
    problem = the_problem(depot.tell(key, value))
    assert (problem.code, problem.key) == ("config.duplicate", where)
    assert problem.found.startswith("also on line ")


@pytest.mark.parametrize(("key", "value", "code", "where"), TREES)
def test_a_tree_that_is_none_is_a_mistake_of_the_row_that_makes_it_so(
    depot: SiteFile, key: str, value: Any, code: str, where: str
) -> None:
    found = {(p.code, p.key) for p in depot.tell(key, value).problems()}
    assert (f"config.{code}", where) in found


def test_a_site_without_nodes_is_none(depot: SiteFile) -> None:
    depot.tell("nodes", [])
    for section in ("evses", "bindings", "meters"):
        depot.tell(section, GONE)
    assert the_problem(depot).code == "config.topology-empty"


@pytest.mark.parametrize(
    ("key", "value", "code"), [("stations[0].id", "CP/1", "value"), ("peers[0].id", "local", "reserved")]
)
def test_a_name_that_may_not_be_is_refused_beside_those_who_miss_it(
    depot: SiteFile, key: str, value: str, code: str
) -> None:
    assert (f"config.{code}", key) in {(p.code, p.key) for p in depot.tell(key, value).problems()}


def test_all_mistakes_of_a_tree_are_found_in_one_go(depot: SiteFile) -> None:
    depot.tell("nodes[0].import_max_w", GONE).tell("nodes[2].path", "nowhere/house").tell("evses[1].min_a", 40)
    depot.tell("meters", GONE)
    assert {p.code for p in depot.problems()} == {
        "config.topology-no-root-limit",
        "config.topology-unknown-parent",
        "config.topology-min-above-max",
    }


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("bindings[0].on_los", "on_loss"),
        ("peers[0].url_host", "url_hosts"),
        ("listeners.grid.polcy", "policy"),
        ("peers[0].certificate.san_url", "san_uri"),
        ("nodez", "nodes"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(depot: SiteFile, key: str, nearest: str) -> None:
    problem = the_problem(depot.tell(key, "x"))
    assert (problem.code, problem.key) == ("config.unknown-key", key)
    assert problem.suggestion == f"did you mean {nearest}?"


def test_a_misspelt_key_is_one_mistake_although_the_right_one_is_missing_now(depot: SiteFile) -> None:
    del depot.values["nodes"][0]["import_max_w"]
    assert the_problem(depot.tell("nodes[0].import_max_wt", 60_000)).suggestion == "did you mean import_max_w?"
    depot.tell("nodes[0].import_max_wt", GONE).tell("nodes[0].import_max_w", 60_000)
    del depot.values["site"]["timezone"]
    assert the_problem(depot.tell("site.time_zone", "UTC")).suggestion == "did you mean timezone?"


def test_a_row_with_an_unknown_key_is_still_held_against_the_others(depot: SiteFile) -> None:
    depot.tell("bindings[0].colour", "red").tell("bindings[0].node", "mian").tell("bindings[0].fallback", ["fixed"])
    assert {p.key for p in depot.problems()} == {"bindings[0].colour", "bindings[0].node", "bindings[0].fixed_w"}


def test_a_wrong_entry_of_a_list_is_not_also_a_wrong_list(depot: SiteFile) -> None:
    problem = the_problem(depot.tell("bindings[0].fallback", ["zeroo"]))
    assert (problem.key, problem.suggestion) == ("bindings[0].fallback[0]", "did you mean zero?")


@pytest.mark.parametrize("model", Row.__subclasses__())
def test_of_every_key_is_known_what_is_expected_there(model: type[Row]) -> None:
    assert all(_field(model, (name,))[1] for name in model.model_fields)


def test_a_number_where_text_belongs_is_answered_with_quotes(depot: SiteFile) -> None:
    assert the_problem(depot.tell("stations[0].serial", 12_345)).suggestion == "put it in quotes"


def test_a_row_that_is_wrong_is_still_there_for_those_who_name_it(depot: SiteFile) -> None:
    depot.tell("listeners.ocpp.port", "many").tell("stations[0].profile", 9).tell("nodes[0].reserve_w", -1)
    depot.tell("peers[0].dialect", 1)
    assert [p.key for p in depot.problems()] == [
        "nodes[0].reserve_w",
        "stations[0].profile",
        "peers[0].dialect",
        "listeners.ocpp.port",
    ]


def test_many_mistakes_are_all_told_at_once_each_on_its_line(tmp_path: Path) -> None:
    text = """\
site:
  id: depot
  timezone: Mars/Olympus
nodes:
  - path: main
    kind: GRID_CONNECTION
  - {path: main/garage, kind: CIRCUIT, import_max_kw: 44}
evses:
  - node: main/garage/evse-1
    station: CP-7
    number: one
stations:
  - id: CP-1
    serial: SN-1
    listener: ocpp
    password: hunter2-hunter2-hunter2
bindings:
  - peer: dso
    group: G
    node: main
    on_loss: fall_back_now
listeners:
  ocpp:
    host: 0.0.0.0
    port: 8887
    trust: insecure
"""
    found = problems_of(tmp_path / "site.yaml", text)
    assert [(p.line, p.code.removeprefix("config."), p.key) for p in found] == [
        (0, "missing-key", "store"),
        (1, "missing-key", "site.operator_domain"),
        (5, "topology-no-root-limit", "nodes[0].import_max_w"),
        (7, "unknown-key", "nodes[1].import_max_kw"),
        (10, "unknown-station", "evses[0].station"),
        (11, "value", "evses[0].number"),
        (13, "profile-trust", "stations[0].profile"),
        (16, "inline-secret", "stations[0].password"),
        (18, "unknown-peer", "bindings[0].peer"),
        (21, "value", "bindings[0].on_loss"),
        (24, "insecure-outside-loopback", "listeners.ocpp.host"),
    ]
    assert "hunter2" not in repr(found)
