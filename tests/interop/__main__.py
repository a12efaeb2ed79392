"""`make interop`: installs the programs of others, calls each of them through a whole deployment, and says what came of it.

ONLY=teler runs one. 0: all that ran have passed; without a network nothing is run, which is said, and is a failure only with
REQUIRE=1.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
import traceback

from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from tests.interop.environment import ROOT, Environment, Missing, environment
from tests.interop.proofs import NEEDS_NODE, PROOFS, Ground
from voxplane import AsyncClient

WITHIN_S = 180.0


async def run(made: Environment, wanted: list[str]) -> int:
    folder, failed = temporary_folder("voxplane-interop"), 0
    log = ROOT / "build" / "interop-bots.log"
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    try:
        async with Deployment(folder, places=PLACES[:2], instances=1, fsync=False, webrtc=True) as running:
            project, key = await running.create_project("interop")
            async with AsyncClient(running.api_urls, key) as client:
                ground = Ground(made, running, client, running.api_urls[0], project, key, log)
                for name in wanted:
                    failed += not await proved(name, ground)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if failed:
        print(f"what the programs said: {log}")
    return 1 if failed else 0


async def proved(name: str, ground: Ground) -> bool:
    if name in NEEDS_NODE and ground.environment.node is None:
        print(f"{name:16} SKIPPED: there is no node and npm here")
        return True
    began = time.monotonic()
    try:
        async with asyncio.timeout(WITHIN_S):
            await PROOFS[name](ground)
    except Exception:  # noqa: BLE001  the next program is tried all the same
        print(f"{name:16} FAILED")
        traceback.print_exc()
        return False
    print(f"{name:16} passed in {time.monotonic() - began:.0f} s", flush=True)
    return True


def main() -> int:
    only = os.environ.get("ONLY")
    if only and only not in PROOFS:
        print(f"ONLY is one of {', '.join(PROOFS)}")
        return 2
    try:
        made = environment()
    except Missing as missing:
        print(f"SKIPPED, all of it: {missing}")
        return 1 if os.environ.get("REQUIRE") == "1" else 0
    return asyncio.run(run(made, [only] if only else list(PROOFS)))


if __name__ == "__main__":
    sys.exit(main())
