"""One instance of the control plane, served over a real socket in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from app.control import Control
from app.main import around, create_app
from app.settings import Settings

START_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Project:
    """A project and the secret of its first owner key. `client` sends that key."""

    id: str
    key: str
    mode: str
    client: httpx.AsyncClient


@dataclass(slots=True)
class Api:
    url: str
    port: int
    settings: Settings
    control: Control
    operator: httpx.AsyncClient
    _stack: AsyncExitStack

    async def client(self, key: str | None = None, **options: Any) -> httpx.AsyncClient:
        """A client that sends `key`; closed with the instance."""
        headers = {"authorization": f"Bearer {key}"} if key is not None else {}
        made = httpx.AsyncClient(
            base_url=self.url, headers=headers, verify=False, trust_env=False, timeout=20, **options
        )
        return await self._stack.enter_async_context(made)

    async def project(self, mode: str = "test", name: str = "a project") -> Project:
        made = await self.operator.post("/admin/v1/projects", json={"name": name, "mode": mode})
        assert made.status_code == 201, made.text
        key = await self.operator.post(
            f"/admin/v1/projects/{made.json()['id']}/keys", json={"name": "first", "role": "owner"}
        )
        assert key.status_code == 201, key.text
        secret = key.json()["secret"]
        return Project(made.json()["id"], secret, mode, await self.client(secret))

    async def key(self, project: Project, role: str, **more: Any) -> httpx.AsyncClient:
        """A client with a new key of that role."""
        made = await project.client.post("/v1/keys", json={"name": role, "role": role, **more})
        assert made.status_code == 201, made.text
        return await self.client(made.json()["secret"])


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the test runner's."""
        yield


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Api]:
    """Serves until the end of the block, then stops as an instance does. `settings.port` 0: any port that is free."""
    app = create_app(settings)
    with socket.create_server((settings.host, settings.port)) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            around(app),  # type: ignore[arg-type]
            http="httptools",
            ws="websockets-sansio",
            ws_max_size=2 << 20,
            ws_ping_interval=None,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=5,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(START_WITHIN_S):
            while not server.started and not task.done():
                await asyncio.sleep(0.005)
        if task.done():
            await task
            raise RuntimeError("the instance did not start")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_stop, server, task)
            url = f"http://{settings.host}:{port}"
            operator = await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=url,
                    headers={"authorization": f"Bearer {settings.operator_key}"},
                    verify=False,
                    trust_env=False,
                    timeout=20,
                )
            )
            yield Api(url, port, settings, app.state.control, operator, stack)


async def _stop(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    server.should_exit = True
    await task


def problem(response: httpx.Response) -> tuple[int, str]:
    """(status, code) of an answer that refuses, and says what to do instead."""
    body = response.json()
    assert body["fix"] and body["detail"], body
    return response.status_code, body["code"]
