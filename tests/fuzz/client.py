"""Schemathesis as a process of its own, which ends within a bound whatever happens to it.

One that hangs says where: its threads and the requests that the instance has in hand go to stderr, with the operation that was
asked last. What it prints is shown at the end, except to a person: a reader that does not read would stop it in the middle.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.tally import Fault, Tally, whose

STUCK = 75
"""As in `tests.fuzz.hooks`."""
DUMP_S = 5.0
"""So long its threads may take to be shown. A request that is answered meanwhile: it is slow, and does not hang."""
ENDS_S = 5.0
SAYS = {
    Fault.SERVER: "the instance leaves it without an answer",
    Fault.CLIENT: "the instance waits for a request, and Schemathesis sends none: nothing is known of the instance",
    Fault.NOBODY: "it went on, too slowly: nothing is known of the instance",
}
SERVES = ("run_asgi",)
"""What the tasks of the server that have a request in hand run."""


@dataclass(frozen=True, slots=True)
class Ended:
    """`code`: as the process ended by itself. `hung`: whose fault it is that it did not."""

    code: int
    hung: Fault | None
    tally: Tally


async def run(
    command: list[str],
    environment: dict[str, str],
    folder: Path,
    journal: Path,
    bound_s: float,
    answers: Callable[[], Awaitable[bool]],
) -> Ended:
    """`folder`: where it runs. `answers`: whether the instance answers somebody else."""
    shown = None if sys.stdout.isatty() else folder / "output"
    with nullcontext() if shown is None else shown.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=os.environ | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    hung, went_on = None, False
    try:
        try:
            async with asyncio.timeout(bound_s):
                code = await process.wait()
        except TimeoutError:
            code = -1
            sys.stderr.write(f"\nfuzz: not over after {bound_s:.0f} s\n")
            process.send_signal(signal.SIGUSR1)  # its threads
            went_on = await _goes_on(journal)
        if code in (-1, STUCK):
            hung = whose(went_on=went_on, serving=_serving(), answers=await answers())
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(ENDS_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
    if shown is not None:
        sys.stdout.write(shown.read_text(errors="replace"))
        sys.stdout.flush()
    tally = Tally.of(journal.read_text().splitlines() if journal.exists() else [])
    if hung is not None:
        sys.stderr.write(f"fuzz: it was at {tally.last or 'no request'}; {SAYS[hung]}\n")
    return Ended(code, hung, tally)


async def _goes_on(journal: Path) -> bool:
    """Whether something is written there within a while."""

    def size() -> int:
        return journal.stat().st_size if journal.exists() else 0

    before = size()
    try:
        async with asyncio.timeout(DUMP_S):
            while size() == before:
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True


def _serving() -> int:
    """How many requests the instance, which runs in this loop, is at work on. Prints where each of them waits."""
    found = 0
    for task in asyncio.all_tasks():
        if getattr(task.get_coro(), "__name__", "") in SERVES:
            found += 1
            sys.stderr.write(
                f"fuzz: the instance has a request in hand: {' > '.join(_awaits(task.get_coro()))}\n"
            )
    return found


def _awaits(coroutine: Any) -> Iterator[str]:
    """From the outermost to what is waited for."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
        coroutine = coroutine.cr_await
