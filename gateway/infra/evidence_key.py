"""The log's Ed25519 key and its last signed head: two small files beside the database. No SQL.

The key is created once with mode 0600 and never leaves this module but as a signing function.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.domain.errors import EvidenceError, MalformedMessage, StoreError
from gateway.domain.note import Checkpoint, VerifierKey, is_key_name, open_checkpoint, sign_checkpoint
from gateway.kit.private import OTHERS

_PRIVATE = 0o600


class LogKey:
    """Who signs a log: a private key under the name of the log's origin."""

    def __init__(self, private: Ed25519PrivateKey, origin: str) -> None:
        if not is_key_name(origin):
            raise StoreError(f"{origin!r} cannot name a log: it has white space or a plus", code="store.bad-origin")
        self._private = private
        self.verifier = VerifierKey(origin, private.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"LogKey({self.verifier.name}, ***)"

    def sign(self, size: int, root: bytes) -> bytes:
        """The signed checkpoint of that head, as bytes of a note."""
        return sign_checkpoint(Checkpoint(self.verifier.name, size, root), self.verifier, self._private.sign)


def load_key(path: Path, origin: str) -> LogKey:
    """The key at ``path``.

    Raises:
        EvidenceError: no such file (``store.key-missing``), readable by others
            (``store.key-permissions``) or no Ed25519 key (``store.key-unreadable``).
    """
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as problem:
        raise EvidenceError(
            f"the evidence key {path} is not there: {problem.strerror}",
            code="store.key-missing",
            hint="bring the key back from its backup; a log is never continued under another key",
        ) from problem
    if mode & OTHERS:
        raise EvidenceError(
            f"the evidence key {path} is readable by others", code="store.key-permissions", hint=f"chmod 600 {path}"
        )
    try:
        private = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as problem:
        raise EvidenceError(f"{path} holds no private key", code="store.key-unreadable") from problem
    if not isinstance(private, Ed25519PrivateKey):
        raise EvidenceError(f"{path} holds no Ed25519 key", code="store.key-unreadable")
    return LogKey(private, origin)


def create_key(path: Path) -> None:
    """Write a new key with mode 0600, durably; an existing file is left alone.

    Raises:
        StoreError: the folder cannot be written.
    """
    if path.exists():
        return
    data = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        write_durably(path, data)
    except OSError as problem:
        raise StoreError(f"the evidence key {path} cannot be written: {problem}", code="store.unwritable") from problem


def verify_signature(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature holds."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def read_head(path: Path, key: VerifierKey) -> Checkpoint | None:
    """The last signed head outside the database, None when there is no such file.

    Raises:
        EvidenceError: ``store.head-unreadable``: not a checkpoint of this key.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise EvidenceError(f"{path} cannot be read: {problem}", code="store.head-unreadable") from problem
    try:
        checkpoint = open_checkpoint(data, key, verify_signature)
    except MalformedMessage as problem:
        raise EvidenceError(f"{path} is no head of {key.name}: {problem}", code="store.head-unreadable") from problem
    if checkpoint.origin != key.name:
        raise EvidenceError(f"{path} is a head of {checkpoint.origin}, not {key.name}", code="store.head-unreadable")
    return checkpoint


def write_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` in one step that survives a power cut; mode 0600.

    Raises:
        OSError: what the file system says; the old content is still there.
    """
    partial = path.with_name(path.name + ".tmp")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
    with open(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
