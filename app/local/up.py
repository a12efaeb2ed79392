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
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.local.certificates import LocalTls
from app.local.deployment import PLACES, Deployment
from app.local.folder import keep_whole
from app.local.mending import CANNOT_START
from app.settings import Settings, SettingsError, data_folder

PROFILE = "profile.json"
LOCAL_OPERATOR = "operator@localhost"
"""Signs in to the console by links alone: an operator of the platform, and the local project's owner."""
LOOK_EVERY_S = 0.5


class NeverReady(Exception):
    """It was told to stop, by this signal, before it was ready: whoever waits for it must not go on."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"stopped by {number.name} before it was ready")
        self.number = number


def profile_path() -> Path:
    return data_folder(os.environ) / PROFILE


def read_profile() -> dict[str, Any]:
    """URLs and key of the newest `up` on this machine; empty where there is none."""
    try:
        found = json.loads(profile_path().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


async def up(
    *, regions: int, instances: int, port: int, ha: bool = False, cells: int = 1, tls: bool = False
) -> None:
    """Until SIGINT or SIGTERM. `ha`: a PostgreSQL of three servers. `cells`: so many of them, a server each. `tls`: on every
    listener, with a certificate of this machine's own.

    Raises `EngineError`, `NotReady` or `SettingsError`, and `NeverReady` where the signal came in the middle of the start.
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
        tls=tls,
        database_url=database_url,
        redis_urls=redis_urls,
        talk_page=True,
        webrtc=find_spec("wrtc") is not None,
        say=lambda what: _say(f"  starting {what}"),
    )
    _say(f"voxplane up: data and logs in {folder}")
    stop = asyncio.Event()
    async with _told_to(stop) as told, AsyncExitStack() as stack:
        starting = asyncio.create_task(_start(stack, deployment))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        ready = not stop.is_set()
        if not ready:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        else:
            stopping.cancel()
            _tell(deployment, *starting.result(), time.monotonic() - began)
            await _tell_cluster(deployment)
            _say("Ctrl-C stops everything; the data stay.")
            await _tend(deployment, stop)
        _say("\nstopping (Ctrl-C again: at once)")
    if not ready:
        _say("stopped before it was ready")
        raise NeverReady(told[0])
    _say("stopped")


def _say(line: str) -> None:
    """What stays up does not end because nobody reads what it says, or the disk that it is written to is full."""
    with suppress(OSError, ValueError):
        print(line, flush=True)


def _servers() -> tuple[str, dict[str, str]]:
    """DATABASE_URL and REDIS_URLS, where real servers are wanted; raises `SettingsError`."""
    url = os.environ.get("DATABASE_URL", "")
    settings = Settings.from_env(os.environ | {"DATABASE_URL": url or "postgresql://embedded"})
    if os.environ.get("CELLS"):
        raise SettingsError("unset CELLS: `voxplane up` names its cells itself (--cells 2)")
    return url, settings.redis_urls


