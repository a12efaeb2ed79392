"""A reader of the JSON Schemas in `openapi/`, as far as they go: what they are made of, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OPENAPI = Path(__file__).parents[2] / "openapi"
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float), "null": type(None),
}  # fmt: skip
SAYS_NOTHING = {"$schema", "$id", "$defs", "title", "description", "examples", "default"}


class Unread(Exception):
    """A keyword that the schemas have come to use since."""


def data_schema(type_: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((OPENAPI / "events" / f"{type_}.schema.json").read_text())
    return found


def documented(operation: str) -> dict[int, Any]:
    """By status, the schema of the operation's JSON answer that `openapi.json` shows; None where it shows none, or a problem."""
    paths = json.loads((OPENAPI / "openapi.json").read_text())["paths"]
    [said] = [o for methods in paths.values() for o in methods.values() if o.get("operationId") == operation]
    return {
        int(status): answer.get("content", {}).get("application/json", {}).get("schema")
        for status, answer in said["responses"].items()
    }


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> list[str]:
    """What of `value` the schema refuses. Raises `Unread` for a keyword that is not read here."""
    found: list[str] = []
    for word, said in schema.items():
        match word:
            case "$ref":
                found += faults(value, resolve(said, root), root, at)
            case "type":
                kind = TYPES[said]
                if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                    found.append(f"{at} is no {said}")
            case "anyOf":
                found += [] if any(not faults(value, s, root, at) for s in said) else [f"{at} fits none"]
            case "allOf":
                found += [f for s in said for f in faults(value, s, root, at)]
            case "const":
                found += [] if value == said else [f"{at} is not {said!r}"]
            case "enum":
                found += [] if value in said else [f"{at} is none of {said}"]
            case "required":
                found += [f"{at} lacks {n}" for n in said if isinstance(value, dict) and n not in value]
            case "properties" if isinstance(value, dict):
                found += [
                    f for n, s in said.items() if n in value for f in faults(value[n], s, root, f"{at}.{n}")
                ]
            case "items" if isinstance(value, list):
                found += [f for i, v in enumerate(value) for f in faults(v, said, root, f"{at}[{i}]")]
            case "additionalProperties" if isinstance(said, dict) and isinstance(value, dict):
                found += [f for n, v in value.items() for f in faults(v, said, root, f"{at}.{n}")]
            case "minimum" if isinstance(value, int | float):
                found += [] if value >= said else [f"{at} is below {said}"]
            case "maximum" if isinstance(value, int | float):
                found += [] if value <= said else [f"{at} is above {said}"]
            case "exclusiveMinimum" if isinstance(value, int | float):
                found += [] if value > said else [f"{at} is not above {said}"]
            case "maxLength" if isinstance(value, str):
                found += [] if len(value) <= said else [f"{at} is longer than {said}"]
            case "properties" | "items" | "minimum" | "maximum" | "exclusiveMinimum" | "maxLength":
                continue
            case _ if word not in SAYS_NOTHING:
                raise Unread(word)
    return found


def resolve(ref: str, root: dict[str, Any]) -> Any:
    found: Any = root
    for part in ref.removeprefix("#/").split("/"):
        found = found[part]
    return found


def event_faults(event: dict[str, Any]) -> list[str]:
    """Of an event as readers get it: its data against the published schema of its type."""
    schema = data_schema(event["type"])
    return [f"{event['type']}: {fault}" for fault in faults(event["data"], schema, schema)]
