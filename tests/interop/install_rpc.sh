#!/bin/sh
# Installs the foreign station library ocpp-rpc into .peers/rpc. Idempotent; gives up after five minutes.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
folder="$root/.peers/rpc"
wanted="ocpp-rpc@2.2.1"
stamp="$folder/.installed"

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "ocpp-rpc: already there"
    exit 0
fi

if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    echo "ocpp-rpc: needs node (20 or newer) and npm" >&2
    exit 1
fi

mkdir -p "$folder"
cd "$folder"
test -f package.json || echo '{"private": true, "name": "gridgate-peer-rpc"}' >package.json
timeout 300 npm install --silent --no-audit --no-fund --ignore-scripts --save-exact "$wanted"
node -e 'require("ocpp-rpc").RPCClient'
echo "$wanted" >"$stamp"
echo "ocpp-rpc: installed"