@asynccontextmanager
async def _told_to(stop: asyncio.Event) -> AsyncIterator[list[signal.Signals]]:
    """The first signal sets `stop`, and is in the list then; the second does what it would have done without us."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    came: list[signal.Signals] = []

    def told(number: signal.Signals) -> None:
        came.append(number)
        stop.set()
        for each in numbers:
            loop.remove_signal_handler(each)

    for number in numbers:
        loop.add_signal_handler(number, told, number)
    try:
        yield came
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _start(stack: AsyncExitStack, deployment: Deployment) -> tuple[str, str]:
    """The key of the local project, and a link that opens the console."""
    await stack.enter_async_context(deployment)
    before = read_profile()
    key, project = str(before.get("key", "")), str(before.get("project", ""))
    if not project or not await _key_works(deployment, key):
        project, key = await deployment.create_project("local")
    profile: dict[str, Any] = {
        "urls": deployment.api_urls,
        "key": key,
        "project": project,
        "operator_key": deployment.operator_key,
    }
    if isinstance(deployment.secured, LocalTls):
        profile["ca_file"] = str(deployment.secured.ca_file)
    keep_whole(profile_path(), json.dumps(profile))
    return key, await _sign_in_link(deployment, project)


async def _sign_in_link(deployment: Deployment, project: str) -> str:
    """Opens the console for an operator who owns the project too: once, and soon."""
    async with deployment.operator() as client:
        made = await client.post("/admin/v1/people", json={"email": LOCAL_OPERATOR, "operator": True})
        if made.status_code == 409:
            made = await client.get(f"/admin/v1/people/{LOCAL_OPERATOR}")
        path = f"/admin/v1/people/{made.raise_for_status().json()['id']}"
        granted = await client.put(f"{path}/memberships/{project}", json={"role": "owner"})
        granted.raise_for_status()
        link = await client.post(f"{path}/links", json={"purpose": "sign_in"})
        return f"{deployment.api_urls[0]}{link.raise_for_status().json()['path']}"


def _tell(deployment: Deployment, key: str, link: str, took_s: float) -> None:
    _say(f"\nready in {took_s:.1f} s")
    _say(f"  API       {'  '.join(deployment.api_urls)}")
    for name, region in deployment.regions.items():
        _say(f"  {name:<9} {region.url}")
    if isinstance(deployment.secured, LocalTls):
        _say("  TLS       SHA-256 of the authority, and of the certificate:")
        for fingerprint in deployment.secured.fingerprints:
            _say(f"            {fingerprint}")
    _say("\nFor the shell or your program: a test project's key, and the operator's\n")
    _say(f"  export VOXPLANE_URL={','.join(deployment.api_urls)}")
    _say(f"  export VOXPLANE_API_KEY={key}")
    if isinstance(deployment.secured, LocalTls):
        _say(f"  export VOXPLANE_CA_FILE={deployment.secured.ca_file}")
    _say(f"  export VOXPLANE_OPERATOR_KEY={deployment.operator_key}\n")
    _say(
        f"The console, signed in, once and within ten minutes (`voxplane console` prints another link):\n\n  {link}\n"
    )
    _say("In another terminal (`voxplane` is in .venv/bin, and finds this by itself):\n")
    _say("  voxplane regions")
    _say("  voxplane events --follow")
    _say("  voxplane call --agent ws://localhost:8765/ws --wav question.wav --out reply.wav")
    _say("  voxplane call --agent ws://localhost:8765/ws --browser\n")


async def _tell_cluster(deployment: Deployment) -> None:
    if deployment.cluster is None:
        return
    _say("PostgreSQL stands on three servers, and a commit counts when two have it. One leads:\n")
    leader = await deployment.cluster.leader()
    for name, member in deployment.cluster.members.items():
        _say(f"  {name:<9} {member.address}{'  leads' if name == leader else ''}")
    _say(f"\n  export DATABASE_URL='{deployment.database_url}'\n")


async def _tend(deployment: Deployment, stop: asyncio.Event) -> None:
    """Starts again what dies, until `stop`."""
    leader = await deployment.cluster.leader() if deployment.cluster else None
    trouble = ""
    while not stop.is_set():
        try:
            await deployment.mend(_tell_mended)
            trouble = ""
        except CANNOT_START as error:
            if (said := str(error) or type(error).__name__) != trouble:
                trouble = said
                _say(f"  not started again yet: {trouble}")
        if deployment.cluster is not None and (now := await deployment.cluster.leader()) not in (
            None,
            leader,
        ):
            leader = now
            _say(f"  {leader} leads now")
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await stop.wait()
        except TimeoutError:
            continue


def _tell_mended(what: str) -> None:
    _say(f"  {what} ended; it was started again")


async def _key_works(deployment: Deployment, key: str) -> bool:
    """The key of the last time is used again, where the data are still those."""
    if not key:
        return False
    async with deployment.operator() as client:
        answer = await client.get("/v1/keys", headers={"Authorization": f"Bearer {key}"})
    return answer.status_code == 200
