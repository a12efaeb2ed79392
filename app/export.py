"""Writes the generated files in ``openapi/``, or checks that they are up to date: ``python -m app.export [--check]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from app.main import create_app
from app.openapi import completed
from app.settings import Settings

FOLDER = Path(__file__).resolve().parents[1] / "openapi"


def document() -> dict[str, Any]:
    app = create_app(Settings(database_url="postgresql://"))
    return completed(app.openapi_schema.to_schema())


def files() -> dict[Path, str]:
    return {
        FOLDER / "openapi.json": json.dumps(document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    }


def main() -> int:
    """0 where all is written or up to date, 1 where `--check` finds a difference."""
    check = "--check" in sys.argv[1:]
    stale = []
    for path, text in files().items():
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}. Run `make openapi` and commit what it writes.\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
