"""Real processes for a test: instances, edges and their Valkeys, over a database of the engines that run already.

For tests that do nothing to PostgreSQL itself: a server of their own would cost them more than all else that they start.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from tests.support.engines import Engines


@asynccontextmanager
async def deployed(engines: Engines, *, regions: int = 3, **options: Any) -> AsyncIterator[Deployment]:
    """`options`: those of `Deployment`."""
    folder = temporary_folder("voxplane-e2e")
    try:
        async with (
            engines.database() as url,
            Deployment(
                folder, places=PLACES[:regions], instances=2, database_url=url, fsync=False, **options
            ) as running,
        ):
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)
