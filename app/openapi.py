"""The OpenAPI document as it is served and published: the framework's, with what it leaves out. Pure.

Decides that request bodies are closed and that every error has one form.
"""

from __future__ import annotations

from typing import Any

STRICT = (
    "CreateCall",
    "CallerRequest",
    "AgentRequest",
    "LatencyRequest",
    "RegionsRequest",
    "EndCall",
    "TicketRequest",
    "WriteEntry",
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


def completed(found: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI 3.1, from what the framework says; changes `found`."""
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
