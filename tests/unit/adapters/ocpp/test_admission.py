"""Who may connect, before a WebSocket exists."""

from __future__ import annotations

import base64
import hashlib
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ocpp.admission import Bucket, Failures, by_id, judge, proof_of, station_of
from gateway.domain.ids import StationId
from gateway.kit.peer import PeerInfo
from gateway.ports.adapter import Trust
from tests.support.ocpp import a_station

SECRET = "a" * 20
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
HEX = "0123456789abcdef0123456789ABCDEF01234567"


def basic(user: str, password: bytes) -> str:
    return "Basic " + base64.b64encode(user.encode() + b":" + password).decode()


def with_certificate(name: str) -> PeerInfo:
    return PeerInfo("ocpp", "127.0.0.1", cert_sha256="ab", subject_cn=name)


NOBODY = PeerInfo("lab", "127.0.0.1")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/ocpp/CP-1", "CP-1"),
        ("/CP-1", "CP-1"),
        ("/ocpp/RDAM%20123", "RDAM 123"),
        ("/ocpp/RDAM%7C123?x=1", "RDAM|123"),
        ("/", None),
        ("/ocpp/", None),
        ("/ocpp/a/b", None),
        ("/ocpp/a%2Fb", None),
        ("/ocpp/%2e%2e", None),
        ("/ocpp/a%00", None),
        ("/ocpp/a:b", None),
        ("/ocpp/%ff", None),
        ("/ocpp/" + "a" * 49, None),
        ("/ocpp/%2541", None),
    ],
)
def test_the_station_is_the_last_segment_decoded_once(path: str, name: str | None):
    assert station_of(path) == name


@given(st.text(max_size=300))
def test_no_path_makes_it_raise(path: str):
    station_of(path)


def test_profile_three_needs_the_certificate_of_that_serial():
    station = a_station(profile=3)
    assert judge(station, Trust.MTLS, with_certificate("SN-CP-1"), None, "CP-1") is None
    for trust, peer in (
        (Trust.MTLS, with_certificate("SN-CP-2")),
        (Trust.MTLS, with_certificate("")),
        (Trust.MTLS, NOBODY),
        (Trust.INSECURE, NOBODY),
        (Trust.SERVER_TLS, NOBODY),
    ):
        refusal = judge(station, trust, peer, basic("CP-1", SECRET.encode()), "CP-1")
        assert refusal is not None
        assert refusal.status is HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Bearer x",
        basic("CP-2", SECRET.encode()),
        basic("CP-1", b"wrong"),
        basic("CP-1", b""),
        "Basic " + "A" * 1000,
    ],
)
def test_a_wrong_password_is_401(header: str | None):
    refusal = judge(a_station(profile=2, password_sha256=DIGEST), Trust.SERVER_TLS, NOBODY, header, "CP-1")
    assert refusal is not None
    assert refusal.status is HTTPStatus.UNAUTHORIZED


def test_the_right_password_is_taken_as_text_or_as_the_bytes_of_its_hex_digits():
    station = a_station(profile=1, password_sha256=DIGEST)
    assert judge(station, Trust.INSECURE, NOBODY, basic("CP-1", SECRET.encode()), "CP-1") is None
    for text in (HEX.lower(), HEX.upper()):
        as_hex = a_station(profile=1, password_sha256=hashlib.sha256(text.encode()).hexdigest())
        assert judge(as_hex, Trust.INSECURE, NOBODY, basic("CP-1", bytes.fromhex(HEX)), "CP-1") is None


def test_a_station_without_a_password_never_passes_with_one():
    assert judge(a_station(profile=2), Trust.SERVER_TLS, NOBODY, basic("CP-1", b""), "CP-1") is not None


@pytest.mark.parametrize(
    ("profile", "trust"), [(0, Trust.MTLS), (0, Trust.SERVER_TLS), (2, Trust.INSECURE), (7, Trust.MTLS)]
)
def test_a_profile_on_the_wrong_listener_is_refused(profile: int, trust: Trust):
    refusal = judge(
        a_station(profile=profile, password_sha256=DIGEST), trust, NOBODY, basic("CP-1", SECRET.encode()), "CP-1"
    )
    assert refusal is not None


def test_a_station_is_known_on_its_own_listener_only():
    stations = {StationId("CP-1"): a_station(listener="ocpp")}
    assert by_id(stations, StationId("CP-1"), "ocpp") is not None
    assert by_id(stations, StationId("CP-1"), "lab") is None
    assert by_id(stations, None, "ocpp") is None


def test_the_bucket_admits_a_burst_and_then_a_rate():
    bucket = Bucket(rate=2, burst=3)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5), bucket.take(0.5)] == [True, False]


def test_five_wrong_passwords_close_the_door_for_a_minute():
    failures, key = Failures(), ("CP-1", "127.0.0.1")
    for _ in range(5):
        assert not failures.blocked(key, 10)
        failures.add(key, 10)
    assert failures.blocked(key, 69)
    assert not failures.blocked(key, 70)
    assert not failures.blocked(("CP-1", "127.0.0.2"), 10)


def test_a_certificate_or_a_long_password_over_tls_is_a_proof_and_nothing_else_is():
    name = StationId("NEW-7")
    proof = proof_of(name, Trust.MTLS, with_certificate("SN-7"), None)
    assert proof is not None
    assert (proof.profile, proof.serial, proof.credential, proof.password_sha256) == (3, "SN-7", "ab", "")
    proof = proof_of(name, Trust.SERVER_TLS, NOBODY, basic("NEW-7", SECRET.encode()))
    assert proof is not None
    assert (proof.profile, proof.serial, proof.credential, proof.password_sha256) == (2, "", DIGEST[:8], DIGEST)
    for trust, peer, header in (
        (Trust.MTLS, NOBODY, basic("NEW-7", SECRET.encode())),
        (Trust.MTLS, with_certificate(""), None),
        (Trust.MTLS, with_certificate("SN\n7"), None),
        (Trust.MTLS, with_certificate("x" * 65), None),
        (Trust.INSECURE, NOBODY, basic("NEW-7", SECRET.encode())),
        (Trust.SERVER_TLS, NOBODY, None),
        (Trust.SERVER_TLS, NOBODY, "Basic !"),
        (Trust.SERVER_TLS, NOBODY, basic("NEW-8", SECRET.encode())),
        (Trust.SERVER_TLS, NOBODY, basic("NEW-7", b"short")),
    ):
        assert proof_of(name, trust, peer, header) is None
