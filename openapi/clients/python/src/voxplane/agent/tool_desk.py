"""Runs the tools that a model asks for, each once, and writes them into the call's log.

Decides whether one may run: with an effect only once its intent is durable, not where its result is known already, and not where
an earlier try with an unknown end may have run. A tool that has begun is let end, also when nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from voxplane.agent.history import History
from voxplane.agent.line import Line
from voxplane.agent.parts import Json, Tool, ToolCall, ToolFailed, ToolUse

ACK_WITHIN_S = 2.0
ID_CHARS_MAX = 256
JSON_BYTES_MAX = 32 * 1024
RUNNING_MAX = 16

UNKNOWN_TOOL = "there is no such tool"
NO_ARGUMENTS = "its arguments cannot be passed on"
TOO_MANY = "too many tools are running"
BAD_KEY = "the tool's key has a form that is not allowed, so it was not run"
NOT_DURABLE = "the call's log did not answer, so it was not run"
MAY_HAVE_RUN = "it was called before, and whether it ran is not known; it was not run again"
TOO_LONG = "its result is known, but too long to be had here"
WITHDRAWN = "the caller spoke before it began, so it was not run"
FAILED = "it failed"
TOO_SLOW = "it took too long; whether it had its effect is not known"
NO_JSON = "it gave a result that cannot be passed on"


class NotRun(Exception):
    """A tool that did not run; the text is for the model."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the edge says to a `tool.called`. `cached`: `result` is known, and the tool is not to run."""

    cached: bool = False
    result: Json = None
    again: bool = False


class Use:
    """One tool that was called. `begun`: it may have had its effect. `over`: its end is in the history."""

    def __init__(self, id_: str, tool: Tool, key: str | None) -> None:
        self.id = id_
        self.tool = tool
        self.key = key
        self.begun = self.over = False
        self.answer: asyncio.Future[Known] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        """Set right after it was made."""


