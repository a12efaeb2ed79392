"""What the tests in a browser share: a folder of their own, which is gone afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.local.folder import temporary_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    made = temporary_folder("voxplane-console")
    yield made
    shutil.rmtree(made, ignore_errors=True)
