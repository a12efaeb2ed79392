"""``voxplane up``: a deployment that stays until it is told to stop, and remembers its data."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from app.local.deployment import PLACES, Deployment
from app.settings import data_folder

PROFILE = "profile.json"


def profile_path() -> Path:
    return data_folder(os.environ) / PROFILE


def read_profile() -> dict[str, Any]:
    """URLs and key of the newest `up` on this machine; empty where there is none."""
    try:
        found: dict[str, Any] = json.loads(profile_path().read_text())
    except (OSError, ValueError):
        return {}
    return found


async def up(*, regions: int, instances: int, port: int) -> None:
    """Until SIGINT or SIGTERM."""
    began = time.monotonic()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    folder = data_folder(os.environ)
    redis_urls = dict(p.partition("=")[::2] for p in os.environ.get("REDIS_URLS", "").split(",") if "=" in p)
    deployment = Deployment(
        folder,
        places=PLACES[:regions],
        instances=instances,
        ports_from=port,
        database_url=os.environ.get("DATABASE_URL", ""),
        redis_urls=redis_urls,
        say=lambda what: print(f"  starting {what}", flush=True),
    )
    print(f"voxplane up, data in {folder}", flush=True)
    async with deployment:
        key = read_profile().get("key", "")
        if not await _key_works(deployment, key):
            _, key = await deployment.create_project("local")
        profile = {"urls": deployment.api_urls, "key": key, "operator_key": deployment.operator_key}
        path = profile_path()
        path.touch(mode=0o600)
        path.write_text(json.dumps(profile))
        print(f"\nready in {time.monotonic() - began:.1f} s. API: {' and '.join(deployment.api_urls)}")
        print("a test project's key, and the operator's, for the shell:\n")
        print(f"  export VOXPLANE_URL={','.join(deployment.api_urls)}")
        print(f"  export VOXPLANE_API_KEY={key}")
        print(f"  export VOXPLANE_OPERATOR_KEY={deployment.operator_key}\n")
        print(
            "in another shell: voxplane regions, voxplane events --follow, voxplane call --help. Ctrl-C stops everything.",
            flush=True,
        )
        await stop.wait()
        print("\nstopping", flush=True)


async def _key_works(deployment: Deployment, key: str) -> bool:
    """The key of the last time is used again, where the data are still those."""
    if not key:
        return False
    async with deployment.operator() as client:
        answer = await client.get("/v1/keys", headers={"Authorization": f"Bearer {key}"})
    return answer.status_code == 200
