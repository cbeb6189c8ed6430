"""What is checked before a certificate is put in use, and what a peer's certificate tells."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.domain.errors import ConfigError, TlsFailure
from gateway.kit.tls import (
    MAX_PEM_BYTES,
    POLICIES,
    check_bind,
    client_context,
    is_loopback,
    peer_of,
    server_context,
    tls_failure,
)
from gateway.pki.dev import DevPki, make_dev_pki
from gateway.ports.adapter import ListenerSettings, Trust
from gateway.ports.grid import CertificateMatch


@pytest.fixture
def own(dev_pki: DevPki, tmp_path: Path) -> ListenerSettings:
    """A listener whose files may be spoilt."""
    settings = dev_pki.settings("grid")
    copies = {}
    for name in ("certificate", "key", "client_ca"):
        source: Path = getattr(settings, name)
        copies[name] = tmp_path / source.name
        copies[name].write_bytes(source.read_bytes())
        copies[name].chmod(0o600)
    return replace(settings, **copies)


def refusal_of(build: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        build()
    (problem,) = caught.value.problems
    return problem.code, problem.file


def test_every_server_context_proves_both_sides_keeps_no_session_and_speaks_no_other_protocol(
    dev_pki: DevPki,
) -> None:
    context = server_context(dev_pki.settings("grid")).current
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.num_tickets == 0
    for option in (ssl.OP_NO_TICKET, ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION):
        assert context.options & option
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_the_outer_context_alone_cannot_serve(dev_pki: DevPki) -> None:
    outer = server_context(dev_pki.settings("grid"))
    assert outer.cert_store_stats()["x509"] == 0
    assert outer.verify_mode is ssl.CERT_REQUIRED


def test_every_client_context_verifies_chain_and_name(dev_pki: DevPki) -> None:
    context = client_context(dev_pki.client)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_every_policy_has_forward_secrecy_and_authenticated_encryption_only(policy: object) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    POLICIES[policy.name].apply(context)  # type: ignore[attr-defined]  # parametrized with policies
    older = [suite for suite in context.get_ciphers() if suite["protocol"] != "TLSv1.3"]
    assert older
    assert all(suite["name"].startswith("ECDHE-") and suite["aead"] for suite in older)


def test_an_unknown_policy_is_refused(own: ListenerSettings) -> None:
    assert refusal_of(lambda: server_context(replace(own, policy="none")))[0] == "tls.policy"


@pytest.mark.parametrize("missing", ["certificate", "key", "client_ca"])
def test_mutual_tls_needs_all_three_files(own: ListenerSettings, missing: str) -> None:
    assert refusal_of(lambda: server_context(replace(own, **{missing: None})))[0].startswith("tls.")


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "tls.file"), (b"no pem", ""), (b"x" * (MAX_PEM_BYTES + 1), "tls.file-size")],
    ids=["missing", "garbage", "too large"],
)
def test_a_spoilt_file_is_named(own: ListenerSettings, name: str, content: bytes | None, code: str) -> None:
    path: Path = getattr(own, name)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    found, file = refusal_of(lambda: server_context(own))
    assert file == str(path)
    assert found.startswith(code or "tls.")


def test_a_key_of_another_certificate_is_refused(own: ListenerSettings, dev_pki: DevPki) -> None:
    assert own.key is not None
    own.key.write_bytes(dev_pki.listeners["ocpp"].key.read_bytes())
    assert refusal_of(lambda: server_context(own)) == ("tls.key-mismatch", str(own.key))


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o620, 0o610, 0o602, 0o601])
def test_a_key_that_its_group_or_others_may_use_is_refused(own: ListenerSettings, mode: int) -> None:
    assert own.key is not None
    own.key.chmod(mode)
    assert refusal_of(lambda: server_context(own)) == ("tls.key-mode", str(own.key))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_that_is_its_owners_alone_is_used(own: ListenerSettings, mode: int) -> None:
    assert own.key is not None
    own.key.chmod(mode)
    assert server_context(own).verify_mode is ssl.CERT_REQUIRED


def test_an_error_never_quotes_a_key(own: ListenerSettings) -> None:
    assert own.key is not None
    own.key.write_bytes(own.key.read_bytes()[:150])
    with pytest.raises(ConfigError) as caught:
        server_context(own)
    secret = own.key.read_text().splitlines()[1][:16]
    assert secret not in repr(caught.value.problems)


def test_a_clients_certificate_cannot_serve(own: ListenerSettings, dev_pki: DevPki) -> None:
    client = dev_pki.client
    settings = replace(own, certificate=client.certificate, key=client.key)
    assert refusal_of(lambda: server_context(settings))[0] == "tls.purpose"


def test_a_servers_certificate_cannot_call_out(dev_pki: DevPki) -> None:
    files = dev_pki.listeners["grid"]
    identity = replace(dev_pki.client, certificate=files.certificate, key=files.key)
    assert refusal_of(lambda: client_context(identity))[0] == "tls.purpose"


def test_a_ca_cannot_serve(own: ListenerSettings, dev_pki: DevPki) -> None:
    folder = dev_pki.directory / "grid" / "ca"
    settings = replace(own, certificate=folder / "issuing.pem", key=folder / "issuing.key")
    assert refusal_of(lambda: server_context(settings))[0] == "tls.leaf-is-ca"


def test_a_leaf_is_no_trust_anchor(own: ListenerSettings) -> None:
    assert refusal_of(lambda: server_context(replace(own, client_ca=own.certificate)))[0] == "tls.not-a-ca"


def test_a_chain_out_of_order_is_refused(own: ListenerSettings, dev_pki: DevPki) -> None:
    assert own.certificate is not None
    foreign = (dev_pki.directory / "ocpp" / "ca" / "issuing.pem").read_bytes()
    leaf = own.certificate.read_bytes().split(b"-----END")[0] + b"-----END CERTIFICATE-----\n"
    own.certificate.write_bytes(leaf + foreign)
    assert refusal_of(lambda: server_context(own))[0] == "tls.chain"


def test_an_expired_own_certificate_is_refused(tmp_path: Path) -> None:
    pki = make_dev_pki(tmp_path, site="depot", now=datetime.now(UTC) - timedelta(days=398))
    assert refusal_of(lambda: server_context(pki.settings("grid")))[0] == "tls.expired"


def test_an_own_certificate_of_tomorrow_is_refused(tmp_path: Path) -> None:
    pki = make_dev_pki(tmp_path, site="depot", now=datetime.now(UTC) + timedelta(days=1))
    assert refusal_of(lambda: server_context(pki.settings("grid")))[0] == "tls.not-yet-valid"


@pytest.mark.parametrize("url", ["https://localhost:8443", "https://127.0.0.1", ""])
def test_a_public_url_that_the_certificate_names_is_taken(own: ListenerSettings, url: str) -> None:
    server_context(replace(own, public_url=url))


@pytest.mark.parametrize("url", ["https://example.org", "https://192.0.2.1:8443"])
def test_a_public_url_that_the_certificate_does_not_name_is_refused(own: ListenerSettings, url: str) -> None:
    assert refusal_of(lambda: server_context(replace(own, public_url=url)))[0] == "tls.name"


def test_a_reload_that_fails_changes_nothing(own: ListenerSettings) -> None:
    context = server_context(own)
    before = context.current
    assert own.key is not None
    own.key.unlink()
    with pytest.raises(ConfigError):
        context.reload()
    assert context.current is before


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost.example.org", "", "127.0.0.1.example.org"])  # noqa: S104 - asked about, not bound
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError):
        check_bind(ListenerSettings("lab", host, 0, Trust.INSECURE))


def test_without_tls_a_peer_has_an_address_and_nothing_to_match() -> None:
    peer = peer_of(None, "lab", "127.0.0.1")
    assert (peer.listener, peer.remote_addr, peer.cert_sha256) == ("lab", "127.0.0.1", "")
    assert not peer.matches(CertificateMatch(san_uri="urn:gridgate:party:dso"))


def shaken(dev_pki: DevPki) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a finished handshake in memory, server first."""
    upstream, downstream = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context(dev_pki.settings("grid")).wrap_bio(upstream, downstream, server_side=True)
    client = client_context(dev_pki.parties["dso"]).wrap_bio(downstream, upstream, server_hostname="localhost")
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return server, client


