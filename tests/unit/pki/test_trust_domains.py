"""Who gets in where: every certificate against every listener."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.kit.tls import client_context
from gateway.pki.dev import DEV_LISTENERS, DevPki, make_dev_pki
from gateway.ports.adapter import ClientIdentity
from tests.support.http import GET, PATIENCE_S, Recorder, Wire, bare_client, is_admitted, serving

pytestmark = pytest.mark.anyio

HOLDERS = ("party", "gateway", "station", "meter", "operator")
HOME = {"party": "grid", "gateway": "grid", "station": "ocpp", "meter": "admin", "operator": "admin"}


def identity_of(pki: DevPki, holder: str) -> ClientIdentity:
    match holder:
        case "party":
            return pki.parties["dso"]
        case "gateway":
            return pki.client
        case "station":
            return pki.stations["CP-1"]
        case "meter":
            return pki.meters["house"]
    return pki.operators["operator"]


def client_for(pki: DevPki, identity: ClientIdentity, listener: str) -> ssl.SSLContext:
    """``identity`` calling ``listener``, whose server it trusts: only the server can refuse."""
    return bare_client(replace(identity, server_ca=pki.listeners[listener].server_ca))


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("listener", DEV_LISTENERS)
async def test_a_certificate_opens_the_listener_of_its_own_ca_and_no_other(
    dev_pki: DevPki, holder: str, listener: str
) -> None:
    app = Recorder()
    async with serving(dev_pki.settings(listener), app) as running:
        admitted = await is_admitted(running, client_for(dev_pki, identity_of(dev_pki, holder), listener))
    assert admitted is (HOME[holder] == listener)
    assert len(app.peers) == admitted


@pytest.mark.parametrize("listener", DEV_LISTENERS)
async def test_no_certificate_opens_nothing(dev_pki: DevPki, listener: str) -> None:
    app = Recorder()
    async with serving(dev_pki.settings(listener), app) as running:
        assert not await is_admitted(running, client_for(dev_pki, ClientIdentity(), listener))
        assert running.refused_handshakes == 1
    assert app.peers == []


@pytest.mark.parametrize("listener", DEV_LISTENERS)
async def test_a_servers_certificate_is_no_clients_certificate(dev_pki: DevPki, listener: str) -> None:
    files = dev_pki.listeners[listener]
    async with serving(dev_pki.settings(listener)) as running:
        server = ClientIdentity(files.certificate, files.key, files.server_ca)
        assert not await is_admitted(running, bare_client(server))


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    make_dev_pki(tmp_path, site="depot", now=now)
    pki = make_dev_pki(tmp_path, site="depot", parties=["late"], now=now - timedelta(days=398))
    async with serving(pki.settings("grid")) as running:
        assert not await is_admitted(running, bare_client(pki.parties["late"]))
        assert running.refused_handshakes == 1


async def test_a_certificate_of_tomorrow_is_refused(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    make_dev_pki(tmp_path, site="depot", now=now)
    pki = make_dev_pki(tmp_path, site="depot", parties=["early"], now=now + timedelta(days=1))
    async with serving(pki.settings("grid")) as running:
        assert not await is_admitted(running, bare_client(pki.parties["early"]))


async def test_the_same_names_under_another_ca_are_refused(dev_pki: DevPki, tmp_path: Path) -> None:
    twin = make_dev_pki(tmp_path, site="depot", parties=["dso"], now=datetime.now(UTC))
    async with serving(dev_pki.settings("grid")) as running:
        assert not await is_admitted(running, client_for(dev_pki, twin.parties["dso"], "grid"))


async def test_a_leaf_cannot_issue(dev_pki: DevPki, tmp_path: Path) -> None:
    forged = forged_by(dev_pki.parties["dso"], tmp_path)
    async with serving(dev_pki.settings("grid")) as running:
        assert not await is_admitted(running, client_for(dev_pki, forged, "grid"))


async def test_the_modern_policy_refuses_tls_1_2_and_the_ocpp_policy_takes_it(dev_pki: DevPki) -> None:
    for listener, holder, is_taken in (("grid", "party", False), ("ocpp", "station", True)):
        context = client_for(dev_pki, identity_of(dev_pki, holder), listener)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with serving(dev_pki.settings(listener)) as running:
            assert await is_admitted(running, context) is is_taken


@pytest.mark.parametrize("suite", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"])
async def test_the_ocpp_policy_takes_no_other_suites(dev_pki: DevPki, suite: str) -> None:
    context = client_for(dev_pki, dev_pki.stations["CP-1"], "ocpp")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suite)
    async with serving(dev_pki.settings("ocpp")) as running:
        assert not await is_admitted(running, context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_is_resumed(dev_pki: DevPki, version: ssl.TLSVersion) -> None:
    """A resumed session would skip the certificate, and so its revocation."""
    context = client_for(dev_pki, dev_pki.stations["CP-1"], "ocpp")
    context.maximum_version = version
    async with serving(dev_pki.settings("ocpp")) as running:
        first = await handshake(running.port, context)
        second = await handshake(running.port, context, first.session)
    assert first.answer.startswith(b"HTTP/1.1 200")
    assert second.answer.startswith(b"HTTP/1.1 200")
    assert not second.is_resumed


async def test_a_revoked_certificate_is_refused_after_the_reload(dev_pki: DevPki, tmp_path: Path) -> None:
    anchors = tmp_path / "client-ca.pem"
    anchors.write_bytes(dev_pki.listeners["grid"].client_ca.read_bytes())
    settings = replace(dev_pki.settings("grid"), client_ca=anchors)
    async with serving(settings) as running:
        clients = {name: client_for(dev_pki, dev_pki.parties[name], "grid") for name in ("dso", "aggregator")}
        assert await is_admitted(running, clients["dso"])
        anchors.write_bytes(anchors.read_bytes() + revocation_list(dev_pki, "dso"))
        running.reload()
        assert not await is_admitted(running, clients["dso"])
        assert await is_admitted(running, clients["aggregator"])


async def test_we_refuse_a_server_of_another_ca_or_name(dev_pki: DevPki) -> None:
    async with serving(dev_pki.settings("grid")) as running:
        stranger = replace(dev_pki.parties["dso"], server_ca=dev_pki.listeners["ocpp"].server_ca)
        with pytest.raises(ssl.SSLCertVerificationError):
            await Wire.to(running, client_context(stranger))
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            await handshake(running.port, client_context(dev_pki.parties["dso"]), name="example.org")


@dataclass(frozen=True, slots=True)
class Handshake:
    session: ssl.SSLSession | None
    is_resumed: bool
    answer: bytes


async def handshake(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None, *, name: str = "localhost"
) -> Handshake:
    """One request by a blocking client, which alone can offer an earlier ``session``."""

    def blocking() -> Handshake:
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE_S) as raw,
            context.wrap_socket(raw, server_hostname=name, session=session) as wire,
        ):
            wire.sendall(GET)
            answer = wire.recv(4096)
            return Handshake(wire.session, bool(wire.session_reused), answer)

    return await asyncio.to_thread(blocking)


def revocation_list(pki: DevPki, party: str) -> bytes:
    folder = pki.directory / "grid"
    ca = x509.load_pem_x509_certificate((folder / "ca/issuing.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "ca/issuing.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    revoked = x509.load_pem_x509_certificate((folder / f"parties/{party}.pem").read_bytes())
    now = datetime.now(UTC)
    entry = x509.RevokedCertificateBuilder().serial_number(revoked.serial_number).revocation_date(now).build()
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(now - timedelta(minutes=1))
        .next_update(now + timedelta(days=1))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_revoked_certificate(entry)
        .sign(key, hashes.SHA256())
    )
    return crl.public_bytes(serialization.Encoding.PEM)


def forged_by(party: ClientIdentity, folder: Path) -> ClientIdentity:
    """A certificate for another party, signed with ``party``'s own key."""
    assert party.certificate is not None
    assert party.key is not None
    parent = x509.load_pem_x509_certificate(party.certificate.read_bytes())
    signer = serialization.load_pem_private_key(party.key.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "aggregator")]))
        .issuer_name(parent.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    certificate, path = folder / "forged.pem", folder / "forged.key"
    certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM) + party.certificate.read_bytes())
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return ClientIdentity(certificate, path)
