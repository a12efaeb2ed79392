"""What makes the environment (`deploy/dev/bootstrap.sh`) leaves those of other folders alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "dev" / "bootstrap.sh"


@pytest.mark.parametrize("kind", ["runtime", "dev"])
def test_an_environment_that_is_a_link_is_another_folders(tmp_path: Path, kind: str) -> None:
    other, here = tmp_path / "other" / ".venv", tmp_path / "here"
    other.mkdir(parents=True)
    (other / "kept").write_text("")
    (here / "deploy" / "dev").mkdir(parents=True)
    shutil.copy(SCRIPT, here / "deploy" / "dev")
    (here / ".venv").symlink_to(other)
    done = subprocess.run(
        ["sh", str(here / "deploy" / "dev" / SCRIPT.name), kind],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "PYTHON": "false"},
    )
    assert done.returncode == 1
    assert f"is a symbolic link, to {other}" in done.stderr
    assert "rm .venv" in done.stderr
    assert [f.name for f in other.iterdir()] == ["kept"]
    assert (here / ".venv").is_symlink()
