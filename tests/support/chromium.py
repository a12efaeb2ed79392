"""A real Chromium without a window, driven over its DevTools protocol: a page, clicks, keys, a screenshot.

Its microphone is a WAV file, and its loudspeaker nobody's; audio runs all the same.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_WITHIN_S = 30.0
ANSWER_WITHIN_S = 20.0
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-port=0", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--window-size=820,900",
)  # fmt: skip


def chromium() -> str:
    """The path of one; raises `FileNotFoundError`."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(NAMES)} is installed")
    return found


class Chromium:
    """`folder`: for its profile, and not there yet. `microphone`: what it hears, again and again; None: a hum.
    `complaints`: what the page has thrown, or the browser has refused it."""

    def __init__(self, folder: Path, *, microphone: Path | None = None) -> None:
        self._folder = folder
        self._microphone = microphone
        self._process: asyncio.subprocess.Process | None = None
        self._socket: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []

    async def __aenter__(self) -> Chromium:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers; raises `AssertionError` where it refuses."""
        assert self._socket is not None
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(ANSWER_WITHIN_S):
            found = await answer
        assert "error" not in found, (method, found["error"])
        result: dict[str, Any] = found["result"]
        return result

    async def value(self, expression: str) -> Any:
        """Of JavaScript, waited for where it is a promise."""
        found = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    async def text(self, id_: str) -> str:
        return str(await self.value(f"document.getElementById({id_!r}).textContent"))

    async def until(self, expression: str, within_s: float = 20.0) -> Any:
        """Its value, once it is true."""
        try:
            async with asyncio.timeout(within_s):
                while not (found := await self.value(expression)):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            shown = await self.value("document.body.innerText")
            raise AssertionError(f"never true: {expression}\n{shown}\n{self.complaints}") from None
        return found

    async def click(self, id_: str) -> None:
        """As a hand does: the browser lets a page play audio only after that."""
        x, y = await self.value(
            f"(() => {{ const r = document.getElementById({id_!r}).getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def key(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else ""
            )

    async def dark(self, dark: bool, *, still: bool = False) -> None:
        """As somebody has it who likes it so. `still`: and wants nothing to move."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def size(self, width: int, height: int) -> None:
        """Of the page, as a screen of that size shows it."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    async def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot"))["data"]))

    # -------------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        port_file = self._folder / "DevToolsActivePort"
        self._process = await asyncio.create_subprocess_exec(
            chromium(), *FLAGS, f"--user-data-dir={self._folder}",
            *((f"--use-file-for-fake-audio-capture={self._microphone}",) if self._microphone else ()), "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, env={**os.environ, "HOME": str(self._folder)},
        )  # fmt: skip
        async with asyncio.timeout(START_WITHIN_S), httpx.AsyncClient(trust_env=False) as http:
            while not (port_file.exists() and port_file.read_text().count("\n")):
                assert self._process.returncode is None, "chromium has ended"
                await asyncio.sleep(0.02)
            port = port_file.read_text().split()[0]
            targets = (await http.get(f"http://127.0.0.1:{port}/json/list")).json()
            page = next(t for t in targets if t["type"] == "page")
            self._socket = await connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None)
        self._reading = asyncio.create_task(self._read(self._socket))
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for raw in socket:
                message = json.loads(raw)
                if (answer := self._answers.pop(message.get("id"), None)) is not None:
                    if not answer.done():
                        answer.set_result(message)
                elif message.get("method") == "Runtime.exceptionThrown":
                    details = message["params"]["exceptionDetails"]
                    self.complaints.append(details.get("exception", {}).get("description") or details["text"])
                elif message.get("method") == "Log.entryAdded":
                    self.complaints.append(message["params"]["entry"]["text"])
        except ConnectionClosed:
            return

    async def _stop(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._reading is not None:
            self._reading.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
