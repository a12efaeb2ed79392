"""``python -m tests.chaos``: breaks a real deployment for ``MINUTES`` (10) and judges what everybody saw of it.

``SEED`` strikes the same faults again, ``CALLS`` (60) is how many calls stand at once, ``LOGS=1`` keeps what
the processes said. Exit code 1 where a rule was broken.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from pathlib import Path

import uvloop

from tests.chaos.run import Options, run

MINUTES = 10.0
CALLS = 60


def main() -> int:
    try:
        options = Options(
            seed=int(os.environ.get("SEED") or secrets.randbelow(1_000_000)),
            minutes=float(os.environ.get("MINUTES") or MINUTES),
            lines=int(os.environ.get("CALLS") or CALLS),
            keep_logs=os.environ.get("LOGS", "") not in ("", "0"),
            out=Path("build"),
        )
    except ValueError as error:
        sys.stderr.write(f"SEED, MINUTES and CALLS are numbers: {error}\n")
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return 1 if runner.run(run(options)) else 0
        except (asyncio.CancelledError, KeyboardInterrupt):
            return 130


if __name__ == "__main__":
    sys.exit(main())
