"""What every test may ask for. Engines are started by the first test that needs one, once per process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from app.settings import Settings
from tests.support.api import Api, Project, serving
from tests.support.engines import Engines, running_engines

LONG = (
    "tests/e2e/",
    "test_cli.py",
    "test_model_agrees",
    "test_cli_webhooks",
    "tests/integration/",
    "tests/simulation/",
)
ALONE = ("tests/browser/",)
OPERATOR_KEY = "vx_op_0123456789abcdefghijklmnopqrstuv"


@pytest.fixture(scope="session", autouse=True)
def _quiet_logs() -> None:
    """Lines are made in full and written nowhere; `log_lines` shows them to a test."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules that start whole deployments come first: a long one that comes last keeps the other workers waiting."""
    items.sort(key=lambda item: next((i for i, part in enumerate(LONG) if part in item.nodeid), len(LONG)))


class ByModule(LoadScopeScheduling):
    """A module stays with one worker, so that what it starts for its tests is started once. So does a folder of modules each of
    which takes the whole machine."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in ALONE if nodeid.startswith(folder)), nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    return ByModule(config, log)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine at which nobody listens; nor will anybody, for it is held."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    with running_engines() as started:
        yield started


@pytest.fixture
async def database_url(engines: Engines) -> AsyncIterator[str]:
    """A fresh, migrated database for this test alone."""
    async with engines.database() as url:
        yield url


@pytest.fixture
async def redis_urls(engines: Engines) -> dict[str, str]:
    """Region → URL of an empty Valkey."""
    await engines.flush()
    return engines.redis_urls


@pytest.fixture
def redis_url(redis_urls: dict[str, str]) -> str:
    return redis_urls["us-east"]


def make_settings(database_url: str, redis_urls: dict[str, str], data: Path, **more: Any) -> Settings:
    return Settings(
        **{
            "database_url": database_url,
            "redis_urls": redis_urls,
            "data": data,
            "port": 0,
            "operator_key": OPERATOR_KEY,
            "local_targets": True,
            **more,
        }
    )


@pytest.fixture
def settings(database_url: str, redis_urls: dict[str, str], tmp_path: Path) -> Settings:
    return make_settings(database_url, redis_urls, tmp_path)


@pytest.fixture(scope="module")
def module_settings(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Settings]:
    data = tmp_path_factory.mktemp("data")
    return lambda url: make_settings(url, engines.redis_urls, data)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(engines: Engines, module_settings: Callable[[str], Settings]) -> AsyncIterator[Api]:
    """One instance for the tests of a module, over a database of its own. Tests stand apart by their projects."""
    async with engines.database() as url, serving(module_settings(url)) as served:
        yield served


@pytest.fixture
async def project(api: Api) -> Project:
    """A project of mode ``test`` with its first owner key."""
    return await api.project()
