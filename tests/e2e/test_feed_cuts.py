"""Readers that are cut, late commits and an instance that is killed: no gap and no repeat, on real processes."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest

from app.local.deployment import PLACES, Deployment, temporary_folder
from tests.chaos.feed_cuts import prove

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    folder = temporary_folder("voxplane-e2e-feeds")
    try:
        async with Deployment(folder, places=PLACES[:1], instances=2, fsync=False) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def test_no_reader_misses_an_event_or_has_one_twice(deployment: Deployment) -> None:
    verdict = await prove(deployment, readers=24, projects=3, seconds=5.0, kills=1, mean_s=0.5, seed=11)
    assert verdict.faults == []
    assert verdict.events > 50
    assert verdict.cuts > 24
