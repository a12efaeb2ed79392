"""How the help of a group lists its commands: each with its whole first sentence, wrapped. The toolkit cuts it at the terminal's
width, and half a sentence says nothing."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

SENTENCE_MAX = 1_000


class Listing(TyperGroup):
    """The class of every group of commands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (n, c.get_short_help_str(SENTENCE_MAX)) for n, c in commands if c is not None and not c.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
