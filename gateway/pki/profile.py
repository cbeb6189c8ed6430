"""Certificate profiles: what a certificate of each kind says, as YAML in ``certs/profiles``.

Reading a profile checks it: an issued certificate says what its profile says and nothing that
whoever asks for it wants. No keys here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import gateway
from gateway.domain.errors import ConfigError, ConfigProblem

MAX_PROFILE_BYTES = 64 * 1024
"""Largest profile file; the longest of ours has 2 KiB."""

KEY_ALGORITHMS = frozenset({"p256", "p384", "p521", "rsa2048", "rsa3072", "ed25519"})
KEY_USAGES = {
    "digitalSignature": "digital_signature",
    "nonRepudiation": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "keyAgreement": "key_agreement",
    "keyCertSign": "key_cert_sign",
    "cRLSign": "crl_sign",
}
EXTENDED_USAGES = frozenset({"clientAuth", "serverAuth", "OCSPSigning"})
SUBJECT_ATTRIBUTES = ("C", "O", "OU", "DC", "CN")

_DURATION = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_FIELDS = frozenset(
    {"name", "kind", "issuer", "key", "subject", "validity", "not_before_skew", "path_len", "key_usage", "eku", "san"}
    | {"max_der_bytes"}
)


class Kind(StrEnum):
    """Place in a chain."""

    ROOT = "root"
    SUB = "sub"
    LEAF = "leaf"


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of certificate. ``subject`` values and ``san`` entries hold ``{variables}``.

    A ``san`` entry is ``URI:…``, ``DNS:…``, ``IP:…`` or ``HOSTS:{hosts}``, which takes a comma
    separated list of names and addresses and gives each its type.
    """

    name: str
    kind: Kind
    issuer: str
    key_alg: str
    subject: tuple[tuple[str, str], ...]
    validity: timedelta
    not_before_skew: timedelta
    path_len: int | None
    key_usage: tuple[str, ...]
    eku: tuple[str, ...]
    san: tuple[str, ...]
    max_der_bytes: int | None = None

    @property
    def is_ca(self) -> bool:
        """Whether what it describes may issue."""
        return self.kind is not Kind.LEAF


def profiles_directory() -> Path:
    """Where the shipped profiles are: inside an installed package, else in the checkout."""
    package = Path(gateway.__file__).parent
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parent / "certs" / "profiles"


def load_profiles(directory: Path | None = None) -> dict[str, Profile]:
    """All profiles by name, checked alone and against their issuers.

    Raises:
        ConfigError: every mistake found in the files.
    """
    directory = directory or profiles_directory()
    profiles: dict[str, Profile] = {}
    problems: list[ConfigProblem] = []
    files = sorted(directory.glob("*.yaml"))
    if not files:
        problems.append(ConfigProblem("pki.profiles", str(directory), 0, "", "no profile in this folder"))
    for file in files:
        try:
            for profile in _read(file):
                if profile.name in profiles:
                    problems.append(_problem(file, profile.name, "defined twice"))
                profiles[profile.name] = profile
        except _Invalid as mistake:
            problems.append(_problem(file, mistake.key, str(mistake)))
    problems.extend(_problem(directory, name, text) for name, text in _chain_mistakes(profiles))
    if problems:
        raise ConfigError(tuple(problems))
    return profiles


class _Invalid(ValueError):
    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def _problem(file: Path, key: str, message: str) -> ConfigProblem:
    return ConfigProblem("pki.profile", str(file), 0, key, message)


def _read(file: Path) -> list[Profile]:
    try:
        text = file.read_text("utf-8")
        if len(text) > MAX_PROFILE_BYTES:
            raise _Invalid("", f"larger than {MAX_PROFILE_BYTES} characters")
        document = YAML(typ="safe").load(text)
    except (OSError, UnicodeDecodeError, YAMLError) as problem:
        raise _Invalid("", f"cannot be read: {problem}") from problem
    if not isinstance(document, dict) or not isinstance(document.get("profiles"), list):
        raise _Invalid("profiles", "a list of profiles is expected")
    return [_profile(entry) for entry in document["profiles"]]


def _profile(entry: Any) -> Profile:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise _Invalid("name", "every profile is a mapping with a name")
    name = entry["name"]
    unknown = set(entry) - _FIELDS
    if unknown:
        raise _Invalid(name, f"unknown fields: {', '.join(sorted(map(str, unknown)))}")
    try:
        return Profile(
            name=name,
            kind=Kind(entry["kind"]),
            issuer=str(entry.get("issuer", "")),
            key_alg=_one_of(entry["key"]["alg"], KEY_ALGORITHMS),
            subject=tuple((_one_of(key, SUBJECT_ATTRIBUTES), str(value)) for key, value in entry["subject"].items()),
            validity=_duration(entry["validity"]),
            not_before_skew=_duration(entry.get("not_before_skew", "5m")),
            path_len=None if entry.get("path_len") is None else int(entry["path_len"]),
            key_usage=tuple(_one_of(usage, KEY_USAGES) for usage in entry["key_usage"]),
            eku=tuple(_one_of(usage, EXTENDED_USAGES) for usage in entry.get("eku", ())),
            san=tuple(map(str, entry.get("san", ()))),
            max_der_bytes=None if entry.get("max_der_bytes") is None else int(entry["max_der_bytes"]),
        )
    except KeyError as missing:
        raise _Invalid(name, f"field {missing} is missing") from missing
    except (TypeError, AttributeError, ValueError) as problem:
        raise _Invalid(name, str(problem)) from problem


def _one_of(value: Any, allowed: Iterable[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(sorted(allowed))}")
    return str(value)


def _duration(text: Any) -> timedelta:
    match = _DURATION.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is no duration such as 5m, 12h or 397d")
    return int(match[1]) * _UNITS[match[2]]


def _chain_mistakes(profiles: Mapping[str, Profile]) -> list[tuple[str, str]]:
    mistakes: list[tuple[str, str]] = []
    for profile in profiles.values():
        mistakes.extend((profile.name, text) for text in _own_mistakes(profile))
        if profile.kind is Kind.ROOT:
            continue
        issuer = profiles.get(profile.issuer)
        if issuer is None or not issuer.is_ca:
            mistakes.append((profile.name, f"its issuer {profile.issuer!r} is no CA profile"))
            continue
        mistakes.extend((profile.name, text) for text in _mistakes_below(profile, issuer))
    return mistakes


def _own_mistakes(profile: Profile) -> list[str]:
    signs = "keyCertSign" in profile.key_usage
    checks = (
        (profile.kind is Kind.ROOT and bool(profile.issuer), "a root has no issuer"),
        (profile.is_ca and not signs, "a CA needs the key usage keyCertSign"),
        (profile.is_ca and profile.path_len is None, "a CA needs a path_len"),
        (not profile.is_ca and signs, "a leaf must not sign certificates"),
        (not profile.is_ca and profile.path_len is not None, "a leaf has no path_len"),
        (not profile.is_ca and not profile.eku, "a leaf needs an extended key usage"),
        (not profile.subject, "it has no subject"),
    )
    return [text for failed, text in checks if failed]


def _mistakes_below(profile: Profile, issuer: Profile) -> list[str]:
    """A path length that decreases downwards also makes a cycle of issuers impossible."""
    checks = (
        (profile.validity > issuer.validity, f"it is valid for longer than its issuer {issuer.name}"),
        (
            profile.is_ca and (profile.path_len or 0) >= (issuer.path_len or 0),
            f"its path_len must be below that of {issuer.name}",
        ),
    )
    return [text for failed, text in checks if failed]
