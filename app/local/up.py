"""``voxplane up``: a deployment that stays until it is told to stop, and remembers its data.

Decides what is printed, how it ends, and that a process which dies meanwhile is started again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from app.local.deployment import PLACES, Deployment
from app.settings import Settings, SettingsError, data_folder

PROFILE = "profile.json"
LOOK_EVERY_S = 0.5


def profile_path() -> Path:
    return data_folder(os.environ) / PROFILE


def read_profile() -> dict[str, Any]:
    """URLs and key of the newest `up` on this machine; empty where there is none."""
    try:
        found = json.loads(profile_path().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


async def up(*, regions: int, instances: int, port: int, ha: bool = False, cells: int = 1) -> None:
    """Until SIGINT or SIGTERM, also in the middle of the start. `ha`: a PostgreSQL of three servers. `cells`: so many of them, a
    server each.

    Raises `EngineError`, `NotReady` or `SettingsError`.
    """
    began = time.monotonic()
    folder = data_folder(os.environ).absolute()
    database_url, redis_urls = _servers()
    if ha and database_url:
        raise SettingsError("--ha starts servers of its own: unset DATABASE_URL, or leave --ha out")
    if cells > 1 and (ha or database_url):
        raise SettingsError("--cells starts a server for each cell: leave --ha out, and unset DATABASE_URL")
    deployment = Deployment(
        folder,
        places=PLACES[:regions],
        instances=instances,
        ports_from=port,
        ha=ha,
        cells=cells,
        database_url=database_url,
        redis_urls=redis_urls,
        say=lambda what: print(f"  starting {what}", flush=True),
    )
    print(f"voxplane up: data and logs in {folder}", flush=True)
    stop = asyncio.Event()
    async with _told_to(stop), AsyncExitStack() as stack:
        starting = asyncio.create_task(_start(stack, deployment))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        else:
            stopping.cancel()
            _tell(deployment, starting.result(), time.monotonic() - began)
            await _tell_cluster(deployment)
            print("Ctrl-C stops everything; the data stay.", flush=True)
            await _tend(deployment, stop)
        print("\nstopping (Ctrl-C again: at once)", flush=True)
    print("stopped", flush=True)


def _servers() -> tuple[str, dict[str, str]]:
    """DATABASE_URL and REDIS_URLS, where real servers are wanted; raises `SettingsError`."""
    url = os.environ.get("DATABASE_URL", "")
    settings = Settings.from_env(os.environ | {"DATABASE_URL": url or "postgresql://embedded"})
    if os.environ.get("CELLS"):
        raise SettingsError("unset CELLS: `voxplane up` names its cells itself (--cells 2)")
    return url, settings.redis_urls


@asynccontextmanager
async def _told_to(stop: asyncio.Event) -> AsyncIterator[None]:
    """The first signal sets `stop`; the second does what it would have done without us."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def told() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, told)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _start(stack: AsyncExitStack, deployment: Deployment) -> str:
    """The key of the local project."""
    await stack.enter_async_context(deployment)
    key = str(read_profile().get("key", ""))
    if not await _key_works(deployment, key):
        _, key = await deployment.create_project("local")
    profile = {"urls": deployment.api_urls, "key": key, "operator_key": deployment.operator_key}
    path = profile_path()
    path.touch(mode=0o600)
    path.write_text(json.dumps(profile))
    return key


def _tell(deployment: Deployment, key: str, took_s: float) -> None:
    print(f"\nready in {took_s:.1f} s")
    print(f"  API       {'  '.join(deployment.api_urls)}")
    for name, region in deployment.regions.items():
        print(f"  {name:<9} ws://127.0.0.1:{region.media_port}")
    print("\nFor the shell or your program: a test project's key, and the operator's\n")
    print(f"  export VOXPLANE_URL={','.join(deployment.api_urls)}")
    print(f"  export VOXPLANE_API_KEY={key}")
    print(f"  export VOXPLANE_OPERATOR_KEY={deployment.operator_key}\n")
    print("In another terminal (`voxplane` is in .venv/bin, and finds this by itself):\n")
    print("  voxplane regions")
    print("  voxplane events --follow")
    print("  voxplane call --agent ws://localhost:8765/ws --wav question.wav --out reply.wav\n")


async def _tell_cluster(deployment: Deployment) -> None:
    if deployment.cluster is None:
        return
    print("PostgreSQL stands on three servers, and a commit counts when two have it. One leads:\n")
    leader = await deployment.cluster.leader()
    for name, member in deployment.cluster.members.items():
        print(f"  {name:<9} {member.address}{'  leads' if name == leader else ''}")
    print(f"\n  export DATABASE_URL='{deployment.database_url}'\n", flush=True)


async def _tend(deployment: Deployment, stop: asyncio.Event) -> None:
    """Starts again what dies, until `stop`."""
    leader = await deployment.cluster.leader() if deployment.cluster else None
    while not stop.is_set():
        for what in await deployment.mend():
            print(f"  {what} ended; it was started again", flush=True)
        if deployment.cluster is not None and (now := await deployment.cluster.leader()) not in (
            None,
            leader,
        ):
            leader = now
            print(f"  {leader} leads now", flush=True)
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await stop.wait()
        except TimeoutError:
            continue


async def _key_works(deployment: Deployment, key: str) -> bool:
    """The key of the last time is used again, where the data are still those."""
    if not key:
        return False
    async with deployment.operator() as client:
        answer = await client.get("/v1/keys", headers={"Authorization": f"Bearer {key}"})
    return answer.status_code == 200
