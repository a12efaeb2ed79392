#!/bin/sh
# The client's own tests, then the page and the console in a real Chromium, the console held to axe-core as well. Says so and goes on
# where node or chromium is missing.
set -eu
cd "$(dirname "$0")/../.."
sh deploy/dev/typescript.sh check
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
    echo "skipped: there is no chromium on this machine (apt-get install chromium); the page was not tried"
    exit 0
fi
if ! command -v npm >/dev/null; then
    echo "skipped: there is no npm on this machine, which brings axe-core; the pages were not tried"
    exit 0
fi
axe=build/axe
if ! [ -e "$axe/node_modules/axe-core/axe.min.js" ]; then
    mkdir -p "$axe"
    if ! npm install --prefix "$axe" --no-audit --no-fund --no-save --ignore-scripts --loglevel=error axe-core@4.14.1; then
        echo "axe-core could not be brought by npm, so the pages cannot be held to it: see what npm says above" >&2
        exit 1
    fi
fi
.venv/bin/python -m pytest -m browser tests/browser "$@"
cat build/browser.json
