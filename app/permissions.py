"""Which role may ask for which route: read from the handlers themselves, so that the page says what the code does.

Decides who a route is for (a project's key, the platform's operators, whoever carries another credential, anyone) by what its
handler asks for, and which permission it needs by the `require` that it calls.
A test walks every route with every role and finds it so.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from litestar import Litestar
from litestar.routes import HTTPRoute, WebSocketRoute

from app.projects.roles import ROLE_SCOPES, SCOPES

Kind = Literal["key", "operator", "other"]
OTHER = {
    "renewTicket": "the call's own ticket",
    "registerEdge": "an enrolment token, or the edge's own",
    "/edge/v1/uplink": "the edge's own token",
    "jwks": "anyone",
    "health": "anyone",
    "readiness": "anyone",
    "metrics": "anyone",
}
"""Routes for which neither a key nor the operator's is asked, and whom they are for: a new one is to be thought about."""
SCHEMA_FREE = ("/openapi", "/console")
DEPTH = 3
HEAD = """# Who may ask for what

Written from the code (`make openapi`); a test asks every route with every role and compares. What a role is for, and how keys are
narrowed, stands in [keys and roles](keys-and-roles.md). A thing of another project is 404 for a role that may do what is asked, and
one that may not is told 403 whatever it names: neither says whether the thing exists.

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """`scopes`: all of them are needed; none: any key of a project will do. `operation`: of the OpenAPI document; the path where
    it is none of it."""

    method: str
    path: str
    operation: str
    kind: Kind
    scopes: tuple[str, ...]

    def roles(self) -> list[str]:
        return [
            role for role, may in ROLE_SCOPES.items() if self.kind == "key" and may.issuperset(self.scopes)
        ]


def routes(app: Litestar) -> list[Route]:
    """By path and method; without the pages of the console and the framework's own."""
    found = []
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if handler.include_in_schema is not False and not route.path.startswith(SCHEMA_FREE):
                    found += [
                        _route(str(m), route.path_format, handler.fn, str(handler.operation_id))
                        for m in handler.http_methods
                        if m != "OPTIONS"
                    ]
        elif isinstance(route, WebSocketRoute):
            found.append(_route("WS", route.path_format, route.route_handler.fn, route.path_format))
    return sorted(found, key=lambda r: (r.path, r.method))


def _route(method: str, path: str, handler: Callable[..., Any], operation: str) -> Route:
    asks = inspect.signature(handler).parameters
    scopes = tuple(dict.fromkeys(scope for scope in _required(handler, DEPTH) if scope in SCOPES))
    kind: Kind = "operator" if "operator" in asks else "key" if "principal" in asks or scopes else "other"
    return Route(
        method=method, path=path, operation=operation, kind=kind, scopes=scopes if kind == "key" else ()
    )


def _required(function: Callable[..., Any], depth: int) -> Iterator[str]:
    """The scopes that it, or a function of its module that it calls, requires."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("require", "_asking"):
            yield from (str(a.value) for a in node.args if isinstance(a, ast.Constant))
        elif depth and isinstance(node.func, ast.Name):
            called = getattr(function, "__globals__", {}).get(name)
            if inspect.isfunction(called) and called.__module__ == function.__module__:
                yield from _required(called, depth - 1)


def reference(app: Litestar) -> str:
    """``docs/reference/permissions.md``."""
    roles = list(ROLE_SCOPES)[::-1]
    lines = ["## A project's", "", "| route | operation | needs | " + " | ".join(roles) + " |"]
    lines.append("|---|---|---|" + "---|" * len(roles))
    all_ = routes(app)
    for r in all_:
        if r.kind == "key":
            may = r.roles()
            marks = " | ".join("yes" if role in may else "" for role in roles)
            needs = ", ".join(f"`{s}`" for s in r.scopes) or "any key"
            lines.append(f"| `{r.method} {r.path}` | `{r.operation}` | {needs} | {marks} |")
    lines += [
        "",
        "## The platform's operators'",
        "",
        "With the operator key. A project's key is answered 403.",
        "",
    ]
    lines += ["| route | operation |", "|---|---|"]
    lines += [f"| `{r.method} {r.path}` | `{r.operation}` |" for r in all_ if r.kind == "operator"]
    lines += ["", "## Others'", "", "| route | operation | for |", "|---|---|---|"]
    lines += [
        f"| `{r.method} {r.path}` | `{r.operation}` | {OTHER.get(r.operation, '**nobody has said**')} |"
        for r in all_
        if r.kind == "other"
    ]
    return HEAD + "\n".join(lines) + "\n"
