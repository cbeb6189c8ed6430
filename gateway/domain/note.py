"""C2SP signed-note and tlog-checkpoint: texts that several programs read. Pure; keys are handed in.

A note is text, a blank line and signature lines ``— <name> <base64(key id ‖ signature)>``. A
checkpoint's text is origin, tree size and base64 root, one per line.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from gateway.domain.errors import MalformedMessage
from gateway.domain.merkle import HASH_BYTES

Sign: TypeAlias = Callable[[bytes], bytes]
"""A private key: message to Ed25519 signature."""

Verify: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""``(public key, signature, message)`` to whether it holds."""

ED25519 = b"\x01"
"""signed-note: the algorithm byte of a plain Ed25519 signature."""

KEY_BYTES = 32
KEY_ID_BYTES = 4
SIGNATURE_BYTES = 64

MAX_NOTE_BYTES = 16_384
"""A checkpoint with a handful of signatures has less than 2 kB."""

MAX_SIGNATURES = 16

_DASH = "\u2014 "


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key and the name under which it signs."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """First 4 bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.public_key).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_encode(ED25519 + self.public_key)}"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line."""

    name: str
    key_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """Text that ends in a newline, and who signed it."""

    text: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed head: which log, how many entries, which root."""

    origin: str
    size: int
    root: bytes


def is_key_name(name: str) -> bool:
    """Whether signed-note allows it: not empty, neither white space nor plus."""
    return bool(name) and name.isprintable() and not any(c.isspace() or c == "+" for c in name)


def parse_verifier_key(text: str) -> VerifierKey:
    """A key from ``name+hex id+base64``.

    Raises:
        MalformedMessage: not such a string, or the id belongs to another key.
    """
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or not is_key_name(parts[0]):
        raise MalformedMessage("a verifier key is name+key id+base64")
    data = _decode(parts[2], "verifier key")
    if len(data) != 1 + KEY_BYTES or data[:1] != ED25519:
        raise MalformedMessage("the verifier key is no Ed25519 key")
    key = VerifierKey(parts[0], data[1:])
    if key.key_id.hex() != parts[1]:
        raise MalformedMessage(f"key id {parts[1]} does not belong to this key, {key.key_id.hex()} does")
    return key


def render_note(note: Note) -> bytes:
    """The bytes of a note."""
    lines = "".join(f"{_DASH}{s.name} {_encode(s.key_id + s.value)}\n" for s in note.signatures)
    return f"{note.text}\n{lines}".encode()


def parse_note(data: bytes) -> Note:
    """The inverse of :func:`render_note`; accepts nothing that would be written differently.

    Raises:
        MalformedMessage: not a note.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise MalformedMessage(f"a note of {len(data)} bytes; at most {MAX_NOTE_BYTES}")
    try:
        whole = data.decode()
    except UnicodeDecodeError as problem:
        raise MalformedMessage("the note is not UTF-8") from problem
    text, blank, tail = whole.rpartition("\n\n")
    if not blank or not text or not tail.endswith("\n"):
        raise MalformedMessage("a note is text, a blank line and signatures")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedMessage(f"{len(lines)} signatures; at most {MAX_SIGNATURES}")
    note = Note(text + "\n", tuple(_parse_signature(line) for line in lines))
    if render_note(note) != data:
        raise MalformedMessage("the note is not in its only form")
    return note


def render_checkpoint(checkpoint: Checkpoint) -> str:
    """The text that is signed."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{_encode(checkpoint.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """A checkpoint from a note's text; extension lines are ignored, as tlog-checkpoint wants.

    Raises:
        MalformedMessage: fewer than three lines, a size with leading zeros, a root of other length.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not lines[0]:
        raise MalformedMessage("a checkpoint has origin, size and root, one per line")
    origin, size, root = lines[0], lines[1], _decode(lines[2], "root")
    if not (size.isascii() and size.isdigit() and str(int(size[:20])) == size):
        raise MalformedMessage(f"{size[:40]!r} is no tree size")
    if len(root) != HASH_BYTES:
        raise MalformedMessage(f"a root of {len(root)} bytes; {HASH_BYTES} are due")
    return Checkpoint(origin, int(size), root)


def sign_checkpoint(checkpoint: Checkpoint, key: VerifierKey, sign: Sign) -> bytes:
    """The bytes of a checkpoint with one signature."""
    text = render_checkpoint(checkpoint)
    return render_note(Note(text, (Signature(key.name, key.key_id, sign(text.encode())),)))


def open_checkpoint(data: bytes, key: VerifierKey, verify: Verify) -> Checkpoint:
    """The checkpoint in a note, once ``key`` is known to have signed it.

    Raises:
        MalformedMessage: not a checkpoint, no signature by the key, or a wrong one.
    """
    note = parse_note(data)
    mine = [s for s in note.signatures if s.name == key.name and s.key_id == key.key_id]
    if len(mine) != 1:
        raise MalformedMessage(f"{len(mine)} signatures by {key.name}; one is due")
    if not verify(key.public_key, mine[0].value, note.text.encode()):
        raise MalformedMessage(f"the signature by {key.name} does not hold")
    return parse_checkpoint(note.text)


def _parse_signature(line: str) -> Signature:
    if not line.startswith(_DASH):
        raise MalformedMessage("a signature line begins with an em dash and a space")
    name, space, blob = line[len(_DASH) :].partition(" ")
    data = _decode(blob, "signature")
    if not space or not is_key_name(name) or len(data) <= KEY_ID_BYTES:
        raise MalformedMessage("a signature line is: em dash, name, base64")
    return Signature(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise MalformedMessage(f"the {what} is not base64") from problem
    if _encode(data) != text:
        raise MalformedMessage(f"the {what} is not in base64's only form")
    return data
