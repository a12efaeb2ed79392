"""``voxplane privacy``: how long a project's data are kept, and what is taken out before it is stored.

Decides how settings are written on a command line and what is printed; what a rule may be is the API's to say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.listing import Listing
from app.cli.run import client, fail, run
from app.cli.show import JsonFlag, ask, fields, table

NONE = "none"
DAYS = ("conversation_days", "personal_days", "deliveries_days", "audit_days")

privacy_app = typer.Typer(
    cls=Listing,
    help="How long data are kept, and what is taken out of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@privacy_app.command("show")
def show(json_: JsonFlag = False) -> None:
    """Show the project's settings.

    \b
    Example:
      voxplane privacy show --json
    """
    ask("GET", "/v1/privacy", json_=json_, shown=_shown)


@privacy_app.command("set")
def set_(
    days: Annotated[
        list[str] | None,
        typer.Argument(help="conversation_days=30", metavar="NAME=DAYS…", show_default=False),
    ] = None,
    redaction: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with the rules, all of them; `-`: from the input.",
            dir_okay=False,
            allow_dash=True,
        ),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Change how long data are kept, or what is struck out. What is not named stays; `none` takes a limit away.

    \b
    The names:
      conversation_days, personal_days, deliveries_days, audit_days

    \b
    Examples:
      voxplane privacy set conversation_days=30 personal_days=60
      echo '[{"name": "card", "kind": "card"}]' | voxplane privacy set --redaction -
      echo '[]' | voxplane privacy set --redaction -
    """
    change = dict(_read(text) for text in days or [])
    rules = _rules(redaction) if redaction is not None else None
    if not change and rules is None:
        raise fail("name what is to change: NAME=DAYS, or --redaction FILE", 2)

    async def work() -> None:
        async with client() as api:
            before = await api.request("GET", "/v1/privacy")
            body: dict[str, Any] = {}
            if change:
                kept = before["retention"] | change
                body["retention"] = {name: value for name, value in kept.items() if value is not None}
            if rules is not None:
                body["redaction"] = rules
            found = await api.request("PATCH", "/v1/privacy", body, if_match=str(before["version"]))
        typer.echo(json.dumps(found) if json_ else _shown(found))

    run(work)


def _read(text: str) -> tuple[str, int | None]:
    name, equals, value = text.partition("=")
    if not equals or name not in DAYS:
        raise fail(f"{text!r} is not known: write NAME=DAYS with one of {', '.join(DAYS)}", 2)
    if value == NONE:
        return name, None
    if not (value.isascii() and value.isdigit()):
        raise fail(f"{name}: {value!r} is not a number of days, nor `none`", 2)
    return name, int(value)


def _rules(path: Path) -> Any:
    try:
        text = typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text()
        return json.loads(text)
    except OSError as error:
        raise fail(f"--redaction: {error}", 2) from None
    except ValueError as error:
        raise fail(f'--redaction is JSON like [{{"name": "card", "kind": "card"}}]: {error}', 2) from None


def _shown(found: dict[str, Any]) -> str:
    kept = {name: found["retention"].get(name) for name in DAYS}
    lines = [fields({n: "as long as the deployment keeps it" if v is None else v for n, v in kept.items()})]
    if found["redaction"]:
        lines.append("struck out:\n" + table(found["redaction"], "name", "kind", "min", "pattern"))
    else:
        lines.append("nothing is struck out")
    return "\n".join(lines)
