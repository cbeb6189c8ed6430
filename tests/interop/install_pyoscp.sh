#!/bin/sh
# Installs the foreign Capacity Provider pyoscp into .peers/pyoscp. Idempotent; gives up after five minutes.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
venv="$root/.peers/pyoscp"
wanted="pyoscp==0.1.0 python-dateutil==2.9.0.post0"
stamp="$venv/.installed"

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "pyoscp: already there"
    exit 0
fi

# pyoscp 0.1.0 pins Flask 2.3.3, which is known to run on 3.11.
python=${GRIDGATE_PEER_PYTHON:-python3.11}
if ! command -v "$python" >/dev/null 2>&1; then
    echo "pyoscp: needs $python (set GRIDGATE_PEER_PYTHON to another one)" >&2
    exit 1
fi

mkdir -p "$root/.peers"
test -x "$venv/bin/python" || "$python" -m venv "$venv"
# shellcheck disable=SC2086 # two words on purpose
timeout 300 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $wanted
"$venv/bin/python" -c "import oscp, oscp.RegistrationManager"
echo "$wanted" >"$stamp"
echo "pyoscp: installed"
