"""Writes the generated files in ``openapi/`` and ``docs/reference`` (metrics, permissions), or checks them:
``python -m app.export [--check]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from litestar import Litestar

from app import contract, metrics, permissions
from app.cli import covers as cli_covers
from app.main import create_app
from app.openapi import completed
from app.settings import Settings
from regions.wire import event_data, line_data

FOLDER = Path(__file__).resolve().parents[1] / "openapi"
CLIENT = FOLDER / "clients" / "python" / "src" / "voxplane"
CLIENT_TYPES = (event_data, line_data)
PERMISSIONS = FOLDER.parent / "docs" / "reference" / "permissions.md"
METRICS = FOLDER.parent / "docs" / "reference" / "metrics.md"
COMMAND_LINE = FOLDER.parent / "docs" / "reference" / "cli.md"
CLIENT_DOC = '''"""The data of every event type: one struct each. Generated from the server's (`make openapi`); do not edit.

Versions are additive: fields are added, and values are added where a field is said to have some. What is not known is ignored.
"""

'''


def application() -> Litestar:
    return create_app(Settings(database_url="postgresql://"))


def document() -> dict[str, Any]:
    return completed(application().openapi_schema.to_schema())


def files() -> dict[Path, str]:
    schemas = {FOLDER / "events" / name: _json(schema) for name, schema in contract.schemas().items()}
    return {
        FOLDER / "openapi.json": _json(document()),
        FOLDER / "asyncapi.json": _json(contract.asyncapi()),
        **{CLIENT / f"{m.__name__.rpartition('.')[2]}.py": client_types(m) for m in CLIENT_TYPES},
        METRICS: metrics.reference(),
        COMMAND_LINE: cli_covers.page(document()),
        PERMISSIONS: permissions.reference(application()),
        **schemas,
    }


def client_types(module: ModuleType) -> str:
    """The structs of the events' data for the client library, which imports nothing of the server's."""
    assert module.__file__ is not None
    head, _, body = Path(module.__file__).read_text(encoding="utf-8").partition("\nfrom __future__")
    doc = (
        CLIENT_DOC
        if module is event_data
        else f'{head.partition(". ")[0]}. Generated, as `event_data`."""\n\n'
    )
    return doc + "from __future__" + body.replace("from regions.wire.", "from voxplane.")


def leftovers() -> list[Path]:
    """Files that were generated once, and are not any more."""
    return sorted(set((FOLDER / "events").glob("*.json")) - set(files()))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """0 where all is written or up to date, 1 where `--check` finds a difference."""
    check = "--check" in sys.argv[1:]
    stale = []
    for path in leftovers():
        if check:
            stale.append(path.name)
        else:
            path.unlink()
    for path, text in files().items():
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}. Run `make openapi` and commit what it writes.\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
