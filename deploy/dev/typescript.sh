#!/bin/sh
# The client for browsers: `check` (types, tests, and that the edge's page is what its sources give) or `page` (write the page).
# Says so and does nothing where there is no node. What it installs is locked by hash and lies in the client's node_modules.
set -eu
cd "$(dirname "$0")/../../openapi/clients/typescript"
for tool in node npm; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: there is no $tool on this machine; the client for browsers was not checked"
        exit 0
    fi
done
stamp=node_modules/.installed
if ! [ -e "$stamp" ] || [ -n "$(find package-lock.json -newer "$stamp")" ]; then
    npm ci --no-audit --no-fund --ignore-scripts
    touch "$stamp"
fi
case "$1" in
check)
    rm -rf build dist
    npm run --silent build
    npm test --silent
    node scripts/page.mjs --check
    ;;
page) node scripts/page.mjs ;;
*)
    echo "usage: typescript.sh check|page" >&2
    exit 2
    ;;
esac
