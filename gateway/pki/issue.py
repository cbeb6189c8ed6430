"""Keys and certificates made by profile. Signs with a local key; keeps nothing.

Every extension comes from the profile, none from a requester.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.domain.errors import ConfigError, ConfigProblem
from gateway.pki.profile import KEY_USAGES, Kind, Profile

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_NEW_KEY: Mapping[str, Callable[[], SigningKey]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
_ATTRIBUTES = {
    "C": NameOID.COUNTRY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "DC": NameOID.DOMAIN_COMPONENT,
    "CN": NameOID.COMMON_NAME,
}
_EXTENDED = {
    "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH,
    "OCSPSigning": ExtendedKeyUsageOID.OCSP_SIGNING,
}
_VARIABLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key. ``issuers`` are the certificates above it, nearest first.

    The key never shows in a ``repr``.
    """

    certificate: x509.Certificate
    key: SigningKey
    issuers: tuple[x509.Certificate, ...] = ()

    def __repr__(self) -> str:
        return f"Issued({self.certificate.subject.rfc4514_string()!r})"

    def certificate_pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def chain_pem(self) -> bytes:
        """What a TLS peer is shown: the leaf, then every CA below the root."""
        below_root = [found for found in self.issuers if found.subject != found.issuer]
        return b"".join(found.public_bytes(serialization.Encoding.PEM) for found in (self.certificate, *below_root))


def new_key(profile: Profile) -> SigningKey:
    """A fresh key of the profile's algorithm."""
    return _NEW_KEY[profile.key_alg]()


def key_pem(key: SigningKey) -> bytes:
    """PKCS#8, not encrypted: only for a file that its owner alone may read."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def issue(
    profile: Profile,
    *,
    variables: Mapping[str, str],
    now: datetime,
    issuer: Issued | None = None,
    key: SigningKey | None = None,
) -> Issued:
    """Make a certificate by ``profile``, valid from ``now`` less the profile's skew.

    A validity that would outlast the issuer's ends with it.

    Raises:
        ConfigError: a variable is missing, a value does not fit, or the issuer is missing.
    """
    if (issuer is None) != (profile.kind is Kind.ROOT):
        raise _mistake(profile, "a root is issued by itself, everything else by a CA")
    own_key = key or new_key(profile)
    try:
        builder = _builder(profile, variables, now, issuer, own_key)
        signer = own_key if issuer is None else issuer.key
        certificate = builder.sign(signer, _hash_for(signer))
    except ValueError as problem:
        raise _mistake(profile, str(problem)) from problem
    size = len(certificate.public_bytes(serialization.Encoding.DER))
    if profile.max_der_bytes is not None and size > profile.max_der_bytes:
        raise _mistake(profile, f"{size} bytes; the profile allows {profile.max_der_bytes}")
    return Issued(certificate, own_key, () if issuer is None else (issuer.certificate, *issuer.issuers))


def _builder(
    profile: Profile, variables: Mapping[str, str], now: datetime, issuer: Issued | None, key: SigningKey
) -> x509.CertificateBuilder:
    subject = x509.Name(
        [x509.NameAttribute(_ATTRIBUTES[name], _filled(value, variables)) for name, value in profile.subject]
    )
    not_after = now + profile.validity
    if issuer is not None:
        not_after = min(not_after, issuer.certificate.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - profile.not_before_skew)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(profile.is_ca, profile.path_len), critical=True)
        .add_extension(_key_usage(profile), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        parent = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(parent, critical=False)
    if profile.eku:
        purposes = x509.ExtendedKeyUsage([_EXTENDED[usage] for usage in profile.eku])
        builder = builder.add_extension(purposes, critical=False)
    names = [name for entry in profile.san for name in _names(entry, variables)]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder


def _key_usage(profile: Profile) -> x509.KeyUsage:
    flags = {flag: usage in profile.key_usage for usage, flag in KEY_USAGES.items()}
    return x509.KeyUsage(**flags, data_encipherment=False, encipher_only=False, decipher_only=False)


def _names(entry: str, variables: Mapping[str, str]) -> list[x509.GeneralName]:
    kind, _, template = entry.partition(":")
    value = _filled(template, variables)
    match kind:
        case "URI":
            return [x509.UniformResourceIdentifier(value)]
        case "DNS":
            return [x509.DNSName(value)]
        case "IP":
            return [x509.IPAddress(ipaddress.ip_address(value))]
        case "HOSTS":
            return [_host(host) for host in value.split(",")]
    raise ValueError(f"unknown kind of alternative name: {kind}")


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _filled(template: str, variables: Mapping[str, str]) -> str:
    """Not ``str.format``: a template must not reach into objects."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise ValueError(f"no value given for {{{match[1]}}}")
        return variables[match[1]]

    return _VARIABLE.sub(value, template)


def _hash_for(key: SigningKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    """The hash as strong as the key; Ed25519 brings its own."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    bits = key.curve.key_size if isinstance(key, ec.EllipticCurvePrivateKey) else 0
    if bits > 384:
        return hashes.SHA512()
    return hashes.SHA384() if bits == 384 else hashes.SHA256()


def _mistake(profile: Profile, message: str) -> ConfigError:
    return ConfigError((ConfigProblem("pki.issue", "", 0, profile.name, message),))
