#!/bin/sh
# Installs the foreign Merkle tree pymerkle into .peers/pymerkle. Idempotent; gives up after five minutes.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
venv="$root/.peers/pymerkle"
wanted="pymerkle==7.0.0"
stamp="$venv/.installed"

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "pymerkle: already there"
    exit 0
fi

python=${GRIDGATE_PEER_PYTHON:-python3.11}
if ! command -v "$python" >/dev/null 2>&1; then
    echo "pymerkle: needs $python (set GRIDGATE_PEER_PYTHON to another one)" >&2
    exit 1
fi

mkdir -p "$root/.peers"
test -x "$venv/bin/python" || "$python" -m venv "$venv"
timeout 300 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$wanted"
"$venv/bin/python" -c "import pymerkle"
echo "$wanted" >"$stamp"
echo "pymerkle: installed"
