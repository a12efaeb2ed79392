"""The command tree as a whole: every command explains itself, and whatever the API offers has one."""

from __future__ import annotations

from typing import Any

import pytest

from app.cli.covers import COMMANDS, NONE, WITHOUT_JSON, leaves
from app.export import document
from tests.support.cli import invoke

LEAVES = dict(leaves())


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_a_command_has_help_an_example_and_json(name: str) -> None:
    command: Any = LEAVES[name]
    takes = {option for parameter in command.params for option in parameter.opts}

    assert "Example" in (command.help or ""), "say how it is used"
    assert f"voxplane {name}" in command.help
    assert "--json" in takes or name in WITHOUT_JSON | NO_DOCUMENT, "machines read it too"
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{parameter.name} says nothing"


NO_DOCUMENT = {"audit export", "call"}
"""A file, a conversation that is printed as it goes on."""


def test_every_route_has_a_command_or_a_reason() -> None:
    operations = {o["operationId"] for found in document()["paths"].values() for o in found.values()}

    assert operations - set(COMMANDS) - set(NONE) == set(), "give it a command, or say why it has none"
    assert (set(COMMANDS) | set(NONE)) - operations == set(), "these routes are gone"
    assert set(COMMANDS.values()) <= set(LEAVES)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_are_completed(shell: str) -> None:
    env = {"bash": {"COMP_WORDS": "voxplane aud", "COMP_CWORD": "1"}}.get(
        shell, {"_TYPER_COMPLETE_ARGS": "voxplane aud", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    )
    done = invoke(**{"_VOXPLANE_COMPLETE": f"complete_{shell}", **env})
    assert "audit" in done.out, done
