"""Where Schemathesis is installed: a folder of its own under build/, from `requirements.lock`, with hashes and without an address.

To resolve the lock anew: `uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
requirements.in -o requirements.lock`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.interop.environment import Missing, done, run, stands

__all__ = ["Missing", "schemathesis"]

HERE = Path(__file__).parent
LOCK = HERE / "requirements.lock"


def schemathesis() -> Path:
    """The program. Raises `Missing`. `VOXPLANE_FUZZ` names another folder than build/fuzz."""
    venv = Path(os.environ.get("VOXPLANE_FUZZ") or HERE.parents[1] / "build" / "fuzz") / "venv"
    if not stands(venv, LOCK):
        shutil.rmtree(venv, ignore_errors=True)
        venv.parent.mkdir(parents=True, exist_ok=True)
        run(sys.executable, "-m", "venv", str(venv))
        run(
            str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
            "--require-hashes", "-r", str(LOCK),
        )  # fmt: skip
        done(venv, LOCK)
    return venv / "bin" / "schemathesis"
