"""What Schemathesis is told: how it runs, which ids exist, and one request for each operation that ought to be answered well."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import timedelta
from typing import Any
from uuid import uuid4

from app.clock import rfc3339
from tests.conftest import OPERATOR_KEY
from tests.fuzz.world import REGIONS, World
from tests.support.walk import FORM, Operation, operations

STREAMS = ("streamEvents", "streamCallEvents", "adminStreamEvents")
ELSEWHERE = (*STREAMS, "registerEdge")
"""Answered well only to `World`: a stream is never over, and a registration is signed by a key that is registered with it. What is
wrong with a request for one is Schemathesis's too."""
SPENDS = [
    "deleteWebhook", "revokeKey", "endCall", "eraseCall", "adminRemovePerson", "adminRevokeRegion", "adminRevokeEdge",
    "adminCordonRegion", "adminCordonEdge", "adminDrainRegion", "adminDrainEdge", "adminEvacuateRegion", "adminEvacuateEdge",
    "adminWithdrawMembership", "removeMember",
]  # fmt: skip
"""They leave less for the others: they find something seldom."""
FITS: dict[str, list[Any]] = {
    "agent.url": ["ws://127.0.0.1:9/"],
    "url": ["http://127.0.0.1:9/"],
    "fallback_url": ["ws://127.0.0.1:9/"],
    "webhook_url": ["http://127.0.0.1:9/"],
    "region": list(REGIONS),
    "target": list(REGIONS),
    "pin": list(REGIONS),
    "allow": [list(REGIONS)],
    "prefer": [["eu-west"]],
    "email": [f"fitted{n}@example.com" for n in range(50)],
    "address": ["203.0.113.7", "2001:db8::7"],
}
"""By the name of a field in a body, with what it is in where that matters."""
WORLDS = (*ELSEWHERE, "adminStartDrill")
"""What need not be answered well to Schemathesis: a drill is refused while any edge is not well, and `World` waits for it to be."""
GUESSED = 0.8
"""So often an id is one that exists."""
STREAM_S = 3
DRILL = {"kind": "region.loss", "target": "us-east", "calls": "real", "share": 1, "dry_run": True}
HOOKED = ("Idempotency-Key", "If-Match")

CONFIGURATION = """
workers = 1
request-timeout = {silence_s}
max-stream-events = 1
continue-on-failure = true
suppress-health-check = ["all"]
warnings = false
headers = {{ Authorization = "Bearer {key}" }}

[cache]
enabled = false

[generation]
max-examples = {examples}
with-security-parameters = false
database = "none"
no-shrink = {no_shrink}

[phases.examples]
operation-ordering = "none"

[phases.stateful]
enabled = false

[phases.coverage.extra-data-sources]
responses = false

[phases.fuzzing.extra-data-sources]
responses = false

[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 404, 409, 410, 412, 413, 422, 428, 429]

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 410, 412, 413, 414, 415, 422, 428, 429]

{dictionaries}

[[operations]]
include-path-regex = "^/admin/"
headers = {{ Authorization = "Bearer {operator}" }}

[[operations]]
include-path-regex = "^/2010-04-01/"
headers = {{ Authorization = "Basic {basic}" }}

# the ticket in its body, and the token of an enrolment, are the credential
[[operations]]
include-operation-id = ["renewTicket", "registerEdge"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409, 422, 429]

[[operations]]
include-operation-id = {streams}
request-timeout = {stream_s}
generation.mode = "negative"
"""


def configuration(world: World, examples: int, silence_s: int, *, no_shrink: bool) -> str:
    """`silence_s`: so long an answer may pause."""
    dictionaries = "".join(
        f"[dictionaries.{name}]\nvalues = {json.dumps(values)}\n" for name, values in world.known.items()
    )
    bound = "".join(
        f'"path.{name}" = {{ dictionary = "{name}", probability = {GUESSED} }}\n' for name in world.known
    )
    return CONFIGURATION.format(
        key=world.project.key,
        operator=OPERATOR_KEY,
        basic=_basic(world),
        examples=examples,
        silence_s=silence_s,
        no_shrink=json.dumps(no_shrink),
        streams=json.dumps(list(STREAMS)),
        stream_s=STREAM_S,
        dictionaries=f"{dictionaries}\n[parameters]\n{bound}",
    )


def given(world: World, document: dict[str, Any], journal: str, request_s: float) -> dict[str, Any]:
    """What `tests.fuzz.hooks` reads."""
    return {
        "journal": journal,
        "url": world.api.url,
        "request_s": request_s,
        "known": world.known,
        "spends": SPENDS,
        "fits": FITS | {"call_id": world.known["call_id"]},
        "authorization": [
            ("/admin/", f"Bearer {OPERATOR_KEY}"),
            ("/2010-04-01/", f"Basic {_basic(world)}"),
            ("/v1/", f"Bearer {world.project.key}"),
        ],
        "scenes": {
            name: [_scene(world, document, operation)]
            for name, operation in operations(document).items()
            if name not in ELSEWHERE
        },
    }


def _basic(world: World) -> str:
    return b64encode(f"{world.account}:{world.project.key}".encode()).decode()


def _scene(world: World, document: dict[str, Any], operation: Operation) -> dict[str, Any]:
    own = world.own.get(operation.id, {})
    found = {name: own.get(name) or values[0] for name, values in world.known.items()}
    said = document["paths"][operation.path][operation.method.lower()]
    declared = {(p["in"], p["name"]): p for p in said.get("parameters", ())}
    scene: dict[str, Any] = {
        "path": {name: found[name] for place, name in declared if place == "path"},
        "query": {},
        "headers": {name: uuid4().hex for name in HOOKED if ("header", name) in declared},
    }
    body = _bodies(world, found).get(operation.id, operation.body)
    if body is not None and "key" in body:
        scene["headers"].pop("Idempotency-Key", None)  # it would have to be the same
    if body is not None:
        kind = FORM if operation.form else "application/json"
        scene |= {"body": body, "media_type": kind}
    return scene


def _bodies(world: World, found: dict[str, str]) -> dict[str, Any]:
    """Where the least that fits is not what does."""
    return {
        "renewTicket": {"ticket": world.tickets["renewTicket"]},
        "resendEvent": {"call_id": world.own["resendEvent"]["call_id"], "seq": 1},
        "adminStartDrill": DRILL,
        "adminCreatePerson": {"email": "new@example.com"},
        "adminCreateProject": {"name": "new"},
        "adminCreateKey": {"name": "new", "role": "owner"},
        "adminCreateRegion": {"id": "new-region", "jurisdiction": "us"},
        "adminGrantMembership": {"role": "viewer"},
        "setMember": {"email": "ada0@example.com", "role": "viewer"},
        "recoverWebhook": {"since": rfc3339(world.api.control.clock.now() - timedelta(hours=1))},
        "adminSetPrices": {"currency": "EUR", "prices": {}, "valid_from": "2026-01-01"},
        "moveCall": {"within_s": 600},
    }
