"""What each role may do, and who acts. Pure: a role is a set of permissions, and a key's scopes narrow it.

Decides which permission stands in which role, and which one contains another; that a route asks for one is the route's own business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

RoleName = Literal["owner", "admin", "developer", "operator", "viewer", "billing"]

_READ = {"calls:read", "events:read", "webhooks:read", "regions:read", "targets:read", "requests:read"}
_OPERATE = {"calls:operate", "webhooks:resend"}
_WRITE = {"calls:write", "webhooks:write", "conversation:read", "conversation:write"}
_BILLS = {"usage:read", "quotas:read"}
_ADMIN = {
    "keys:read",
    "keys:write",
    "members:read",
    "members:write",
    "targets:write",
    "agent-secret:read",
    "agent-secret:write",
    "audit:read",
    "erasures:read",
    "erasures:write",
    "privacy:read",
    "privacy:write",
}
_DEVELOPER = _READ | _OPERATE | _WRITE
ROLE_SCOPES: dict[str, frozenset[str]] = {
    "billing": frozenset(_BILLS),
    "viewer": frozenset(_READ),
    "operator": frozenset(_READ | _OPERATE),
    "developer": frozenset(_DEVELOPER),
    "admin": frozenset(_DEVELOPER | _ADMIN | _BILLS),
    "owner": frozenset(_DEVELOPER | _ADMIN | _BILLS),
}
SCOPES = ROLE_SCOPES["owner"]
CONTAINS: dict[str, frozenset[str]] = {
    "calls:write": frozenset({"calls:operate"}),
    "webhooks:write": frozenset({"webhooks:resend"}),
}
"""Who may create a call may end it too: a key narrowed to the one has the other."""


def permissions(role: str, scopes: Iterable[str] = ()) -> frozenset[str]:
    """Of a key or a person with this role, narrowed to `scopes` where there are any. A role that is not known has none."""
    allowed = ROLE_SCOPES.get(role, frozenset())
    wanted = frozenset(scopes)
    if not wanted:
        return allowed
    return allowed & wanted.union(*(CONTAINS.get(scope, frozenset()) for scope in wanted))


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it, as it is written down. `id`: of the key or the person; never a secret or an address."""

    kind: Literal["key", "person", "operator", "edge", "system"]
    id: str
