"""TLS contexts and the identity they prove. Knows no protocol above TLS and no listener by name.

A server context is built whole, checked, and only then put in use: :class:`RotatingContext` swaps
one attribute, so that connections in progress keep their context, new handshakes see the new one,
and a build that fails changes nothing.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.domain.errors import ConfigError, ConfigProblem, TlsFailure
from gateway.kit.peer import PeerInfo
from gateway.kit.private import OTHERS
from gateway.ports.adapter import ClientIdentity, ListenerSettings, Trust

MAX_PEM_BYTES = 1024 * 1024
"""Largest certificate, key or trust file that is read: a bundle of some hundred anchors."""

MAX_CHAIN = 10
"""Most certificates in an own chain file; what OpenSSL would still send and peers still take."""

_AEAD_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
)


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """Versions and suites of a listener. ``suites_12`` are OpenSSL names, used up to TLS 1.2."""

    name: str
    minimum: ssl.TLSVersion
    maximum: ssl.TLSVersion
    suites_12: tuple[str, ...] = _AEAD_SUITES

    def apply(self, context: ssl.SSLContext) -> None:
        """Set it on ``context``.

        Security level 2 refuses RSA and DSA keys below 2048 bits and EC keys below 224 bits,
        which is what OCPP asks for (OCPP 1.6 security whitepaper, A00).
        """
        context.minimum_version = self.minimum
        context.maximum_version = self.maximum
        context.set_ciphers(":".join((*self.suites_12, "@SECLEVEL=2")))


POLICIES: dict[str, TlsPolicy] = {
    policy.name: policy
    for policy in (
        TlsPolicy("modern", ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
        TlsPolicy("ocpp", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
    )
}
"""By the name that a listener's ``policy`` gives."""

CLIENT_POLICY = POLICIES["ocpp"]
"""What we accept when we call out: a grid party's server may still speak TLS 1.2."""


class RotatingContext(ssl.SSLContext):
    """A server context whose inside can be replaced while it is in use.

    asyncio asks it for one TLS object per accepted connection through ``wrap_bio``; that call and
    ``wrap_socket`` go to ``current``. The outer object holds no certificate: whatever used it
    directly could not complete a handshake.
    """

    current: ssl.SSLContext

    def __new__(cls, build: Callable[[], ssl.SSLContext]) -> RotatingContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, build: Callable[[], ssl.SSLContext]) -> None:
        self._build = build
        self.current = build()
        self.verify_mode = self.current.verify_mode

    def reload(self) -> None:
        """Read every file again and use the result for new handshakes.

        Raises:
            ConfigError: a file or a check failed; the context in use stays.
        """
        self.current = self._build()

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As the context in use would."""
        return self.current.wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As the context in use would."""
        return self.current.wrap_socket(*args, **kwargs)


def server_context(listener: ListenerSettings) -> RotatingContext:
    """The context of a TLS listener; ``reload()`` on it reads the files again.

    Raises:
        ConfigError: an unknown policy, an unreadable file, or a check that failed; says which.
    """
    return RotatingContext(lambda: _build_server(listener))


def client_context(identity: ClientIdentity) -> ssl.SSLContext:
    """The context to call out with; it always verifies the server's chain and name.

    Without ``server_ca`` the system's anchors count; without ``certificate`` we show none.

    Raises:
        ConfigError: a file or a check failed; says which.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    CLIENT_POLICY.apply(context)
    _harden(context)
    if identity.server_ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_anchors(context, identity.server_ca, "client.server_ca")
    if identity.certificate is not None:
        _load_own(context, identity.certificate, identity.key, "client", ExtendedKeyUsageOID.CLIENT_AUTH)
    return context


def check_bind(listener: ListenerSettings) -> None:
    """Refuse plain TCP anywhere but on loopback.

    Raises:
        ConfigError: an insecure listener with another host.
    """
    if listener.trust is Trust.INSECURE and not is_loopback(listener.host):
        raise config_error(
            "tls.insecure-outside-loopback",
            None,
            f"listeners.{listener.name}.host",
            f"an insecure listener may only bind loopback, not {listener.host}",
        )


def is_loopback(host: str) -> bool:
    """Whether ``host`` is ``localhost`` or a literal loopback address; no name is looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def peer_of(ssl_object: ssl.SSLObject | ssl.SSLSocket | None, listener_name: str, remote_addr: str) -> PeerInfo:
    """Who is there, as the finished handshake proved it; parse once per connection.

    ``remote_addr`` is the address without its port, so that two connections can be compared.

    Raises:
        TlsFailure: a certificate that verifies but cannot be read, or a resumed session, which
            would let a certificate pass that was revoked since.
    """
    if ssl_object is None:
        return PeerInfo(listener_name, remote_addr)
    if ssl_object.session_reused:
        raise TlsFailure(f"{remote_addr} resumed a session on {listener_name}", code="transport.tls-resumed")
    version, cipher = ssl_object.version() or "", (ssl_object.cipher() or ("", "", 0))[0]
    der = ssl_object.getpeercert(binary_form=True)
    if der is None:
        return PeerInfo(listener_name, remote_addr, version, cipher)
    try:
        return _described(x509.load_der_x509_certificate(der), listener_name, remote_addr, version, cipher)
    except (ValueError, x509.DuplicateExtension) as problem:
        raise TlsFailure(f"certificate of {remote_addr} on {listener_name} cannot be read: {problem}") from problem


