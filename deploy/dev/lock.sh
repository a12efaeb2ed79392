#!/bin/sh
# Resolves both lock files: hashes, no addresses, for every Python from 3.11 on. Needs uv, or gets it for itself.
# What is locked stays as it is where it still fits; UPGRADE=1 takes the newest of everything.
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if command -v uv >/dev/null 2>&1; then
    uv=uv
else
    "${PYTHON:-python3}" -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet uv
    uv="$work/venv/bin/uv"
fi
# our own client library is installed from this checkout: it is not to be resolved
sed -e '/"voxplane>=/d' pyproject.toml >"$work/pyproject.toml"
root=$(pwd)
if [ -z "${UPGRADE:-}" ]; then
    cp requirements.lock requirements-dev.lock "$work/"
fi
cd "$work"
options="--quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate"
extras="--extra control --extra engines --extra ha --extra demo --extra voice --extra webrtc --group models"
$uv pip compile $options $extras --group build pyproject.toml -o requirements.lock
$uv pip compile $options $extras --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock
cp requirements.lock requirements-dev.lock "$root/"
