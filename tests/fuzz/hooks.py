"""What Schemathesis loads into its own process: a journal of its requests, a deadline for each, and requests that are in the state
that an operation needs.

Runs where nothing of ours is installed; `GIVEN` names a file that says the rest. Decides nothing about what is right.

- *Journal*: a line when a request goes out and one when it was answered. Whoever reads it knows what was asked last.
- *Deadline*: `requests` bounds only how long nothing comes. A request that takes longer in all has its connection shut down, which is
  a failure of its operation; where that helps nothing, it is not the server that is waited for: `STUCK` ends the process. It holds
  for what Schemathesis asks on its own account too.
- *Scenes*: one request for each operation that ought to be answered well, as its first example.
- *Places*: most requests whose path and body are right name what exists, so that what is behind it is looked at too.
- *Versions*: `If-Match` says what is there now, so that the body behind it is looked at.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import requests
import schemathesis
import urllib3.connection
import urllib3.connectionpool
import urllib3.poolmanager
from schemathesis.core.parameters import ParameterLocation

GIVEN = "VOXPLANE_FUZZ_GIVEN"
STUCK = 75
"""EX_TEMPFAIL. The process ends so once a request outlives its connection."""
GRACE_S = 10.0
LOOK_S = 0.25
FETCH_S = 10.0
SHOWN = 200
ELSEWHERE_EVERY = 5
"""So often a path keeps the ids that were generated."""

given: dict[str, Any] = json.loads(Path(os.environ[GIVEN]).read_text())
journal = Path(given["journal"]).open("a", buffering=1)  # noqa: SIM115 — as long as the process
turns = itertools.count()
began: dict[int, float] = {}
operation_of: dict[int, str] = {}
"""By thread: what is asked for, and was asked for before. Nothing is known of what Schemathesis asks on its own account."""


class _Request:
    """No dataclass: this module is in no list of modules, which one looks itself up in."""

    def __init__(self, connection: urllib3.connection.HTTPConnection, what: str) -> None:
        self.connection, self.what = connection, what
        self.since = time.monotonic()
        self.cut = False


requests_in_hand: dict[int, _Request] = {}
"""By their connection's identity, from the first byte sent to the last read."""


class _Watched(urllib3.connection.HTTPConnection):
    def request(self, method: str, url: str, *more: Any, **named: Any) -> None:
        what = f"{operation_of.get(threading.get_ident(), 'no operation')} ({method} {url[:SHOWN]})"
        requests_in_hand[id(self)] = _Request(self, what)
        super().request(method, url, *more, **named)

    def close(self) -> None:
        requests_in_hand.pop(id(self), None)
        super().close()


class _WatchedPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _Watched

    def _put_conn(self, connection: Any) -> None:
        requests_in_hand.pop(id(connection), None)
        super()._put_conn(connection)


urllib3.poolmanager.pool_classes_by_scheme["http"] = _WatchedPool


def _write(**line: Any) -> None:
    journal.write(json.dumps(line) + "\n")


def _operation(case: Any) -> str:
    found = case.operation.definition.raw.get("operationId")
    return str(found or case.operation.label)


def _expected(case: Any) -> bool:
    """Whether it is asked with the method of its operation."""
    return str(case.method).lower() == str(case.operation.method).lower()


# ------------------------------------------------------------------------------------------------------------------ deadline


def _watch() -> None:
    while True:
        time.sleep(LOOK_S)
        for one in list(requests_in_hand.values()):
            over = time.monotonic() - one.since - given["request_s"]
            if over > GRACE_S:
                _show(f"{one.what} goes on {GRACE_S:.0f} s after its connection was shut down")
                _write(stuck=one.what)
                os._exit(STUCK)
            if over > 0 and not one.cut:
                one.cut = True
                _show(f"{one.what} took longer than {given['request_s']:.0f} s in all")
                _write(late=one.what)
                with contextlib.suppress(OSError, AttributeError):  # it is closed
                    one.connection.sock.shutdown(socket.SHUT_RDWR)


