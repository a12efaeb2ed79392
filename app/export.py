"""Writes the generated files in ``openapi/``, or checks that they are up to date: ``python -m app.export [--check]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from app.main import create_app
from app.settings import Settings

FOLDER = Path(__file__).resolve().parents[1] / "openapi"
STRICT = (
    "CreateCall",
    "CallerRequest",
    "AgentRequest",
    "LatencyRequest",
    "RegionsRequest",
    "EndCall",
    "TicketRequest",
    "CreateProject",
    "CreateKey",
    "CreateWebhook",
    "CreateRegion",
    "ChangeRegion",
    "RegisterRequest",
)

PROBLEM: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457. `code` is stable; `fix` says how to mend the request.",
    "required": ["type", "title", "status", "detail", "code", "errors", "request_id", "fix"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "request_id": {"type": "string"},
        "fix": {"type": "string"},
    },
}


def document() -> dict[str, Any]:
    """The REST API as OpenAPI 3.1: Litestar's, with what it leaves out: closed request bodies and one form of error."""
    app = create_app(Settings(database_url="postgresql://"))
    found: dict[str, Any] = app.openapi_schema.to_schema()
    schemas = found["components"]["schemas"]
    for name in STRICT:
        if name in schemas:
            schemas[name]["additionalProperties"] = False
    schemas["Problem"] = PROBLEM
    error = {
        "description": "The request was refused; the body says why and how to mend it.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path in found["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict) and "responses" in operation:
                for status in [s for s in operation["responses"] if s.startswith(("4", "5"))]:
                    del operation["responses"][status]
                operation["responses"]["default"] = error
    return found


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
