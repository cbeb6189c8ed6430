"""What a sound file becomes."""

from __future__ import annotations

import hashlib
import zoneinfo
from pathlib import Path

import pytest

from gateway.config import SiteConfig, load
from gateway.domain.calendar import DayProfile, Derate, Hot, Season
from gateway.domain.envelope import BindingPolicy, FallbackRule, LossPolicy
from gateway.domain.quantities import Phase
from gateway.domain.sharing import Policy
from gateway.ports.adapter import Trust
from gateway.ports.grid import CertificateMatch
from gateway.testing.stage import build_stage, write_site
from gateway.testing.stories import STORIES
from tests.unit.config.site_file import GONE, SiteFile

PASSWORD = "a-long-random-password"


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("story", STORIES.values(), ids=lambda story: story.name)
def test_the_site_of_every_story_loads(tmp_path: Path, seed: int, story: object) -> None:
    plan = story.site(seed)  # type: ignore[attr-defined]
    stage = build_stage(tmp_path, plan)
    write_site(stage, plan, dso_host="127.0.0.1:4444")
    config = load(stage.site_file)
    assert (config.site, config.operator_domain) == (plan.id, plan.operator_domain)
    assert {s.id for s in config.stations} == {s.id for s in plan.stations}
    assert config.peers[0].token == stage.token