def _show(what: str) -> None:
    sys.stderr.write(f"\nfuzz: {what}\n")
    faulthandler.dump_traceback(all_threads=True)


faulthandler.register(signal.SIGUSR1, all_threads=True)
threading.Thread(target=_watch, name="deadline", daemon=True).start()


# ------------------------------------------------------------------------------------------------------------------- journal


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    _name_what_exists(case)
    _say_version(case)
    operation = _operation(case)
    operation_of[threading.get_ident()] = operation
    began[threading.get_ident()] = time.monotonic()
    _write(asked=operation, method=case.method, path=case.formatted_path)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    since = began.get(threading.get_ident(), time.monotonic())
    _write(
        answered=_operation(case),
        status=response.status_code,
        meant=_expected(case),
        took_s=round(time.monotonic() - since, 3),
        code=_code(response),
    )


def _code(response: Any) -> str:
    """Of a problem, with the first place that it points to."""
    if response.status_code < 400:
        return ""
    try:
        said = json.loads(response.content)
        return " ".join([str(said["code"]), *(fault["pointer"] for fault in said.get("errors", ())[:1])])
    except (ValueError, TypeError, LookupError):
        return "?"


@schemathesis.hook
def after_network_error(context: Any, case: Any, request: Any) -> None:
    _write(failed=_operation(case))


# -------------------------------------------------------------------------------------------------------------------- scenes


@schemathesis.hook
def before_add_examples(context: Any, examples: list[Any]) -> None:
    operation = context.operation
    scenes = given["scenes"].get(operation.definition.raw.get("operationId"), ())
    for scene in scenes:
        more = {}
        if "body" in scene:
            more = {"body": scene["body"], "media_type": scene["media_type"]}
        examples.append(
            operation.Case(
                path_parameters=dict(scene["path"]),
                query=dict(scene["query"]),
                headers=dict(scene["headers"]),
                **more,
            )
        )


# -------------------------------------------------------------------------------------------------------- places and versions


def _right(case: Any, location: ParameterLocation) -> bool:
    """Whether nothing is wrong there on purpose."""
    if not _expected(case):
        return False
    part = None if case.meta is None else case.meta.components.get(location)
    return part is None or bool(part.mode.is_positive)


def _name_what_exists(case: Any) -> None:
    turn = next(turns)
    if case.meta is None or turn % ELSEWHERE_EVERY == 0 or not _expected(case):
        return
    if _operation(case) not in given["spends"] and _right(case, ParameterLocation.PATH):
        for name in set(case.path_parameters) & set(given["known"]):
            values = given["known"][name]
            case.path_parameters[name] = values[turn % len(values)]
    if isinstance(case.body, dict) and _right(case, ParameterLocation.BODY):
        case.body = _fitted(case.body, turn)


def _fitted(value: Any, turn: int, within: str = "") -> Any:
    """With values that a schema cannot tell of: they are of a form, or exist. All else stays as it was drawn."""
    if isinstance(value, list):
        return [_fitted(inner, turn, within) for inner in value]
    if not isinstance(value, dict):
        return value
    fitted = {}
    for name, inner in value.items():
        values = given["fits"].get(f"{within}.{name}") or given["fits"].get(name)
        if values is not None and isinstance(inner, type(values[0])):
            fitted[name] = values[turn % len(values)]
        else:
            fitted[name] = _fitted(inner, turn, name)
    return fitted


def _say_version(case: Any) -> None:
    """The version that is there now, where a version was to be said."""
    if not case.headers or "If-Match" not in case.headers or not _right(case, ParameterLocation.HEADER):
        return
    authorization = next((a for prefix, a in given["authorization"] if case.path.startswith(prefix)), None)
    try:
        shown = requests.get(
            given["url"] + case.formatted_path, headers={"Authorization": authorization}, timeout=FETCH_S
        )
    except requests.RequestException:
        return
    if "ETag" in shown.headers:
        case.headers["If-Match"] = shown.headers["ETag"]
