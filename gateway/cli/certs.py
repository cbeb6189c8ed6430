"""``gridgate certs``: make development certificates, and read any."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.options import SITE_FILE, Json, load_config
from gateway.cli.say import Exit, UsageError, printable, put, put_json, verb

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

app = typer.Typer(help="Certificates.", no_args_is_help=True)

MAX_BYTES = 1024 * 1024
"""Largest file of certificates; a bundle of public roots has a fifth of it."""


class Holder(StrEnum):
    """Who gets a certificate."""

    PARTY = "party"
    STATION = "station"
    METER = "meter"
    OPERATOR = "operator"


@app.command("new")
@verb
def new(
    holder: Annotated[Holder, typer.Argument(help="Whose it is.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its id; of a meter the node with - for /.")],
    file: Annotated[Path, typer.Option("--file", help="The site's configuration.")] = SITE_FILE,
    serial: Annotated[str, typer.Option(help="A station's serial number; from the configuration if not given.")] = "",
    json_output: Json = False,
) -> Exit:
    """Issue a development certificate from the CAs in the folder pki/ beside the configuration.

    What is there stays as it is. Production certificates come from a CA of your own.
    """
    from datetime import UTC, datetime

    from gateway.pki.dev import make_dev_pki

    config = load_config(file)
    folder = config.path.absolute().parent / "pki"
    if not folder.is_dir():
        raise UsageError(f"{folder} is not there", hint="`gridgate init` makes it, with CAs for development")
    if holder is Holder.STATION and not serial:
        serial = next((s.serial for s in config.stations if s.id == name), "")
        if not serial:
            raise UsageError(f'"{name}" is no configured station', hint="name its serial number with --serial")
    pki = make_dev_pki(
        folder,
        site=config.site,
        now=datetime.now(UTC),
        parties=[name] if holder is Holder.PARTY else [],
        stations=[(name, serial)] if holder is Holder.STATION else [],
        meters=[name] if holder is Holder.METER else [],
        operators=[name] if holder is Holder.OPERATOR else [],
    )
    made = {
        Holder.PARTY: pki.parties,
        Holder.STATION: pki.stations,
        Holder.METER: pki.meters,
        Holder.OPERATOR: pki.operators,
    }[holder][name]
    files = {"certificate": made.certificate, "key": made.key, "server_ca": made.server_ca}
    if json_output:
        put_json({"holder": holder.value, "name": name, **{k: str(path) for k, path in files.items()}})
        return Exit.OK
    put(printable(f"certificate  {made.certificate}"))
    put(printable(f"key          {made.key}"))
    put(printable(f"trust        {made.server_ca}"))
    return Exit.OK


@app.command("show")
@verb
def show(
    certificates: Annotated[Path, typer.Argument(metavar="PEM", help="A file of certificates.")],
    json_output: Json = False,
) -> Exit:
    """Say what the certificates in a file say: names, validity, uses and fingerprints."""
    documents = [_document(c) for c in _read(certificates)]
    if json_output:
        put_json({"file": str(certificates), "certificates": documents})
        return Exit.OK
    for number, document in enumerate(documents):
        if number:
            put()
        for name, value in document.items():
            text = ", ".join(value) if isinstance(value, list) else str(value)
            put(printable(f"{name:<12} {text or '-'}"))
    return Exit.OK


def _read(path: Path) -> list[Certificate]:
    from cryptography import x509

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}", hint="name a PEM file") from problem
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES} bytes", hint="name a PEM file of certificates")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as problem:
        raise UsageError(f"{path} holds no readable certificate", hint="name a PEM file") from problem


def _document(certificate: Certificate) -> dict[str, Any]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from gateway.domain.evidence import sha256_hex
    from gateway.domain.timeline import rfc3339

    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "from": rfc3339(certificate.not_valid_before_utc),
        "until": rfc3339(certificate.not_valid_after_utc),
        "names": list(_names(certificate)),
        "uses": list(_uses(certificate)),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "spki_sha256": sha256_hex(spki),
    }


def _names(certificate: Certificate) -> Iterator[str]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for kind, word in ((x509.UniformResourceIdentifier, "URI"), (x509.DNSName, "DNS")):
        yield from (f"{word}:{name}" for name in found.get_values_for_type(kind))
    yield from (f"IP:{address}" for address in found.get_values_for_type(x509.IPAddress))


def _uses(certificate: Certificate) -> Iterator[str]:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    words = {ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth", ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth"}
    yield from (words.get(use, use.dotted_string) for use in found)