def test_paths_are_absolute_and_relative_to_the_files_folder(depot: SiteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    depot.load()
    monkeypatch.chdir(depot.folder)
    config = load(Path("site.yaml"))
    assert config.path == depot.path
    assert config.store.path == depot.folder / "gridgate.db"
    assert config.listeners["grid"].certificate == depot.folder / "pki/grid/server.pem"
    assert config.identities["grid"].key == depot.folder / "pki/grid/client/depot.key"


def test_a_site_may_say_how_it_shares(depot: SiteFile) -> None:
    assert depot.load().sharing is None
    depot.tell("site.sharing", "edf")
    assert depot.load().sharing is Policy.EDF


def test_the_digest_is_that_of_the_files_bytes(depot: SiteFile) -> None:
    config = depot.load()
    assert config.sha256 == hashlib.sha256(depot.path.read_bytes()).hexdigest()


def test_a_key_left_out_is_no_statement_and_zero_is_nothing_allowed(depot: SiteFile) -> None:
    tree = depot.load().tree
    assert tree.nodes["main"].export_max_w == 0
    assert tree.nodes["main/garage"].export_max_w is None
    assert tree.nodes["main/garage"].import_max_ma == dict.fromkeys(Phase, 63_000)
    assert tree.nodes["main/house"].import_max_w is None
    depot.tell("evses[0].safe_share_w", GONE)
    assert depot.load().tree.nodes["main/garage/evse-1"].evse.safe_share_w is None


def test_what_varies_at_a_node_goes_by_the_clock_of_the_site(depot: SiteFile) -> None:
    depot.tell("site.timezone", "Europe/Berlin").tell("nodes[0].derate", 0.9)
    depot.tell("nodes[0].derate_seasons", [{"start": "06-01", "end": "08-31", "fraction": 0.8}])
    depot.tell("nodes[0].derate_heat", [{"above_c": 35.5, "fraction": 0.85}])
    depot.tell("nodes[2].reserve_w", 0)
    depot.tell("nodes[2].reserve_profile", [{"start": "22:00", "w": 300}, {"start": "06:15", "w": 7_000}])
    tree = depot.load().tree
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    assert tree.nodes["main"].derate == Derate(berlin, 900, (Season((6, 1), (8, 31), 800),), (Hot(3_550, 850),))
    assert tree.nodes["main/house"].reserve_profile == DayProfile(berlin, ((375, 7_000), (1_320, 300)))
    assert tree.nodes["main/house"].reserve_w == 7_000


def test_an_evse_has_the_phases_and_the_losses_of_what_feeds_it(depot: SiteFile) -> None:
    depot.tell("nodes[1].phase_map", ["L2", "L3", "L1"]).tell("nodes[1].efficiency", 0.95)
    for index in range(4):
        depot.tell(f"evses[{index}].phases", GONE).tell(f"stations[{index}].rate_unit", "W")
    depot.tell("evses[0].efficiency", 0.9).tell("evses[1].phases", ["L3"])
    depot.tell("stations[0].meter_node", "main/garage")
    stations = depot.load().stations
    assert stations[0].evses[0].phases == stations[0].meter_phases == (Phase.L2, Phase.L3, Phase.L1)
    assert [s.evses[0].efficiency for s in stations] == [855, 950, 950, 950]
    assert stations[1].evses[0].phases == (Phase.L3,)


def test_currents_become_milliamperes_in_the_direction_that_allows_less(depot: SiteFile) -> None:
    depot.tell("evses[0].max_a", 31.99999).tell("evses[0].min_a", 6.00001)
    (evse,) = depot.load().stations[0].evses
    assert (evse.max_ma, evse.min_ma) == (31_999, 6_001)


def test_a_station_knows_its_evses_in_the_order_of_its_numbers(depot: SiteFile) -> None:
    depot.tell("evses[0].number", 2).tell("evses[1].station", "CP-1").tell("evses[1].phases", ["L2", "L3", "L1"])
    station = depot.load().stations[0]
    assert [evse.number for evse in station.evses] == [1, 2]
    assert station.evses[0].phases == (Phase.L2, Phase.L3, Phase.L1)


def test_a_binding_without_policy_has_the_strict_one(depot: SiteFile) -> None:
    depot.values["bindings"] = [{"peer": "dso", "group": "G", "node": "main"}]
    assert depot.load().groups[0].policy == BindingPolicy()


def test_a_binding_carries_its_whole_policy(depot: SiteFile) -> None:
    policy = {
        "on_loss": "exhaust_schedule",
        "demands_envelope": False,
        "resume_previous": True,
        "loss_grace_s": 1,
        "gap_grace_s": 2,
        "recover_s": 3,
        "dwell_s": 4,
        "fallback": ["fallback_blocks", "fixed"],
        "fixed_w": 30_000,
        "reaction_s": 5,
        "window_s": 6,
    }
    depot.values["bindings"] = [{"peer": "dso", "group": "G", "node": "main", "phases": ["L3", "L1", "L2"], **policy}]
    group = depot.load().groups[0]
    rules = (FallbackRule.FALLBACK_BLOCKS, FallbackRule.FIXED)
    assert group.policy == BindingPolicy(LossPolicy.EXHAUST_SCHEDULE, False, True, 1, 2, 3, 4, rules, 30_000, 5, 6)
    assert group.phases == (Phase.L3, Phase.L1, Phase.L2)


def test_digests_of_certificates_are_taken_in_every_common_spelling(depot: SiteFile) -> None:
    depot.tell("peers[0].certificate", {"sha256": ":".join(["AB"] * 32)})
    assert depot.load().peers[0].certificate == CertificateMatch(sha256="ab" * 32)


def test_secrets_come_from_files_and_from_the_environment(depot: SiteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSO_TOKEN", "token-from-the-environment")
    depot.tell("peers[0].token", "env:DSO_TOKEN")
    assert depot.load().peers[0].token == "token-from-the-environment"


@pytest.mark.parametrize(("profile", "trust"), [(0, "insecure"), (1, "insecure"), (2, "server_tls"), (3, "mtls")])
def test_every_profile_has_a_listener_that_fits(depot: SiteFile, profile: int, trust: str) -> None:
    config = with_profile(depot, profile, trust).load()
    assert config.listeners["ocpp"].trust is Trust(trust)
    wanted = hashlib.sha256(PASSWORD.encode()).hexdigest() if profile in (1, 2) else ""
    assert {station.password_sha256 for station in config.stations} == {wanted}


def test_options_that_name_a_file_are_relative_to_the_folder_too(depot: SiteFile) -> None:
    depot.tell("adapters.oscp", {"key_file": "oscp.key", "strict": True, "most": 3})
    depot.tell("peers[0].options", {"time_zone": "UTC"})
    config = depot.load()
    assert config.adapters == {"oscp": {"key_file": str(depot.folder / "oscp.key"), "strict": True, "most": 3}}
    assert config.peers[0].options == {"time_zone": "UTC"}


def test_a_site_without_grid_party_and_station_is_one(depot: SiteFile) -> None:
    for section in ("evses", "stations", "peers", "bindings", "meters", "client"):
        depot.tell(section, GONE)
    config = depot.load()
    assert (config.peers, config.groups, config.stations, dict(config.meters)) == ((), (), (), {})


def test_no_token_and_no_password_is_shown_by_accident(depot: SiteFile) -> None:
    config: SiteConfig = with_profile(depot, 2, "server_tls").load()
    assert config.peers[0].token not in repr(config)
    assert PASSWORD not in repr(config)


def test_the_time_zones_of_the_machine_are_there() -> None:
    assert "Europe/Berlin" in zoneinfo.available_timezones()


def with_profile(depot: SiteFile, profile: int, trust: str) -> SiteFile:
    """The depot with all stations on that profile."""
    depot.tell("listeners.ocpp.trust", trust).secret("stations.password", PASSWORD + "\n")
    for key in {"insecure": ("certificate", "key", "client_ca"), "server_tls": ("client_ca",)}.get(trust, ()):
        depot.tell(f"listeners.ocpp.{key}", GONE)
    for index in range(len(depot.values["stations"])):
        depot.tell(f"stations[{index}].profile", profile)
        if profile in (1, 2):
            depot.tell(f"stations[{index}].password", "file:secrets/stations.password")
    return depot
