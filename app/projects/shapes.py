"""Projects and keys on the wire of the REST API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.projects.quotas_policy import KeyLimits
from app.projects.roles import RoleName

Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


class CreateProject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`mode`: projects of mode ``test`` never dial out and keep their data apart. `jurisdiction`: where its log is to lie; `cell`: in
    which cell. Neither: in the home cell. It stays there."""

    name: Name
    mode: Literal["live", "test"] = "test"
    jurisdiction: Annotated[str, Meta(min_length=2, max_length=16)] | None = None
    cell: Annotated[int, Meta(ge=0, le=4095)] | None = None


class ProjectView(msgspec.Struct, frozen=True, kw_only=True):
    """`jurisdiction`: of its cell, where its log lies; null where the deployment names none."""

    id: str
    name: str
    mode: str
    created_at: str
    cell: int
    jurisdiction: str | None


class ProjectPage(msgspec.Struct, frozen=True, kw_only=True):
    """`cells_away`: cells that did not answer; their projects are missing here."""

    data: list[ProjectView]
    cells_away: list[int] = []
    next_cursor: str | None = None


class CreateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`scopes` narrows what the role allows; empty means all of it. `allow_from`: addresses and networks (``203.0.113.0/24``,
    ``2001:db8::/48``) that it may be used from; empty means any. `limits`: of this key alone, within what its project
    and the key that creates it may use."""

    name: Name
    role: RoleName = "developer"
    scopes: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=64)] = []
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    allow_from: Annotated[list[Annotated[str, Meta(min_length=2, max_length=64)]], Meta(max_length=64)] = []
    limits: KeyLimits = msgspec.field(default_factory=KeyLimits)


class ChangeKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays. `role`, `scopes`: what the key may do already, or less; nothing makes it do more. With another `role`
    and no `scopes` the key keeps of its scopes those that the role has."""

    name: Name | UnsetType = UNSET
    role: RoleName | UnsetType = UNSET
    scopes: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=64)] | UnsetType = UNSET


class RotateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`overlap_s`: so long the secrets before the new one go on working at most, and never beyond the key's own end."""

    overlap_s: Annotated[int, Meta(ge=0, le=604_800)] = 86_400


class SecretBefore(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that a rotation has replaced, and that works until `expires_at`."""

    hint: str
    expires_at: str


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """`hint`: the last four characters of the secret. `before`: of older secrets that still work."""

    id: str
    name: str
    role: str
    scopes: list[str]
    hint: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    rotated_at: str | None
    allow_from: list[str]
    before: list[SecretBefore]
    limits: KeyLimits = msgspec.field(default_factory=KeyLimits)


class CreatedKey(KeyView, frozen=True, kw_only=True):
    """`secret` is shown this once."""

    secret: str


class KeyPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[KeyView]
    next_cursor: str | None = None


class TargetList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`targets`: inner hosts (``localhost:3000``), addresses and networks (``192.168.1.0/24``) that a test project's webhooks may
    reach."""

    targets: Annotated[list[Annotated[str, Meta(min_length=1, max_length=262)]], Meta(max_length=32)]


class RotateAgentSecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`overlap_s`: so long the present secret signs too. `version`: the one that is to be replaced; another is a conflict, so that a
    request that is sent again changes nothing twice."""

    overlap_s: Annotated[int, Meta(ge=0, le=604_800)] = 86_400
    version: Annotated[int, Meta(ge=1)] | None = None


class AgentSecretBefore(msgspec.Struct, frozen=True, kw_only=True):
    """Valid until `expires_at`."""

    version: int
    secret: str
    expires_at: str


class AgentSecretView(msgspec.Struct, frozen=True, kw_only=True):
    """`secret`, as it is written, is the key of the signatures. `before`: while two are valid, the older one."""

    version: int
    secret: str
    rotated_at: str | None
    before: AgentSecretBefore | None


class RequestView(msgspec.Struct, frozen=True, kw_only=True):
    """`route`: as it is written in the API, with names in place of ids. `duration_ms`: until the answer began. `left_out`: so many
    requests of the project were not kept just before, because there were too many at once."""

    request_id: str
    at: str
    method: str
    route: str
    status: int
    duration_ms: int
    key_id: str
    left_out: int


class RequestPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[RequestView]
    next_cursor: str | None = None