def tls_failure(problem: ssl.SSLError, peer: str) -> TlsFailure:
    """``problem`` in our words: which check failed, and whose certificate."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return TlsFailure(
            f"the certificate of {peer} was refused: {problem.verify_message}", code="transport.tls-certificate"
        )
    # OpenSSL's errors have a reason; those that Python raises itself have only their text.
    return TlsFailure(f"TLS with {peer} failed: {getattr(problem, 'reason', None) or problem}")


def config_error(code: str, file: Path | None, key: str, message: str) -> ConfigError:
    """One mistake, with the file that has it."""
    return ConfigError((ConfigProblem(code, str(file or ""), 0, key, message),))


def _build_server(listener: ListenerSettings) -> ssl.SSLContext:
    key = f"listeners.{listener.name}"
    policy = POLICIES.get(listener.policy)
    if policy is None:
        raise config_error(
            "tls.policy", None, f"{key}.policy", f"no TLS policy {listener.policy!r}; there is {', '.join(POLICIES)}"
        )
    if listener.trust is Trust.INSECURE or listener.certificate is None:
        raise config_error("tls.certificate", None, f"{key}.certificate", "a TLS listener needs certificate and key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    policy.apply(context)
    _harden(context)
    context.num_tickets = 0
    leaf = _load_own(context, listener.certificate, listener.key, key, ExtendedKeyUsageOID.SERVER_AUTH)
    _check_names(leaf, listener)
    if listener.trust is Trust.MTLS:
        if listener.client_ca is None:
            raise config_error("tls.client-ca", None, f"{key}.client_ca", "mutual TLS needs the clients' trust anchors")
        context.verify_mode = ssl.CERT_REQUIRED
        _load_anchors(context, listener.client_ca, f"{key}.client_ca")
    return context


def _harden(context: ssl.SSLContext) -> None:
    # Without tickets every connection proves its certificate again; see `peer_of`.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])


def _load_anchors(context: ssl.SSLContext, path: Path, key: str) -> None:
    """Trust what ``path`` holds; check revocation as soon as it also holds a list of it."""
    data = _read(path, key)
    anchors = _certificates(data, path, key)
    for anchor in anchors:
        _check_times(anchor, path, key)
        if not _is_ca(anchor):
            raise config_error("tls.not-a-ca", path, key, f"{anchor.subject.rfc4514_string()} is no CA certificate")
    try:
        context.load_verify_locations(cadata=data.decode("ascii"))
        if b"-----BEGIN X509 CRL-----" in data:
            # `cadata` takes certificates alone; a file's revocation lists come in by its name.
            context.load_verify_locations(cafile=path)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (ssl.SSLError, UnicodeDecodeError) as problem:
        raise config_error("tls.anchors", path, key, f"cannot be used as trust anchors: {problem}") from problem


def _load_own(
    context: ssl.SSLContext, certificate: Path, private: Path | None, key: str, purpose: x509.ObjectIdentifier
) -> x509.Certificate:
    """Load certificate chain and key after checking them; the leaf."""
    if private is None:
        raise config_error("tls.key", certificate, f"{key}.key", "a certificate without a key")
    chain = _certificates(_read(certificate, f"{key}.certificate"), certificate, f"{key}.certificate")
    _check_chain(chain, certificate, f"{key}.certificate", purpose)
    _check_key(chain[0], private, f"{key}.key")
    try:
        context.load_cert_chain(certificate, private, password=_no_password)
    except (ssl.SSLError, OSError) as problem:
        raise config_error("tls.load", certificate, f"{key}.certificate", f"OpenSSL refuses it: {problem}") from problem
    return chain[0]


def _no_password() -> str:
    # Without this OpenSSL would stop a service to ask at the terminal.
    return ""


def _check_chain(chain: list[x509.Certificate], path: Path, key: str, purpose: x509.ObjectIdentifier) -> None:
    leaf = chain[0]
    if len(chain) > MAX_CHAIN:
        raise config_error("tls.chain-length", path, key, f"{len(chain)} certificates; at most {MAX_CHAIN}")
    for certificate in chain:
        _check_times(certificate, path, key)
    if _is_ca(leaf):
        raise config_error("tls.leaf-is-ca", path, key, "the first certificate is a CA, it must be our own")
    if not _allows(leaf, purpose):
        raise config_error("tls.purpose", path, key, f"its extended key usage lacks {_PURPOSE_NAMES[purpose]}")
    for child, parent in pairwise(chain):
        try:
            child.verify_directly_issued_by(parent)
        except (ValueError, TypeError, InvalidSignature) as problem:
            name = child.subject.rfc4514_string()
            raise config_error("tls.chain", path, key, f"{name} is not issued by the certificate after it") from problem


_PURPOSE_NAMES = {ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth", ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth"}


def _check_times(certificate: x509.Certificate, path: Path, key: str) -> None:
    # TLS is judged by the machine's clock on both sides, never by a story's.
    now = datetime.now(UTC)
    name = certificate.subject.rfc4514_string()
    if certificate.not_valid_after_utc <= now:
        raise config_error("tls.expired", path, key, f"{name} expired at {_utc(certificate.not_valid_after_utc)}")
    if certificate.not_valid_before_utc > now:
        begin = _utc(certificate.not_valid_before_utc)
        raise config_error("tls.not-yet-valid", path, key, f"{name} is valid from {begin} on")


def _check_key(leaf: x509.Certificate, path: Path, key: str) -> None:
    data = _read(path, key)
    if path.stat().st_mode & OTHERS:
        raise config_error("tls.key-mode", path, key, "others than its owner may use this private key; chmod 600 it")
    try:
        private: PrivateKeyTypes = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as problem:
        # The parser's own text could quote the file; it is left out.
        raise config_error("tls.key", path, key, "no unencrypted PEM private key") from problem
    if _spki(private.public_key()) != _spki(leaf.public_key()):
        raise config_error("tls.key-mismatch", path, key, "the key does not belong to the certificate")


def _check_names(leaf: x509.Certificate, listener: ListenerSettings) -> None:
    host = urlsplit(listener.public_url).hostname if listener.public_url else None
    if host is not None and not _covers(leaf, host):
        raise config_error(
            "tls.name",
            listener.certificate,
            f"listeners.{listener.name}.public_url",
            f"the certificate does not name {host}, clients will refuse it",
        )


def _covers(leaf: x509.Certificate, host: str) -> bool:
    san = _san(leaf)
    if san is None:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        parent = host.partition(".")[2]
        names = {name.lower() for name in san.get_values_for_type(x509.DNSName)}
        return host.lower() in names or f"*.{parent.lower()}" in names
    return address in san.get_values_for_type(x509.IPAddress)


def _read(path: Path, key: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as problem:
        raise config_error("tls.file", path, key, f"cannot be read: {problem.strerror}") from problem
    if len(data) > MAX_PEM_BYTES:
        raise config_error("tls.file-size", path, key, f"larger than {MAX_PEM_BYTES} bytes")
    return data


def _certificates(data: bytes, path: Path, key: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as problem:
        raise config_error("tls.pem", path, key, "no readable PEM certificate in it") from problem


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _allows(certificate: x509.Certificate, purpose: x509.ObjectIdentifier) -> bool:
    try:
        return purpose in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True


def _san(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _described(certificate: x509.Certificate, listener: str, remote_addr: str, version: str, cipher: str) -> PeerInfo:
    san = _san(certificate)
    names = [str(part.value) for part in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return PeerInfo(
        listener=listener,
        remote_addr=remote_addr,
        tls_version=version,
        cipher=cipher,
        cert_sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        spki_sha256=_digest(_spki(certificate.public_key())),
        subject=certificate.subject.rfc4514_string(),
        # Two common names say nothing certain, so they count as none.
        subject_cn=names[0] if len(names) == 1 else "",
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        not_after=_utc(certificate.not_valid_after_utc),
        san_uris=tuple(san.get_values_for_type(x509.UniformResourceIdentifier)) if san else (),
        san_dns=tuple(san.get_values_for_type(x509.DNSName)) if san else (),
    )


def _spki(public: Any) -> bytes:
    encoded: bytes = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _digest(data: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize().hex()


def _utc(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
