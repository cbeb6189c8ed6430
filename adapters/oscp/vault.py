"""Tokens at rest: AES-256-GCM under a key file, the record's name as associated data."""

from __future__ import annotations

import base64
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.domain.errors import ConfigError, ConfigProblem, StoreError

_KEY_BYTES = 32
_NONCE_BYTES = 12
"""NIST SP 800-38D: 96 bits, drawn at random for every record."""


class Vault:
    """Seals and opens short secrets. ``repr`` shows nothing."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return "Vault(***)"

    def seal(self, secret: str, record: str) -> str:
        """Text that only :meth:`open` with the same ``record`` turns back."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, secret.encode(), record.encode())).decode()

    def open(self, sealed: str, record: str) -> str:
        """The secret.

        Raises:
            StoreError: another key, another record, or altered bytes.
        """
        data = base64.b64decode(sealed)
        try:
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], record.encode()).decode()
        except InvalidTag:
            raise StoreError(
                f"the stored token of {record} does not open with this key file",
                hint="restore the key file that belongs to this store, or register the peer anew",
            ) from None


def open_vault(path: Path) -> Vault:
    """The vault of a key file; a missing file is created with mode 0600.

    Raises:
        ConfigError: the file is readable by others, or is no 32-byte key.
    """
    try:
        key = _create(path)
    except FileExistsError:
        key = _read(path)
    return Vault(key)


def _create(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    key = secrets.token_bytes(_KEY_BYTES)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def _read(path: Path) -> bytes:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise _refused(path, "others can read it: chmod 600")
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise _refused(path, f"holds {len(key)} bytes, a key has {_KEY_BYTES}")
    return key


def _refused(path: Path, why: str) -> ConfigError:
    return ConfigError((ConfigProblem("oscp.key-file", str(path), 0, "key_file", why),))
