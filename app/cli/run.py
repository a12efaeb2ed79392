"""How every command of ``voxplane`` ends: what can go wrong is said in one line on stderr, with the way to mend it.

What is heavy is imported when it is needed. Exit codes: 1 where something was tried and failed, 2 where an argument or a
setting is wrong or missing, 128 and the signal's number where one ended it before it was done.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import typer

if TYPE_CHECKING:
    from voxplane import AsyncClient


def fail(message: str, code: int = 1) -> typer.Exit:
    typer.echo(f"voxplane: {' '.join(message.split())}", err=True)
    return typer.Exit(code)


def named(word: str) -> str:
    """An id as one part of a path, so that no character of it leads to another route; fails where it is none."""
    if word.strip() in ("", ".", ".."):
        raise fail(f"{word!r} names nothing: give an id", 2)
    return quote(word, safe="")


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs `work`; SIGTERM ends it as Ctrl-C does, with everything that it started."""
    from app.local.process import EngineError
    from app.local.up import NeverReady
    from app.preflight import NotReady
    from app.settings import SettingsError
    from voxplane import Unavailable, VoxplaneError

    try:
        asyncio.run(_until_told(work))
    except SettingsError as error:
        raise fail(str(error), 2) from None
    except Unavailable as error:
        tried = ", ".join(dict.fromkeys(error.causes))
        advice = ": is `voxplane up` running? Else set VOXPLANE_URL to one that is"
        raise fail(f"no answer ({tried}){'' if 'VOXPLANE_CA_FILE' in tried else advice}") from None
    except (EngineError, NotReady, VoxplaneError) as error:
        raise fail(str(error)) from None
    except NeverReady as error:
        raise typer.Exit(128 + error.number) from None
    except asyncio.CancelledError:
        raise typer.Exit(128 + signal.SIGTERM) from None
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None


async def _until_told(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await work()


def client(timeout_s: float | None = None) -> AsyncClient:
    """From VOXPLANE_URL (a list separated by commas) and VOXPLANE_API_KEY, else from the newest `up`; raises `SettingsError`."""
    return _client("VOXPLANE_API_KEY", "key", "a key like vx_test_…: `voxplane up` prints one", timeout_s)


def operator() -> AsyncClient:
    """The same with the platform's own key, VOXPLANE_OPERATOR_KEY."""
    return _client("VOXPLANE_OPERATOR_KEY", "operator_key", "the platform's own key, vx_op_…")


def _client(variable: str, in_profile: str, what: str, timeout_s: float | None = None) -> AsyncClient:
    from app.local.up import read_profile
    from app.settings import SettingsError
    from voxplane import AsyncClient

    profile = read_profile()
    if not os.environ.get("VOXPLANE_URL") and (ca_file := profile.get("ca_file")):
        os.environ.setdefault("VOXPLANE_CA_FILE", str(ca_file))
    given = os.environ.get("VOXPLANE_URL") or ",".join(profile.get("urls", []))
    urls = [url for part in given.split(",") if (url := part.strip())]
    key = (os.environ.get(variable) or str(profile.get(in_profile, ""))).strip()
    if not urls or not key:
        raise SettingsError(f"set VOXPLANE_URL and {variable}, or start `voxplane up` in another terminal")
    for url in urls:
        if not _is_http(url):
            raise SettingsError(f"VOXPLANE_URL is a list like http://127.0.0.1:8080,http://…, not {url!r}")
    if not (key.isascii() and key.isprintable()):
        raise SettingsError(f"{variable} is {what}")
    return AsyncClient(urls, key) if timeout_s is None else AsyncClient(urls, key, timeout_s=timeout_s)


def _is_http(url: str) -> bool:
    try:
        parsed = urlsplit(url)
        return parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        return False
