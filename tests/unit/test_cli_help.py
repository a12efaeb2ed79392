"""The help of every group of commands says in whole sentences what each does, also on a narrow terminal."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from app.cli.main import app
from app.telemetry import registry
from regions.edge.software import software

ROOT = Path(__file__).parents[2]
TOP = get_command(app)
assert isinstance(TOP, TyperGroup)
GROUPS = ["", *(name for name, command in TOP.commands.items() if isinstance(command, TyperGroup))]


@pytest.mark.parametrize("group", GROUPS)
def test_no_sentence_is_cut(group: str) -> None:
    shown = CliRunner().invoke(app, [group, "-h"] if group else ["-h"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    listed = shown.stdout.partition("Commands:")[2].splitlines()
    assert listed
    assert not [line for line in listed if line.endswith("...") or len(line) > 80]


def test_the_version_is_that_of_the_project() -> None:
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, f"voxplane {said}\n")
    assert software() == said, "what an edge says of itself when it registers"
    assert f'voxplane_build_info{{version="{said}"}} 1.0' in generate_latest(registry).decode()


def test_an_interruption_while_modules_are_read_is_no_traceback(tmp_path: Path) -> None:
    """`typer` stands for them: here it is interrupted in its first line."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from app.cli.entry import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
