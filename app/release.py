"""Which release of the control plane runs, as it was installed: `pyproject.toml` is the only place that says so. An edge says its own
(`regions.edge.software`), for it is upgraded later."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "voxplane-server"


def release() -> str:
    """Such as ``0.1.0``; empty where the files were put here without being installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return ""
