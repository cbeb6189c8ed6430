"""Development certificates from the command line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.unit.cli.evening import a_site, gridgate


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return a_site(tmp_path / "depot")


@pytest.mark.parametrize(
    ("holder", "name", "named"),
    [
        ("party", "aggregator", "URI:urn:gridgate:party:aggregator"),
        ("meter", "main-pv", "URI:urn:gridgate:meter:main-pv"),
        ("operator", "night-shift", "URI:urn:gridgate:operator:night-shift"),
    ],
)
def test_a_new_certificate_names_its_holder(site: Path, holder: str, name: str, named: str) -> None:
    made = gridgate("certs", "new", holder, name, "--file", site, "--json")
    assert made.code == 0, made.out
    assert stat.S_IMODE(Path(made.document["key"]).stat().st_mode) == 0o600
    [leaf, *_] = gridgate("certs", "show", made.document["certificate"], "--json").document["certificates"]
    assert named in leaf["names"]
    assert "clientAuth" in leaf["uses"]


def test_a_stations_certificate_carries_its_serial_number(site: Path) -> None:
    made = gridgate("certs", "new", "station", "CP-1", "--file", site, "--json").document
    assert "CN=SN-CP-1" in gridgate("certs", "show", made["certificate"]).out


def test_an_unconfigured_station_needs_a_serial_number(site: Path) -> None:
    assert gridgate("certs", "new", "station", "CP-9", "--file", site).code == 2
    assert gridgate("certs", "new", "station", "CP-9", "--serial", "SN-9", "--file", site).code == 0


def test_what_is_there_stays_as_it_is(site: Path) -> None:
    first = gridgate("certs", "new", "party", "dso", "--file", site, "--json").document
    before = Path(first["certificate"]).read_bytes()
    gridgate("certs", "new", "party", "dso", "--file", site)
    assert Path(first["certificate"]).read_bytes() == before


def test_a_key_is_no_certificate_and_is_not_shown(site: Path) -> None:
    said = gridgate("certs", "show", site.parent / "pki" / "admin" / "server.key")
    assert said.code == 2
    assert "PRIVATE" not in said.err + said.out


@pytest.mark.parametrize("name", ["../x", "a/b", ""])
def test_a_name_that_cannot_be_a_files_is_refused(site: Path, name: str) -> None:
    assert gridgate("certs", "new", "party", name, "--file", site).code == 2
