"""Writes the generated files in ``openapi/``, or checks that they are up to date: ``python -m app.export [--check]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from app import contract
from app.main import create_app
from app.openapi import completed
from app.settings import Settings
from regions.wire import event_data

FOLDER = Path(__file__).resolve().parents[1] / "openapi"
CLIENT_TYPES = FOLDER / "clients" / "python" / "src" / "voxplane" / "event_data.py"
CLIENT_DOC = '''"""The data of every event type: one struct each. Generated from the server's (`make openapi`); do not edit.

Versions are additive: fields are added, and values are added where a field is said to have some. What is not known is ignored.
"""

'''


def document() -> dict[str, Any]:
    app = create_app(Settings(database_url="postgresql://"))
    return completed(app.openapi_schema.to_schema())


def files() -> dict[Path, str]:
    schemas = {FOLDER / "events" / name: _json(schema) for name, schema in contract.schemas().items()}
    return {
        FOLDER / "openapi.json": _json(document()),
        FOLDER / "asyncapi.json": _json(contract.asyncapi()),
        CLIENT_TYPES: client_types(),
        **schemas,
    }


def client_types() -> str:
    """The structs of the events' data for the client library, which imports nothing of the server's."""
    _, _, body = Path(event_data.__file__).read_text(encoding="utf-8").partition('"""\n\nfrom __future__')
    return CLIENT_DOC + "from __future__" + body


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
