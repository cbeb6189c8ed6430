#!/bin/sh
# Installs the foreign stations' library ocpp into .peers/ocpp. Idempotent; gives up after five minutes.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
venv="$root/.peers/ocpp"
wanted="ocpp==2.1.0 websockets==15.0.1"
stamp="$venv/.installed"

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "ocpp: already there"
    exit 0
fi

python=${GRIDGATE_PEER_PYTHON:-python3.11}
if ! command -v "$python" >/dev/null 2>&1; then
    echo "ocpp: needs $python (set GRIDGATE_PEER_PYTHON to another one)" >&2
    exit 1
fi

mkdir -p "$root/.peers"
test -x "$venv/bin/python" || "$python" -m venv "$venv"
# shellcheck disable=SC2086 # two words on purpose
timeout 300 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $wanted
"$venv/bin/python" -c "import ocpp.v16, ocpp.v201, websockets.asyncio.client"
echo "$wanted" >"$stamp"
echo "ocpp: installed"
