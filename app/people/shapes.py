"""People on the wire of the REST API."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from app.projects.roles import RoleName

Email = Annotated[str, Meta(min_length=3, max_length=254)]
PersonName = Annotated[str, Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
ProjectId = Annotated[str, Meta(min_length=1, max_length=64)]


class CreatePerson(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`operator`: of the platform: regions, edges, projects and people, and no project's calls."""

    email: Email
    name: PersonName = ""
    operator: bool = False


class ChangePerson(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    operator: bool


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: RoleName


class MakeLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`purpose`: who opens the link is signed in (ten minutes), or may set the account's password (two days)."""

    purpose: Literal["sign_in", "password"] = "password"


class SignInLink(msgspec.Struct, frozen=True, kw_only=True):
    """For one use. `url` begins with the console's own where the deployment names it, else it is the same as `path`."""

    url: str
    path: str
    expires_at: str


class MembershipView(msgspec.Struct, frozen=True, kw_only=True):
    project: str
    role: str


class PersonView(msgspec.Struct, frozen=True, kw_only=True):
    """`ways`: how the person may sign in: ``password``, ``provider``; none yet: by a link only."""

    id: str
    email: str
    name: str
    operator: bool
    memberships: list[MembershipView]
    ways: list[str]
    created_at: str
    signed_in_at: str | None


class PersonPage(msgspec.Struct, frozen=True, kw_only=True):
    """By address; the first five hundred."""

    data: list[PersonView]
    next_cursor: str | None = None


class PersonErased(msgspec.Struct, frozen=True, kw_only=True):
    """`entries`: of the audit log, that have lost address and summary now. `done`: none is left; else ask again. `cells_away`: cells
    that did not answer; what their logs have is still there."""

    person: str
    entries: int
    done: bool
    cells_away: list[int] = []


class SetMember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of somebody who has an account."""

    email: Email
    role: RoleName


class MemberView(msgspec.Struct, frozen=True, kw_only=True):
    """What a project knows of its people."""

    id: str
    email: str
    name: str
    role: str
    signed_in_at: str | None


class MemberPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[MemberView]
    next_cursor: str | None = None
