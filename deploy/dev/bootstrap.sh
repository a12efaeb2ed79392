#!/bin/sh
# Makes .venv from the lock files, and does nothing when it stands already. $1: runtime or dev.
set -eu
cd "$(dirname "$0")/../.."
kind="$1"
venv=.venv
here=$(pwd -P)

say() { printf '%s\n' "$*" >&2; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    say "Voxplane needs Python 3.11 or newer; none was found."
    say "On Debian or Ubuntu: apt-get install python3 python3-venv. Another interpreter: make PYTHON=/path/to/python3 …"
    exit 1
}

# Through a link, another checkout's environment would be pointed at this code.
if [ -L "$venv" ]; then
    say "$here/$venv is a symbolic link, to $(readlink "$venv"): making an environment through it would change that one."
    say "Remove the link (rm $venv) and run make again for an environment of this folder's own, or run the linked one's"
    say "programs without make: PYTHONPATH=. $venv/bin/python -m pytest"
    exit 1
fi

# A stamp names what the environment was made from: the locks, the packages' descriptions, and this folder.
fingerprint() { # $1: lock
    cat "$1" pyproject.toml openapi/clients/python/pyproject.toml deploy/dev/bootstrap.sh | cksum | tr ' ' '-'
    printf '%s\n' "$here"
}

stands() { # $1: kind
    [ -f "$venv/.stamp-$1" ] && [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.stamp-$1")" = "$(fingerprint "$(lock_of "$1")")" ]
}

lock_of() { if [ "$1" = dev ]; then echo requirements-dev.lock; else echo requirements.lock; fi; }

# The development environment holds all that the runtime needs.
if stands "$kind" || { [ "$kind" = runtime ] && stands dev; }; then exit 0; fi

python=$(find_python)
if [ -x "$venv/bin/python" ] && ! "$venv/bin/python" -c "
import sys
sys.exit(sys.version_info < (3, 11) or sys.prefix != '$here/$venv')" >/dev/null 2>&1; then
    rm -rf "$venv"
fi
if [ ! -x "$venv/bin/pip" ]; then
    rm -rf "$venv"
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        rm -rf "$venv"
        say "Python cannot make a virtual environment here: its venv module is missing."
        say "On Debian or Ubuntu: apt-get install python3-venv (or python3.XX-venv for another python3.XX). Then run make again."
        exit 1
    fi
fi

# The lock names everything: whatever a package asks for besides (silero-vad: torch) is not wanted.
rm -f "$venv/.stamp-$kind"
lock=$(lock_of "$kind")
count=$(grep -c '^[A-Za-z0-9]' "$lock")
say "Installing $count packages into $venv (once; a minute or so) …"
log="$venv/install.log"
if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r "$lock" >"$log" 2>&1 ||
    ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation \
        -e . -e openapi/clients/python >>"$log" 2>&1; then
    say "The installation failed. The last lines of $log:"
    tail -n 15 "$log" >&2
    exit 1
fi
fingerprint "$lock" >"$venv/.stamp-$kind"
