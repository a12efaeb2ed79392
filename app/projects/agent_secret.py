"""The secret by which a project's backends know that it is we who dial them. Pure.

It is derived, not stored: HMAC-SHA256 under the master key, over the project and the number of the version. Every project has one
from its beginning, and what is kept is the number alone. So it can be shown again at any time to whoever might change it, and a
backend that has lost it needs no new one, which would touch calls that run. It is handed out as text, and that text is the key.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from regions.wire.ticket import AgentSecret

PREFIX = "agsec_"
SETTING = "agent_secret"
Derive = Callable[[bytes], bytes]


class Version(NamedTuple):
    """`before_until_s`: until when (Unix seconds) the version before is valid too; 0: it is not."""

    number: int = 1
    before_until_s: int = 0

    def following(self, now_s: int, overlap_s: int) -> Version:
        return Version(self.number + 1, now_s + overlap_s if overlap_s else 0)


FIRST = Version()


def version_of(settings: dict[str, Any]) -> Version:
    """As a project's settings have it."""
    kept = settings.get(SETTING)
    return Version(kept["version"], kept["before_until_s"]) if kept else FIRST


def setting(version: Version, rotated_at: str) -> dict[str, Any]:
    return {
        SETTING: {
            "version": version.number,
            "before_until_s": version.before_until_s,
            "rotated_at": rotated_at,
        }
    }


@lru_cache(maxsize=4_096)
def secret(derive: Derive, project_id: UUID, number: int) -> str:
    """Remembered: every ticket of the project carries it, and what is derived never changes."""
    made = derive(b"agent secret:%b:%d" % (project_id.bytes, number))
    return PREFIX + base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def valid(derive: Derive, project_id: UUID, version: Version, now_s: int) -> list[AgentSecret]:
    """Those that sign at this time, the newest first."""
    found = [AgentSecret(secret=secret(derive, project_id, version.number))]
    if now_s < version.before_until_s:
        before = secret(derive, project_id, version.number - 1)
        found.append(AgentSecret(secret=before, until_s=version.before_until_s))
    return found
