"""What `voxplane up` does about processes that end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.local import up
from app.local.process import EngineError


class Ending:
    """A deployment in which something ends, and does not come back at once."""

    cluster = None

    def __init__(self, stop: asyncio.Event, *answers: Any) -> None:
        self._stop = stop
        self._answers = list(answers)

    async def mend(self, told: Callable[[str], None]) -> list[str]:
        answer = self._answers.pop(0)
        if not self._answers:
            self._stop.set()
        if isinstance(answer, Exception):
            raise answer
        for what in answer:
            told(what)
        return list(answer)


async def test_one_that_ends_again_before_it_is_ready_ends_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(up, "LOOK_EVERY_S", 0.0)
    stop = asyncio.Event()
    died = EngineError("died", "An API instance did not start: killed", "See the log.")
    away = httpx.ConnectError("nobody is there")
    await up._tend(Ending(stop, died, died, away, ["the edge of a"], []), stop)  # type: ignore[arg-type]
    assert capsys.readouterr().out.splitlines() == [
        f"  not started again yet: {died}",
        "  not started again yet: nobody is there",
        "  the edge of a ended; it was started again",
    ]
