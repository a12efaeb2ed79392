"""How commands ask one route and show what it answers: as JSON, as a table, or field by field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.run import client, operator, run

if TYPE_CHECKING:
    from voxplane import AsyncClient

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="So many at most.")]
PAGE_MAX = 200
Shown = Callable[[Any], str]


def ask(
    method: str,
    path: str,
    body: Any = None,
    *,
    json_: bool,
    shown: Shown | None = None,
    params: dict[str, Any] | None = None,
    platform: bool = False,
    idempotency_key: str | None = None,
    if_match: str | None = None,
) -> None:
    """`shown`: what people read; field by field where it is left out. `platform`: with the operator's key."""

    async def work() -> None:
        async with api_of(platform) as api:
            answer = await api.request(
                method, path, body, params=params, idempotency_key=idempotency_key, if_match=if_match
            )
        typer.echo(json.dumps(answer) if json_ else (shown or fields)(answer))

    run(work)


def ask_list(
    path: str,
    *columns: str,
    json_: bool,
    limit: int = PAGE_MAX,
    params: dict[str, Any] | None = None,
    platform: bool = False,
    behind: str = "cursor",
) -> None:
    """All pages, up to `limit`; `columns` of each. `behind`: the parameter that takes the page's `next_cursor`."""

    async def work() -> None:
        found: list[Any] = []
        async with api_of(platform) as api:
            asked = dict(params or {})
            while len(found) < limit:
                page = await api.request("GET", path, params=asked)
                found += page["data"]
                asked[behind] = page.get("next_cursor")
                if asked[behind] is None:
                    break
        typer.echo(json.dumps(found[:limit]) if json_ else table(found[:limit], *columns))

    run(work)


def api_of(platform: bool) -> AsyncClient:
    return operator() if platform else client()


def say(text: str) -> Shown:
    return lambda _: text


def table(rows: list[Any], *columns: str) -> str:
    """`a.b` reaches into an object. A dash where there is nothing."""
    lines = [[_cell(row, column) for column in columns] for row in rows]
    if not lines:
        return "nothing"
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def fields(value: Any) -> str:
    if not isinstance(value, dict):
        return "done" if value is None else str(value)
    width = max((len(name) for name in value), default=0)
    return "\n".join(f"{name:<{width}}  {_text(found)}" for name, found in value.items() if found is not None)


def _cell(row: Any, column: str) -> str:
    for name in column.split("."):
        row = row.get(name) if isinstance(row, dict) else None
    return "–" if row is None or row == "" else _text(row)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
