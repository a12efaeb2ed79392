"""The OpenAPI document as it is served and published: the framework's, with what it leaves out. Pure.

Decides that request bodies are closed and that every error has one form: but for the paths that speak another's API, which
have that one's.
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
    "RotateAgentSecret",
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

OPENS_A_CALL = {"createCall", "getConversation", "getTool", "writeConversation"}
"""They need what is gone once the call is erased."""
NAMES_A_THING = {"call_id", "cell"}
"""In a query: it may be none of the asker's."""
NAMES_SOMEBODY = {"setMember"}
"""In its body, who may have no account."""

AS_A_FILE = {
    "getUsage": ("application/json", "text/csv"),
    "exportAudit": ("application/jsonl", "text/csv"),
    "adminExportAudit": ("application/jsonl", "text/csv"),
}
"""In which forms they answer; the last is a text."""

TWILIO = "/2010-04-01/"
TWILIO_ERROR: dict[str, Any] = {
    "type": "object",
    "title": "TwilioError",
    "description": "Twilio's: `code` is the one of its list of errors, and `more_info` the page about it.",
    "required": ["code", "message", "more_info", "status"],
    "properties": {
        "code": {"type": "integer"},
        "message": {"type": "string"},
        "more_info": {"type": "string"},
        "status": {"type": "integer"},
    },
}


def completed(found: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI 3.1, from what the framework says; changes `found`."""
    schemas = found["components"]["schemas"]
    for name in STRICT:
        if name in schemas:
            schemas[name]["additionalProperties"] = False
    schemas["Problem"] = PROBLEM
    found["paths"] = {
        path.replace("/Calls/{file}", "/Calls/{call_sid}.json"): of for path, of in found["paths"].items()
    }
    error = {
        "description": "The request was refused; the body says why and how to mend it.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    schemas["TwilioError"] = TWILIO_ERROR
    twilio = {
        "description": "The request was refused, in Twilio's form.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/TwilioError"}}},
    }
    found["components"]["responses"] = {"Problem": error, "TwilioError": twilio}
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            if isinstance(operation, dict) and "responses" in operation:
                for parameter in operation.get("parameters", ()):
                    if parameter["in"] == "path" and "{" + parameter["name"] + "}" not in path:
                        parameter["name"] = "call_sid"
                if any(s.get("type") == "null" for s in _alternatives(operation.get("requestBody", {}))):
                    operation["requestBody"]["required"] = False
                for status in [s for s in operation["responses"] if s.startswith(("4", "5"))]:
                    del operation["responses"][status]
                if forms := AS_A_FILE.get(operation["operationId"]):
                    shown, *_ = operation["responses"]["200"]["content"].values()
                    operation["responses"]["200"]["content"] = dict.fromkeys(forms, shown) | {
                        forms[-1]: {"schema": {"type": "string"}}
                    }
                for status in refusals(path, method, operation):
                    name = "TwilioError" if path.startswith(TWILIO) else "Problem"
                    operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    readiness = found["paths"]["/readyz"]["get"]["responses"]
    readiness["503"] = readiness["200"] | {"description": "Not ready; `reasons` say why."}
    return found


def _alternatives(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a JSON body that may be one of several."""
    found: list[dict[str, Any]] = (
        body.get("content", {}).get("application/json", {}).get("schema", {}).get("oneOf", [])
    )
    return found


def refusals(path: str, method: str, operation: dict[str, Any]) -> list[str]:
    """The statuses with which the operation may refuse: those of every one, and those that come with what it takes."""
    named = {p["name"] for p in operation.get("parameters", ())}
    found = {"400", "422", "429", "500", "503"}
    if operation.get("security") != [{}]:
        found |= {"401", "403"}
    if "{" in path or named & NAMES_A_THING or operation.get("operationId") in NAMES_SOMEBODY:
        found.add("404")
    if method != "get" or "min_seq" in named:
        found.add("409")
    if "requestBody" in operation:
        found |= {"413", "415"}
    if "If-Match" in named:
        found |= {"412", "428"}
    if "cursor" in named or "after" in named or operation.get("operationId") in OPENS_A_CALL:
        found.add("410")
    if path.startswith("/edge/") or "ticket" in path:
        found |= {"401", "403", "404"}
    return sorted(found)
