"""Where the programs of others are installed: a folder of its own under build/, which is thrown away with it.

Made from `requirements.lock` and `bots/package-lock.json`, both with hashes and without an address: pip and npm take the registries
that they are set to. To resolve the former anew: `uv pip compile --universal --python-version 3.11 --generate-hashes --no-header
--no-annotate requirements.in -o requirements.lock`; the latter: `npm install --omit-lockfile-registry-resolved`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BOTS = HERE / "bots"
REQUIREMENTS = HERE / "requirements.lock"
NODE_FILES = ("package.json", "package-lock.json")
LINES_SHOWN = 6


class Missing(Exception):
    """Something could not be installed, most likely because there is no network; the text says what and why."""


@dataclass(frozen=True, slots=True)
class Environment:
    """`node`: the folder with `node_modules`; None where there is no Node here."""

    python: Path
    node: Path | None


def environment() -> Environment:
    """Raises `Missing`. `VOXPLANE_INTEROP` names another folder than build/interop."""
    folder = Path(os.environ.get("VOXPLANE_INTEROP") or ROOT / "build" / "interop")
    folder.mkdir(parents=True, exist_ok=True)
    return Environment(_python(folder / "venv"), _node(folder / "node"))


def _python(venv: Path) -> Path:
    python = venv / "bin" / "python"
    if not stands(venv, REQUIREMENTS):
        shutil.rmtree(venv, ignore_errors=True)
        run(sys.executable, "-m", "venv", str(venv))
        run(
            str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes",
            "-r", str(REQUIREMENTS),
        )  # fmt: skip
        done(venv, REQUIREMENTS)
    return python


def _node(folder: Path) -> Path | None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    lock = BOTS / "package-lock.json"
    if not stands(folder, lock):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in NODE_FILES:
            shutil.copy(BOTS / name, folder)
        run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder))
        done(folder, lock)
    # a module is looked for from where its program lies
    for program in BOTS.glob("*.mjs"):
        shutil.copy(program, folder)
    return folder


def stands(folder: Path, lock: Path) -> bool:
    stamp = folder / ".stamp"
    return stamp.is_file() and stamp.read_text() == _mark(lock)


def done(folder: Path, lock: Path) -> None:
    (folder / ".stamp").write_text(_mark(lock))


def _mark(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        last = "\n".join((ended.stdout + ended.stderr).splitlines()[-LINES_SHOWN:])
        raise Missing(f"{Path(command[0]).name} could not install what is needed:\n{last}")
