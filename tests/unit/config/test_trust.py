"""Listeners, secrets and key files: what would open a door is refused, and no secret is quoted."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import load
from gateway.domain.errors import ConfigError, ConfigProblem
from tests.unit.config.site_file import GONE, SiteFile
from tests.unit.config.test_load import with_profile
from tests.unit.config.test_mistakes import LOOSE, the_problem

EVERYWHERE = "0.0.0.0"  # noqa: S104 — nothing is bound here
SECRET = "kX9-secret-that-nobody-may-see"


@pytest.mark.parametrize("host", [EVERYWHERE, "192.0.2.1", "::", "gateway.example.org"])
def test_an_insecure_listener_stands_on_loopback_only(depot: SiteFile, host: str) -> None:
    problem = the_problem(depot.tell("listeners.lab", {**LOOSE, "host": host}))
    assert (problem.code, problem.key) == ("config.insecure-outside-loopback", "listeners.lab.host")
    assert problem.found == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_an_insecure_listener_is_taken(depot: SiteFile, host: str) -> None:
    assert depot.tell("listeners.lab", {**LOOSE, "host": host}).load().listeners["lab"].host == host


@pytest.mark.parametrize("key", ["certificate", "key", "client_ca"])
def test_mutual_tls_needs_all_its_files(depot: SiteFile, key: str) -> None:
    problem = the_problem(depot.tell(f"listeners.grid.{key}", GONE))
    assert (problem.code, problem.key) == ("config.missing-key", f"listeners.grid.{key}")


@pytest.mark.parametrize("key", ["certificate", "key"])
def test_server_tls_needs_a_certificate_and_its_key(depot: SiteFile, key: str) -> None:
    with_profile(depot, 2, "server_tls").tell(f"listeners.ocpp.{key}", GONE)
    assert the_problem(depot).key == f"listeners.ocpp.{key}"


def test_a_client_ca_that_nobody_asks_is_refused(depot: SiteFile) -> None:
    depot.tell("listeners.admin.trust", "server_tls")
    assert the_problem(depot).key == "listeners.admin.client_ca"


@pytest.mark.parametrize(("profile", "trust"), [(3, "server_tls"), (2, "mtls"), (1, "server_tls"), (2, "insecure")])
def test_a_profile_stands_on_a_listener_that_can_prove_it(depot: SiteFile, profile: int, trust: str) -> None:
    found = with_profile(depot, profile, trust).problems()
    assert {p.code for p in found} == {"config.profile-trust"}
    assert len(found) == 4


@pytest.mark.parametrize(("profile", "trust"), [(1, "insecure"), (2, "server_tls")])
def test_a_station_without_certificate_needs_a_password(depot: SiteFile, profile: int, trust: str) -> None:
    problem = the_problem(with_profile(depot, profile, trust).tell("stations[2].password", GONE))
    assert (problem.code, problem.key) == ("config.missing-key", "stations[2].password")


def test_two_listeners_do_not_share_a_port(depot: SiteFile) -> None:
    depot.tell("listeners.grid.port", 8443).tell("listeners.admin.port", 8443)
    assert the_problem(depot).code == "config.duplicate"
    depot.tell("listeners.admin.host", "127.0.0.2")
    assert depot.load().listeners["admin"].port == 8443
    depot.tell("listeners.admin.host", EVERYWHERE)
    assert the_problem(depot).code == "config.duplicate"


@pytest.mark.parametrize(("key", "listener"), [("stations[0].listener", "grid"), ("peers[0].listener", "admin")])
def test_a_listener_is_one_trust_domain(depot: SiteFile, key: str, listener: str) -> None:
    assert "config.listener-shared" in {p.code for p in depot.tell(key, listener).problems()}


@pytest.mark.parametrize(
    "key",
    ["listeners.grid.certificate", "listeners.ocpp.key", "listeners.admin.client_ca", "client.grid.server_ca"],
)
@pytest.mark.parametrize("name", ["nowhere.pem", "pki", "a" * 300])
def test_a_file_that_is_named_is_there(depot: SiteFile, key: str, name: str) -> None:
    problem = the_problem(depot.tell(key, name))
    assert (problem.code, problem.key) == ("config.no-file", key)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("pki/grid/server.key", "listeners.grid.key"),
        ("pki/grid/client/depot.key", "client.grid.key"),
        ("secrets/dso.token", "peers[0].token"),
        ("gridgate-evidence.key", "store.key"),
    ],
)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_private_file_is_its_owners_alone(depot: SiteFile, name: str, key: str, mode: int) -> None:
    path = depot.folder / name
    path.touch()
    path.chmod(mode)
    problem = the_problem(depot)
    assert (problem.code, problem.key) == ("config.file-mode", key)
    assert problem.suggestion == f"chmod 600 {path}"


@pytest.mark.parametrize(
    "value", [SECRET, f"plain:{SECRET}", f"env:{SECRET}", f"file:{SECRET}\nx", 123_456_789_012, [SECRET]]
)
@pytest.mark.parametrize("key", ["peers[0].token", "stations[0].password"])
def test_an_inline_secret_is_refused_and_never_shown(depot: SiteFile, key: str, value: Any) -> None:
    problem = the_problem(depot.tell(key, value))
    assert problem.key == key
    assert SECRET not in repr(problem)
    assert "123456" not in repr(problem)


def test_a_secret_in_broken_yaml_is_not_shown_either(depot: SiteFile) -> None:
    depot.load()
    sound = depot.path.read_text()
    for broken in (
        f"*{SECRET}",
        f"!{SECRET} x",
        f"&{SECRET} x: y: z",
        f'"{SECRET}',
        f"{{{SECRET}",
        f"{SECRET}: {SECRET}",
    ):
        depot.path.write_text(sound.replace("file:secrets/dso.token", broken))
        problems = _problems_as_they_are(depot)
        assert problems and SECRET not in repr(problems)


def test_a_private_key_pasted_as_a_path_is_not_shown(depot: SiteFile) -> None:
    key = f"-----BEGIN {'PRIVATE'} KEY-----\n{SECRET}\n-----END {'PRIVATE'} KEY-----\n"
    assert SECRET not in repr(the_problem(depot.tell("listeners.grid.key", key)))


@pytest.mark.parametrize(
    ("content", "code"),
    [("", "weak-secret"), ("short", "weak-secret"), ("x" * 5_000, "secret"), ("two\nlines-of-a-secret", "secret")],
)
def test_a_secret_is_one_line_of_some_length(depot: SiteFile, content: str, code: str) -> None:
    problem = the_problem(depot.secret("dso.token", content))
    assert (problem.code, problem.key) == (f"config.{code}", "peers[0].token")
    assert not content or content not in repr(problem)


@pytest.mark.parametrize("reference", ["file:secrets/nowhere", "env:GRIDGATE_NOT_SET", "file:", "env:"])
def test_a_reference_resolves_or_is_a_mistake(depot: SiteFile, reference: str) -> None:
    assert the_problem(depot.tell("peers[0].token", reference)).key == "peers[0].token"


def _problems_as_they_are(depot: SiteFile) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        load(depot.path)
    return list(caught.value.problems)
