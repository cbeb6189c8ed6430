"""A whole tree of throw-away certificates in one call, and never a second time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.domain.errors import ConfigError
from gateway.kit.tls import client_context, server_context
from gateway.pki.dev import DEV_LISTENERS, DevPki, make_dev_pki
from gateway.ports.adapter import ClientIdentity

NOW = datetime.now(UTC).replace(microsecond=0)


def certificate_of(identity: ClientIdentity) -> x509.Certificate:
    assert identity.certificate is not None
    return x509.load_pem_x509_certificates(identity.certificate.read_bytes())[0]


def san_of(identity: ClientIdentity) -> x509.SubjectAlternativeName:
    return certificate_of(identity).extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def everything_in(pki: DevPki) -> list[Path]:
    return [pki.directory, *pki.directory.rglob("*")]


def test_folders_and_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    pki = make_dev_pki(tmp_path / "new" / "pki", site="depot", parties=["dso"], now=NOW)
    for path in everything_in(pki):
        mode = path.stat().st_mode & 0o777
        if path.is_dir():
            assert mode == 0o700, path
        elif path.suffix == ".key":
            assert mode == 0o600, path
        else:
            assert b"PRIVATE" not in path.read_bytes(), path


def test_a_second_call_changes_nothing_and_adds_what_is_new(tmp_path: Path) -> None:
    first = make_dev_pki(tmp_path, site="depot", parties=["dso"], now=NOW)
    before = {path: path.read_bytes() for path in everything_in(first) if path.is_file()}
    second = make_dev_pki(tmp_path, site="depot", parties=["dso", "aggregator"], now=NOW)
    assert {path: path.read_bytes() for path in before} == before
    client_context(second.parties["aggregator"])
    assert second.parties["dso"] == first.parties["dso"]


def test_a_key_left_by_a_crash_is_certified(tmp_path: Path) -> None:
    party = make_dev_pki(tmp_path, site="depot", parties=["dso"], now=NOW).parties["dso"]
    assert party.certificate is not None
    assert party.key is not None
    key = party.key.read_bytes()
    party.certificate.unlink()
    client_context(make_dev_pki(tmp_path, site="depot", parties=["dso"], now=NOW).parties["dso"])
    assert party.key.read_bytes() == key


@pytest.mark.parametrize("is_missing", [True, False], ids=["missing", "garbage"])
def test_a_certificate_without_a_usable_key_is_named(tmp_path: Path, is_missing: bool) -> None:
    party = make_dev_pki(tmp_path, site="depot", parties=["dso"], now=NOW).parties["dso"]
    assert party.key is not None
    if is_missing:
        party.key.unlink()
    else:
        party.key.write_bytes(b"garbage")
    with pytest.raises(ConfigError) as caught:
        make_dev_pki(tmp_path, site="depot", parties=["dso"], now=NOW)
    assert "dso" in caught.value.problems[0].file


@pytest.mark.parametrize("listener", DEV_LISTENERS)
def test_every_server_passes_the_checks_of_a_listener(dev_pki: DevPki, listener: str) -> None:
    server_context(dev_pki.settings(listener))


def test_no_two_listeners_share_an_anchor(dev_pki: DevPki) -> None:
    anchors = [
        {found.tbs_certificate_bytes for found in x509.load_pem_x509_certificates(files.client_ca.read_bytes())}
        for files in dev_pki.listeners.values()
    ]
    assert sum(map(len, anchors)) == len(set().union(*anchors)) == 6


def test_a_party_can_call_and_serve_under_its_own_name(dev_pki: DevPki) -> None:
    san = san_of(dev_pki.parties["dso"])
    assert san.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:gridgate:party:dso"]
    assert san.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in san.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    purposes = certificate_of(dev_pki.parties["dso"]).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}


def test_a_station_is_named_by_its_serial_number_and_operator(dev_pki: DevPki) -> None:
    """OCPP security whitepaper: common name is the serial number, organisation the operator."""
    subject = certificate_of(dev_pki.stations["CP-1"]).subject
    assert [part.value for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["SN-CP-1"]
    assert [part.value for part in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["depot"]


def test_meters_and_operators_are_named_by_uri(dev_pki: DevPki) -> None:
    found = [san_of(dev_pki.meters["house"]), san_of(dev_pki.operators["operator"]), san_of(dev_pki.client)]
    assert [san.get_values_for_type(x509.UniformResourceIdentifier) for san in found] == [
        ["urn:gridgate:meter:house"],
        ["urn:gridgate:operator:operator"],
        ["urn:gridgate:gateway:depot"],
    ]


@pytest.mark.parametrize("name", ["", ".", "../up", "a/b", "-x", "a\x00", "a" * 65, "ä"])
def test_an_id_that_is_no_safe_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        make_dev_pki(tmp_path, site="depot", parties=[name], now=NOW)
    assert list(tmp_path.iterdir()) == []
