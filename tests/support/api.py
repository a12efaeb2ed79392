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
from litestar import Litestar

from app.control import Control
from app.main import around, routed, set_up
from app.protocols import Http, WebSocket
from app.settings import Settings
from app.telemetry import audit_missing_total

START_WITHIN_S = 20.0
_routed: list[Litestar] = []
"""Applications that no instance uses just now. The routes take half a second of a core to make, and are the same in each."""


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
    """Serves until the end of the block, then stops as an instance does. `settings.port` 0: any port that is free.

    Fails at the end where a route has changed something and not written it down as it says it does."""
    forgotten = audit_missing_total._value.get()
    app = set_up(_routed.pop() if _routed else routed(), settings)
    with socket.create_server((settings.host, settings.port)) as listener:
        # the loop does so only for sockets that it made; without, an answer's body waits 40 ms for the receipt of its head
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            around(app),  # type: ignore[arg-type]
            http=Http,
            ws=WebSocket,
            ws_max_size=2 << 20,
            ws_ping_interval=None,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
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
    for name in app.state.dict():
        del app.state[name]
    _routed.append(app)
    assert audit_missing_total._value.get() == forgotten, "see app.audit.asker.check_noted"


async def _stop(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    server.should_exit = True
    await task


def another(id_: str) -> str:
    """An id as that one is, and of nothing: its last letter is another."""
    return id_[:-1] + ("1" if id_.endswith("0") else "0")


def problem(response: httpx.Response) -> tuple[int, str]:
    """(status, code) of an answer that refuses, and says what to do instead."""
    body = response.json()
    assert body["fix"] and body["detail"], body
    return response.status_code, body["code"]
