"""The baseline for stations: the ``ocpp`` package on ``websockets``. ``plain_stations.py [SITE.YAML]``.

Both are used as documented. It checks every message against its schema, as the package does by itself,
answers, and stores nothing. With a site's file it serves the TLS of the gateway's listener ``ocpp``,
without it plain TCP.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

from websockets.asyncio.server import serve

from gateway.config.load import load
from gateway.kit.tls import server_context
from tests.bench.plain_csms import PROTOCOLS, Csms


async def main(site_file: Path | None) -> None:
    """Serve until SIGTERM."""
    tls = None if site_file is None else server_context(replace(load(site_file).listeners["ocpp"], port=0))
    async with serve(Csms().connected, "127.0.0.1", 0, ssl=tls, subprotocols=PROTOCOLS) as server:
        print("ready", json.dumps({"ocpp": next(iter(server.sockets)).getsockname()[1]}), flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
