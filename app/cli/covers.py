"""Which command does what a route does, and the reference page of the commands, made from them. Pure but for what it looks at.

A route without a command stands here with its reason, or a test is red.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from app.cli.main import app

COMMANDS: dict[str, str] = {
    "listCalls": "calls list", "getCall": "calls show", "endCall": "calls end", "createCall": "call", "moveCall": "move",
    "getCallTimeline": "call timeline", "listCallEvents": "calls events", "streamCallEvents": "events",
    "getConversation": "calls conversation", "writeConversation": "calls say", "getTool": "calls tool",
    "getCallUsage": "usage call", "listEvents": "events", "streamEvents": "events", "listRequests": "logs",
    "previewPlacement": "place", "listRegions": "regions", "getRegionMatrix": "regions matrix",
    "listKeys": "keys list", "createKey": "keys create", "rotateKey": "keys rotate", "revokeKey": "keys revoke",
    "changeKey": "keys change",
    "listMembers": "members list", "setMember": "members set", "removeMember": "members remove",
    "getPrivacy": "privacy show", "changePrivacy": "privacy set",
    "eraseCall": "calls erase", "createErasure": "erasures create", "listErasures": "erasures list",
    "getErasure": "erasures show", "getAgentSecret": "agent-secret show", "rotateAgentSecret": "agent-secret rotate",
    "getQuotas": "quotas", "getUsage": "usage", "getTargets": "targets list", "setTargets": "targets add",
    "listWebhooks": "webhooks list", "createWebhook": "webhooks create", "getWebhook": "webhooks show",
    "changeWebhook": "webhooks change", "deleteWebhook": "webhooks delete", "rotateWebhookSecret": "webhooks rotate",
    "getWebhookHealth": "webhooks health", "listAttempts": "webhooks attempts", "listDeliveries": "webhooks deliveries",
    "resendEvent": "webhooks resend", "recoverWebhook": "replay", "listReplays": "webhooks replays",
    "getReplay": "webhooks replays", "cancelReplay": "webhooks cancel", "testWebhook": "trigger",
    "getSigningSecret": "webhooks signing-secret",
    "listAudit": "audit list", "verifyAudit": "audit verify", "exportAudit": "audit export",
    "adminListAudit": "audit list", "adminVerifyAudit": "audit verify", "adminExportAudit": "audit export",
    "adminListProjects": "projects list", "adminCreateProject": "projects create", "adminGetProject": "projects show",
    "adminCreateKey": "projects key", "adminGetQuotas": "quotas", "adminSetQuotas": "quotas set",
    "adminChangeQuotas": "quotas set", "adminGetPrices": "usage price", "adminSetPrices": "usage price",
    "adminRefoldUsage": "usage refold",
    "adminListPeople": "people list", "adminCreatePerson": "people create", "adminGetPerson": "people show",
    "adminChangePerson": "people change", "adminRemovePerson": "people remove", "adminErasePerson": "people erase",
    "adminGrantMembership": "people grant",
    "adminWithdrawMembership": "people withdraw", "adminMakeSignInLink": "people link",
    "adminListRegions": "regions", "adminGetRegion": "regions health", "adminCreateRegion": "regions create",
    "adminChangeRegion": "regions change", "adminRegionHealth": "regions health", "adminEnrolEdge": "regions enrol",
    "adminCordonRegion": "regions cordon", "adminUncordonRegion": "regions uncordon", "adminDrainRegion": "regions drain",
    "adminEvacuateRegion": "regions evacuate", "adminGetRegionDrain": "regions progress", "adminRevokeRegion": "regions revoke",
    "adminListEdges": "edges", "adminGetEdge": "edges", "adminEdgeHealth": "edges health", "adminCordonEdge": "edges cordon",
    "adminUncordonEdge": "edges uncordon", "adminDrainEdge": "edges drain", "adminEvacuateEdge": "edges evacuate",
    "adminGetEdgeDrain": "edges progress", "adminRevokeEdge": "edges revoke", "adminRotateEdgeKey": "edges rotate-key",
    "adminListDrains": "fleet drains", "adminListWaitingCalls": "fleet waiting", "adminListEvents": "fleet events",
    "adminListFleetKeys": "fleet-keys list", "adminRotateFleetKeys": "fleet-keys rotate", "readiness": "fleet status",
    "adminStartDrill": "drill", "adminListDrills": "drills", "adminGetDrill": "drills show", "adminStopDrill": "drills stop",
}  # fmt: skip
NONE: dict[str, str] = {
    "jwks": "for programs that verify tokens",
    "health": "for supervisors",
    "metrics": "for Prometheus",
    "twilioGetCall": "for Twilio's clients",
    "twilioEndCall": "for Twilio's clients",
    "registerEdge": "an edge does it",
    "renewTicket": "a caller does it",
    "reportProbes": "a caller does it",
    "adminStreamEvents": "for programs; `voxplane fleet events` shows what there is",
}
WITHOUT_JSON = {"serve", "edge", "migrate", "up"}
"""They print for people, or nothing."""

HEADER = """# The command line

Generated from the commands (`make openapi`); do not edit.

`voxplane COMMAND --help` says what each takes, with an example. `--json` gives one JSON document, for machines. `VOXPLANE_URL` names
the API (several, separated by commas: the next is asked where one does not answer), `VOXPLANE_API_KEY` the project's key,
`VOXPLANE_OPERATOR_KEY` the platform's; beside a local `voxplane up` none of them need be set. Exit codes: 0 done, 1 tried and failed,
2 an argument or a setting is wrong, 130 interrupted and 143 told to stop by SIGTERM, before it was done; `voxplane up` that is told
to stop once it is ready ends with 0. `voxplane --install-completion` completes commands in bash, zsh, fish and
PowerShell; `--show-completion` prints what that would install. `voxplane --version` says which release this is.
"""


def leaves(command: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words."""
    command = get_command(app) if command is None else command
    inner = getattr(command, "commands", {})
    if name and (not inner or command.invoke_without_command):
        yield name, command
    for word, found in inner.items():
        yield from leaves(found, f"{name} {word}".strip())


def page(document: dict[str, Any]) -> str:
    """`document`: OpenAPI's."""
    lines = [HEADER, "## Commands", "", "| command | |", "|---|---|"]
    for name, command in sorted(leaves()):
        first = (command.help or "").strip().split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `voxplane {name}` | {first} |")
    lines += ["", "## Which command does what a route does", "", "| route | command |", "|---|---|"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            done = COMMANDS.get(operation["operationId"])
            shown = f"`voxplane {done}`" if done else NONE.get(operation["operationId"], "none")
            lines.append(f"| `{method.upper()} {path}` | {shown} |")
    return "\n".join(lines) + "\n"
