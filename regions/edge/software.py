"""Which release of the software runs here, as it was installed: `pyproject.toml` is the only place that says so."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "voxplane-server"


def software() -> str:
    """Such as ``0.1.0``; empty where the files were put here without being installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return ""