class ToolDesk:
    """One socket's. `failed` is told of every error that a tool raised. `first`: the call had no backend before."""

    def __init__(
        self,
        tools: Sequence[Tool],
        history: History,
        line: Line,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        failed: Callable[[str, Exception], None],
        *,
        first: bool,
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._history = history
        self._line = line
        self._spawn = spawn
        self._failed = failed
        self._first = first
        self._uses: dict[str, Use] = {}
        self._by_key: dict[str, Use] = {}
        self._untouched: set[str] = set()

    def call(self, wanted: ToolCall) -> Use | None:
        """Begins it; its end is in the history. None where it ended at once. The same key as one that runs: it is joined to that."""
        id_ = self._name(wanted)
        arguments = dict(wanted.arguments)
        self._history.tool(ToolUse(id_, wanted.name, arguments))
        tool = self._tools.get(wanted.name)
        if tool is None:
            self._not_run(id_, UNKNOWN_TOOL)
            return None
        if not _speakable(arguments):
            self._not_run(id_, NO_ARGUMENTS)
            return None
        if len(self._uses) >= RUNNING_MAX:
            self._not_run(id_, TOO_MANY)
            return None
        try:
            key = tool.key(arguments) if tool.key is not None else None
        except Exception as error:  # noqa: BLE001  a tool's own code, contained to its call
            self._failed(tool.name, error)
            self._not_run(id_, FAILED)
            return None
        same = self._by_key.get(key) if key is not None else None
        use = Use(id_, tool, key)
        if key is not None and same is None:
            self._by_key[key] = use
        self._uses[use.id] = use
        use.task = self._spawn(self._join(use, same) if same is not None else self._run(use, arguments))
        use.task.add_done_callback(lambda task: self._over(use, cancelled=task.cancelled()))
        return use

    def withdraw(self, use: Use) -> None:
        """Nobody waits for it: it ends what it has begun, unless it may be interrupted."""
        if use.task is not None and not use.over and (not use.begun or use.tool.interruptible):
            use.task.cancel()
            self._over(use, cancelled=True)

    async def idle(self) -> None:
        """Returns once none of those that run now does; their own limits bound it."""
        running = [use.task for use in self._uses.values() if use.task is not None]
        await asyncio.gather(*running, return_exceptions=True)

    def told(self, type_: str, data: dict[str, Any]) -> None:
        """`ack`, `tool.cached` and `refused`."""
        use = self._uses.get(str(data.get("id", "")))
        if use is None or use.answer.done():
            return
        if type_ == "tool.cached" and data.get("truncated") is True:
            use.answer.set_exception(NotRun(TOO_LONG))
        elif type_ == "tool.cached":
            use.answer.set_result(Known(cached=True, result=data.get("result")))
        elif type_ == "ack":
            use.answer.set_result(Known(again=data.get("again") is True))
        elif data.get("type") == "tool.called":
            use.answer.set_exception(NotRun(BAD_KEY))

    def _name(self, wanted: ToolCall) -> str:
        if wanted.id and len(wanted.id) <= ID_CHARS_MAX and wanted.id not in self._uses:
            return wanted.id
        return f"{wanted.name[:64]}-{secrets.token_hex(6)}"

    def _not_run(self, id_: str, why: str) -> None:
        self._history.done(id_, {"error": why})

    def _over(self, use: Use, *, cancelled: bool) -> None:
        """Here and not in the task, which does nothing more where it is cancelled before its first step."""
        if use.over:
            return
        use.over = True
        del self._uses[use.id]
        if use.key is not None and self._by_key.get(use.key) is use:
            del self._by_key[use.key]
        if cancelled:
            self._not_run(use.id, FAILED if use.begun else WITHDRAWN)
            self._not_touched(None if use.begun else use.key)
        if use.answer.done() and not use.answer.cancelled():
            use.answer.exception()

    def _not_touched(self, key: str | None) -> None:
        """It is called again by this very backend, and has not run. Where the call had another one before, that may have run it."""
        if key is not None and self._first:
            self._untouched.add(key)

    async def _join(self, use: Use, same: Use) -> None:
        assert same.task is not None
        await asyncio.wait([same.task])
        result = next(
            (e.result for e in self._history.entries if isinstance(e, ToolUse) and e.id == same.id), None
        )
        self._history.done(use.id, result)

    async def _run(self, use: Use, arguments: dict[str, Any]) -> None:
        tool, key = use.tool, use.key
        keyed: dict[str, Any] = {"key": key} if key is not None else {}
        self._line.text("tool.called", {"id": use.id, "name": tool.name, "arguments": arguments} | keyed)
        try:
            known = await self._allowed(use)
        except NotRun as why:
            self._not_run(use.id, str(why))
            return
        if known.cached:
            self._history.done(use.id, known.result)
            return
        use.begun = True
        result = await self._result(tool, arguments, key)
        self._history.done(use.id, result.told)
        if result.logged:
            self._line.text("tool.result", {"id": use.id, "name": tool.name, "result": result.told} | keyed)

    async def _allowed(self, use: Use) -> Known:
        """Raises `NotRun`."""
        if not use.tool.effect:
            return Known()
        try:
            async with asyncio.timeout(ACK_WITHIN_S):
                known = await use.answer
        except TimeoutError:
            self._not_touched(use.key)
            raise NotRun(NOT_DURABLE) from None
        if known.again and not use.tool.repeatable and use.key not in self._untouched:
            raise NotRun(MAY_HAVE_RUN)
        return known

    async def _result(self, tool: Tool, arguments: dict[str, Any], key: str | None) -> _Result:
        """An error is written into the log as the result where there is no key, under which it would be found again for ever."""
        logged = key is None
        try:
            async with asyncio.timeout(tool.timeout_s):
                result = await tool.run(arguments)
        except TimeoutError as error:
            self._failed(tool.name, error)
            return _Result({"error": TOO_SLOW}, logged)
        except ToolFailed as error:
            if key is not None:
                self._untouched.add(key)
            return _Result({"error": str(error)}, logged)
        except Exception as error:  # noqa: BLE001  a tool's own code, contained to its call
            self._failed(tool.name, error)
            return _Result({"error": FAILED}, logged)
        if not _speakable(result):
            self._failed(tool.name, ValueError("a result that is no JSON, or more than 32 KiB of it"))
            return _Result({"error": NO_JSON}, logged)
        return _Result(result, logged=True)


def _speakable(value: object) -> bool:
    try:
        return len(json.dumps(value, allow_nan=False)) <= JSON_BYTES_MAX
    except (TypeError, ValueError, RecursionError):
        return False


@dataclass(frozen=True, slots=True)
class _Result:
    told: Json
    logged: bool
