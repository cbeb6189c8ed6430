"""What ``gridgate doctor`` says about a configuration that is looser than the defaults."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import relaxations
from tests.unit.config.site_file import GONE, SiteFile
from tests.unit.config.test_load import with_profile


def test_a_strict_site_has_no_relaxation(depot: SiteFile) -> None:
    assert relaxations(depot.tell("peers[0].allow_private", False).load()) == ()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("peers[0].allow_private", True, "private and loopback"),
        ("peers[0].dialect", "pyoscp", "dialect pyoscp"),
        ("bindings[0].on_loss", "exhaust_schedule", "goes on with the schedule"),
        ("bindings[0].demands_envelope", False, "demands no envelope"),
        ("bindings[0].resume_previous", True, "resume_previous"),
        ("bindings[0].fallback", ["fallback_blocks", "static_only"], "nothing but the static limits"),
        ("bindings[0].loss_grace_s", 5, "waits 5 s"),
        ("bindings[0].gap_grace_s", 61, "gap_grace_s, 60 by default"),
        ("bindings[0].recover_s", 5, "trusts its source 5 s"),
    ],
)
def test_each_relaxation_is_one_sentence(depot: SiteFile, key: str, value: Any, said: str) -> None:
    depot.tell("peers[0].allow_private", False).tell(key, value)
    (sentence,) = relaxations(depot.load())
    assert said in sentence


@pytest.mark.parametrize(("profile", "trust"), [(0, "insecure"), (1, "insecure"), (2, "server_tls")])
def test_weaker_stations_and_their_listener_are_named(depot: SiteFile, profile: int, trust: str) -> None:
    depot.tell("peers[0].allow_private", False)
    said = relaxations(with_profile(depot, profile, trust).load())
    assert [line.split()[:2] for line in said] == [
        ["Listener", "ocpp"],
        *(["Station", f"CP-{number}"] for number in range(1, 5)),
    ]


def test_a_peer_that_no_certificate_proves_is_named(depot: SiteFile) -> None:
    depot.tell("peers[0].allow_private", False).tell("listeners.grid.trust", "insecure")
    for key in ("certificate", "key", "client_ca"):
        depot.tell(f"listeners.grid.{key}", GONE)
    said = relaxations(depot.load())
    assert any("Peer dso is known by its token alone" in line for line in said)
