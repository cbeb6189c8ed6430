"""Certificates and keys on disk: folders 0700, keys 0600, nothing overwritten."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.domain.errors import ConfigError, ConfigProblem
from gateway.pki.issue import Issued, SigningKey, issue, key_pem, new_key
from gateway.pki.profile import Profile

FOLDER_MODE = 0o700
KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644


class Folder:
    """One folder of certificates. Names are relative, without a suffix for pairs."""

    def __init__(self, root: Path) -> None:
        self._root = root
        _make_folder(root)

    def path(self, name: str) -> Path:
        """Where ``name`` is or would be."""
        return self._root / name

    def write_once(self, name: str, data: bytes, mode: int = CERTIFICATE_MODE) -> Path:
        """Write ``data`` unless the file exists; never half a file under that name."""
        path = self.path(name)
        _make_folder(path.parent)
        if path.exists():
            return path
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        draft.replace(path)
        return path

    def load_or_issue(
        self, stem: str, profile: Profile, variables: Mapping[str, str], now: datetime, issuer: Issued | None
    ) -> Issued:
        """The pair ``stem.pem`` and ``stem.key``, made if it is not there.

        The key is written first: a crash in between leaves a key that the next call certifies.

        Raises:
            ConfigError: a certificate whose key is gone, or a file that cannot be read.
        """
        certificate_path, key_path = self.path(f"{stem}.pem"), self.path(f"{stem}.key")
        if certificate_path.exists() and not key_path.exists():
            raise _mistake(certificate_path, "there is no key for this certificate; remove it to have both made anew")
        key = _load_key(key_path) if key_path.exists() else new_key(profile)
        if certificate_path.exists():
            above = () if issuer is None else (issuer.certificate, *issuer.issuers)
            return Issued(_load_certificate(certificate_path), key, above)
        self.write_once(f"{stem}.key", key_pem(key), KEY_MODE)
        issued = issue(profile, variables=variables, now=now, issuer=issuer, key=key)
        self.write_once(f"{stem}.pem", issued.chain_pem())
        return issued


def _make_folder(path: Path) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except ValueError as problem:
        raise _mistake(path, "holds no readable certificate") from problem


def _load_key(path: Path) -> SigningKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as problem:
        raise _mistake(path, "holds no readable private key") from problem
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        raise _mistake(path, "holds a private key of an unknown kind")
    return key


def _mistake(path: Path, message: str) -> ConfigError:
    return ConfigError((ConfigProblem("pki.file", str(path), 0, "", message),))
