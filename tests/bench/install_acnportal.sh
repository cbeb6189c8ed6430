#!/bin/sh
# Installs the charging simulator acnportal into .peers/acnportal, for a benchmark. Idempotent; gives up after five minutes.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
venv="$root/.peers/acnportal"
# acnportal 0.3.3 imports pkg_resources, which setuptools has no more from 81 on.
wanted="setuptools<81 acnportal==0.3.3"
stamp="$venv/.installed"

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "acnportal: already there"
    exit 0
fi

python=${GRIDGATE_PEER_PYTHON:-python3.11}
if ! command -v "$python" >/dev/null 2>&1; then
    echo "acnportal: needs $python (set GRIDGATE_PEER_PYTHON to another one)" >&2
    exit 1
fi

mkdir -p "$root/.peers"
test -x "$venv/bin/python" || "$python" -m venv "$venv"
# shellcheck disable=SC2086 # two words on purpose
timeout 300 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $wanted
"$venv/bin/python" -c "from acnportal.algorithms import RoundRobin"
echo "$wanted" >"$stamp"
echo "acnportal: installed"
