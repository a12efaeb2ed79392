"""What stands in the query of a request: pages, filters by metadata, and that every name in it is one that the route takes.

Decides what is refused. A name that nobody reads would be taken for a filter that works, so it is said; who may not ask is told
that first, which is why the look at the names follows the look at the key.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.datastructures import MultiDict
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.routes import HTTPRoute

from app.errors import BadRequest, FieldError, Invalid
from app.pointers import escaped

LIMIT_DEFAULT, LIMIT_MAX = 50, 200
FAULTS_MAX = 20
NAME_SHOWN_MAX = 64
METADATA = "metadata."
BY_METADATA = "by_metadata"
"""Of a route that takes `metadata.<name>` as well: ``get(…, by_metadata=True)``."""
TAKEN = "query_names"


class Paging(NamedTuple):
    """Of a list: where to go on, and how many at most were asked for."""

    cursor: str | None
    asked: int

    @property
    def limit(self) -> int:
        """Raises `BadRequest`."""
        return bounded(self.asked)


async def provide_paging(
    cursor: FromQuery[str | None] = None, limit: FromQuery[int] = LIMIT_DEFAULT
) -> Paging:
    return Paging(cursor, limit)


PagingIn = NamedDependency[Paging]


def bounded(limit: int) -> int:
    """Too much is clamped; less than one is an error."""
    if limit < 1:
        raise BadRequest("`limit` must be at least 1.", code="bad_limit", fix=f"Use 1 to {LIMIT_MAX}.")
    return min(limit, LIMIT_MAX)


def metadata_of(params: MultiDict[str]) -> dict[str, str]:
    """Raises `BadRequest` where a name is given twice: no call has two values for it."""
    found: dict[str, str] = {}
    for name, value in params.multi_items():
        if not name.startswith(METADATA):
            continue
        key = name.removeprefix(METADATA)
        if key in found:
            raise BadRequest(
                "A filter asks for one value of each name.",
                code="bad_filter",
                errors=[FieldError(pointer=f"/{escaped(name)}", detail="is given twice")],
                fix="Ask for each value by itself, or choose among the events yourself.",
            )
        found[key] = value
    return found


def learn_names(app: Litestar) -> None:
    """Each route learns what its handler and its dependencies read from the query: name → whether it may be repeated."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler, model in route.route_handler_map.values():
                handler.opt[TAKEN] = {p.field_alias: p.is_sequence for p in model.expected_query_params}


def check_names(request: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Raises `Invalid` for what the route does not take, and for what is given twice where one is read."""
    if not request.scope["query_string"]:
        return
    opt = request.route_handler.opt
    taken: dict[str, bool] = opt[TAKEN]
    given = [name for name, _ in request.query_params.multi_items()]
    if opt.get(BY_METADATA):
        given = [name for name in given if not name.startswith(METADATA)]
    allowed = [*sorted(taken), *([f"{METADATA}<name>"] if opt.get(BY_METADATA) else [])]
    faults = {n: "there is no such parameter" for n in given if n not in taken}
    faults |= {n: "is given twice" for n in given if taken.get(n) is False and given.count(n) > 1}
    if faults:
        raise Invalid(
            "The query is not one that this route takes.",
            code="bad_query",
            errors=[
                FieldError(pointer=f"/{escaped(name)}"[:NAME_SHOWN_MAX], detail=detail)
                for name, detail in sorted(faults.items())[:FAULTS_MAX]
            ],
            fix=f"It takes {', '.join(f'`{name}`' for name in allowed)}."
            if allowed
            else "Leave the query out.",
        )
