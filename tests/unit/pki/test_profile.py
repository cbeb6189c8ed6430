"""What a profile may say, and that a certificate says exactly that."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gateway.domain.errors import ConfigError
from gateway.pki.issue import Issued, issue
from gateway.pki.profile import KEY_ALGORITHMS, Kind, load_profiles, profiles_directory

NOW = datetime.now(UTC).replace(microsecond=0)
ROOT = """
profiles:
  - {name: root, kind: root, key: {alg: p256}, subject: {CN: root}, validity: 10d, path_len: 1,
     key_usage: [keyCertSign]}
  - {name: sub, kind: sub, issuer: root, key: {alg: p256}, subject: {CN: sub}, validity: 9d, path_len: 0,
     key_usage: [keyCertSign]}
"""
LEAF = "{name: leaf, kind: leaf, issuer: sub, key: {alg: p256}, subject: {CN: leaf}, validity: 1d, "
LEAF += "key_usage: [digitalSignature], eku: [clientAuth]}"


def mistakes_of(folder: Path, leaf: str, root: str = ROOT) -> str:
    (folder / "test.yaml").write_text(root + "  - " + leaf + "\n")
    with pytest.raises(ConfigError) as caught:
        load_profiles(folder)
    return " | ".join(f"{found.key}: {found.message}" for found in caught.value.problems)


def test_the_shipped_profiles_are_sound_and_have_the_three_chains() -> None:
    profiles = load_profiles()
    roots = {name for name, profile in profiles.items() if profile.kind is Kind.ROOT}
    assert roots == {"grid-root", "ocpp-root", "admin-root"}
    assert profiles_directory().name in ("profiles", "_profiles")


def test_a_sound_profile_is_taken(tmp_path: Path) -> None:
    (tmp_path / "test.yaml").write_text(ROOT + "  - " + LEAF + "\n")
    assert set(load_profiles(tmp_path)) == {"root", "sub", "leaf"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("issuer: sub", "issuer: nobody", "no CA profile"),
        ("issuer: sub", "issuer: leaf", "no CA profile"),
        ("validity: 1d", "validity: 11d", "longer than its issuer"),
        ("validity: 1d", "validity: soon", "no duration"),
        (", eku: [clientAuth]", "", "extended key usage"),
        ("clientAuth", "anything", "none of"),
        ("digitalSignature", "keyCertSign", "must not sign"),
        ("digitalSignature", "sign", "none of"),
        ("kind: leaf", "kind: leave", "Kind"),
        ("kind: leaf", "kind: leaf, path_len: 0", "no path_len"),
        ("kind: leaf", "kind: leaf, colour: red", "unknown fields: colour"),
        ("alg: p256", "alg: rsa1024", "none of"),
        ("CN: leaf", "XX: leaf", "none of"),
        ("name: leaf", "name: sub", "twice"),
        ("validity: 1d, ", "", "missing"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused_with_its_name(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in LEAF
    assert expected in mistakes_of(tmp_path, LEAF.replace(old, new))


def test_two_cas_cannot_issue_each_other(tmp_path: Path) -> None:
    root = ROOT.replace("kind: root", "kind: sub, issuer: sub")
    assert "path_len must be below" in mistakes_of(tmp_path, LEAF, root)


def test_a_folder_without_profiles_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_profiles(tmp_path)


def chain(*, leaf: str = "grid-party", **variables: str) -> Issued:
    profiles = load_profiles()
    known = {"site": "depot", "organisation": "depot", "hosts": "localhost,127.0.0.1", **variables}
    root = issue(profiles["grid-root"], variables=known, now=NOW)
    issuing = issue(profiles["grid-issuing"], variables=known, now=NOW, issuer=root)
    return issue(profiles[leaf], variables=known, now=NOW, issuer=issuing)


def test_a_leaf_says_what_its_profile_says() -> None:
    leaf = chain(party="dso").certificate
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert leaf.not_valid_after_utc == NOW + timedelta(days=397)
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.digital_signature, usage.value.key_cert_sign) == (True, True, False)


def test_peers_are_shown_the_chain_without_its_root() -> None:
    shown = x509.load_pem_x509_certificates(chain(party="dso").chain_pem())
    assert [found.subject.rfc4514_string() for found in shown] == ["CN=dso,O=depot", "CN=depot grid issuing,O=depot"]


def test_nothing_outlives_its_issuer() -> None:
    profiles = load_profiles()
    variables = {"site": "depot", "organisation": "depot", "party": "dso", "hosts": "localhost"}
    root = issue(profiles["grid-root"], variables=variables, now=NOW - timedelta(days=3600))
    issuing = issue(profiles["grid-issuing"], variables=variables, now=NOW, issuer=root)
    assert issuing.certificate.not_valid_after_utc == root.certificate.not_valid_after_utc


@pytest.mark.parametrize("party", ["dso\n", "a" * 65])
def test_a_value_is_a_value_and_never_more(party: str) -> None:
    try:
        leaf = chain(party=party).certificate
    except ConfigError:
        return
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.UniformResourceIdentifier) == [f"urn:gridgate:party:{party}"]


def test_a_variable_without_value_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        chain()
    assert "{party}" in caught.value.problems[0].message


def test_a_leaf_without_issuer_is_refused() -> None:
    with pytest.raises(ConfigError):
        issue(load_profiles()["grid-party"], variables={}, now=NOW)


@pytest.mark.parametrize("algorithm", sorted(KEY_ALGORITHMS))
def test_every_key_algorithm_signs(algorithm: str) -> None:
    profile = replace(load_profiles()["grid-root"], key_alg=algorithm)
    root = issue(profile, variables={"site": "depot", "organisation": "depot"}, now=NOW)
    root.certificate.verify_directly_issued_by(root.certificate)


def test_a_certificate_above_its_size_limit_is_refused() -> None:
    profile = replace(load_profiles()["grid-root"], max_der_bytes=300)
    with pytest.raises(ConfigError):
        issue(profile, variables={"site": "depot", "organisation": "depot"}, now=NOW)


def test_a_key_never_shows() -> None:
    issued = chain(party="dso")
    secret = issued.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert secret.splitlines()[1] not in repr(issued)
    assert "key" not in repr(issued)