def test_a_finished_handshake_tells_all_that_a_binding_may_ask_for(dev_pki: DevPki) -> None:
    peer = peer_of(shaken(dev_pki)[0], "grid", "127.0.0.1")
    assert peer.matches(CertificateMatch(san_uri="urn:gridgate:party:dso", subject_cn="dso"))
    assert peer.matches(CertificateMatch(sha256=peer.cert_sha256.upper(), spki_sha256=peer.spki_sha256))
    assert not peer.matches(CertificateMatch(san_uri="urn:gridgate:party:aggregator"))
    assert peer.subject == "CN=dso,O=depot"
    assert peer.issuer == "CN=depot grid issuing,O=depot"
    assert peer.not_after.endswith("Z")
    assert peer.san_dns == ("localhost",)
    assert peer.cipher.startswith("TLS_")


def test_http_1_1_is_agreed_upon(dev_pki: DevPki) -> None:
    assert shaken(dev_pki)[1].selected_alpn_protocol() == "http/1.1"


class Resumed(ssl.SSLObject):
    """What a server without our options would hand over."""

    session_reused = True

    def __new__(cls) -> Resumed:
        return object.__new__(cls)

    def __init__(self) -> None:
        pass


def test_a_resumed_session_is_nobody() -> None:
    with pytest.raises(TlsFailure, match="resumed"):
        peer_of(Resumed(), "grid", "127.0.0.1")


def test_a_tls_error_is_told_with_the_peer_and_the_check() -> None:
    assert "example.org" in str(tls_failure(ssl.SSLError(1, "[SSL] wrong version number"), "example.org"))
