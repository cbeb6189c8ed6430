"""pyoscp 0.1.0 as Flexibility Provider, timed inside its own process. Runs in ``.peers/pyoscp``.

For every line on stdin, ``KIND FILE``, it takes each forecast of the file (one JSON document a line) once
and prints the seconds per forecast. ``body`` is its JSON decoding and model validation alone, as
``Resource.validate_payload`` of flask-restx does them: it converts nothing, times stay text. ``app`` is its
whole WSGI application, from the environment of a request to the call of its handler.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from flask import Flask
from oscp import createBlueprint
from oscp.fp_endpoints import flex_provider_ns
from oscp.RegistrationManager import RegistrationDictMan

TOKEN = "bench"
VERSION = {"version": "2.0", "base_url": "http://127.0.0.1/oscp/fp/2.0"}


class FlexibilityProvider:
    """What pyoscp hands decoded messages to."""

    def __init__(self) -> None:
        self.blocks = 0

    def handleUpdateGroupCapacityForecast(self, payload: Any, _token: str) -> None:
        self.blocks += len(payload["forecasted_blocks"])


def environ(body: bytes) -> dict[str, Any]:
    """A request as a WSGI server would hand it over."""
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/oscp/fp/2.0/update_group_capacity_forecast",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
        "HTTP_AUTHORIZATION": f"Token {TOKEN}",
        "HTTP_X_REQUEST_ID": "bench",
    }


def taken_by_app(app: Flask, provider: FlexibilityProvider, bodies: list[bytes]) -> float:
    """Seconds for all."""
    statuses: list[str] = []
    before, start = provider.blocks, perf_counter()
    for body in bodies:
        list(app.wsgi_app(environ(body), lambda status, _headers, _info=None: statuses.append(status)))
    elapsed = perf_counter() - start
    assert all(status.startswith("204") for status in statuses), statuses
    assert provider.blocks - before == sum(body.count(b"start_time") for body in bodies)
    return elapsed


def validated(app: Flask, bodies: list[bytes]) -> float:
    """Seconds for all; a body that it refuses raises."""
    (api,) = flex_provider_ns.apis
    model = flex_provider_ns.models["GroupCapacityForecast"]
    with app.test_request_context():
        start = perf_counter()
        for body in bodies:
            model.validate(json.loads(body), api.refresolver, api.format_checker)
        return perf_counter() - start


def main() -> None:
    """Serve until stdin ends."""
    with TemporaryDirectory() as folder:
        manager = RegistrationDictMan([VERSION], filename=f"{folder}/endpoints.json")
        manager._updateService(TOKEN, "the-peers-token", "http://127.0.0.1:1")
        provider, app = FlexibilityProvider(), Flask("pyoscp_ingest")
        managers = {"flexibilityprovider": provider, "registrationmanager": manager}
        app.register_blueprint(createBlueprint(managers, "fp"))
        for line in sys.stdin:
            kind, path = line.split()
            bodies = Path(path).read_bytes().splitlines()
            taken = validated(app, bodies) if kind == "body" else taken_by_app(app, provider, bodies)
            sys.stdout.write(f"{taken / len(bodies)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
