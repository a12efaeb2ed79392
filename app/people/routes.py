"""People over HTTP: all of them for operators, its own members for a project. Decides nothing: parses, asks `People`, answers."""

from __future__ import annotations

from typing import Any

from litestar import delete, get, patch, post, put
from litestar.params import FromPath, JSONBody

from app.dependencies import ControlIn, OperatorIn, PrincipalIn
from app.people.shapes import (
    ChangePerson,
    CreatePerson,
    Grant,
    MakeLink,
    MemberPage,
    MemberView,
    PersonErased,
    PersonPage,
    PersonView,
    SetMember,
    SignInLink,
)


@post("/admin/v1/people", operation_id="adminCreatePerson", audit="person.created", tags=["people"])
async def create_person(data: JSONBody[CreatePerson], control: ControlIn, operator: OperatorIn) -> PersonView:
    """An account without a password: its person signs in by the provider, or sets one by a link."""
    return await control.door.people.create(data)


@get("/admin/v1/people", operation_id="adminListPeople", tags=["people"])
async def list_people(control: ControlIn, operator: OperatorIn) -> PersonPage:
    return PersonPage(data=await control.door.people.all())


@get("/admin/v1/people/{person_id:str}", operation_id="adminGetPerson", tags=["people"])
async def get_person(person_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> PersonView:
    """By id or by e-mail address."""
    return await control.door.people.get(person_id)


@patch(
    "/admin/v1/people/{person_id:str}",
    operation_id="adminChangePerson",
    audit="person.changed",
    tags=["people"],
)
async def change_person(
    person_id: FromPath[str], data: JSONBody[ChangePerson], control: ControlIn, operator: OperatorIn
) -> PersonView:
    """Makes somebody an operator of the platform, or no longer one."""
    return await control.door.people.set_operator(person_id, data.operator)


@delete(
    "/admin/v1/people/{person_id:str}",
    operation_id="adminRemovePerson",
    audit="person.removed",
    tags=["people"],
)
async def remove_person(person_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> None:
    """The account and what hangs on it; its sessions end at once."""
    await control.door.people.remove(person_id)


@post(
    "/admin/v1/people/{person_id:str}/erase",
    operation_id="adminErasePerson",
    audit="audit.details_erased",
    tags=["people"],
    status_code=200,
    summary="Take what the audit log has of somebody who was removed out of it",
)
async def erase_person(person_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> PersonErased:
    """Address and summary of all entries that they made, or that are about them. Who did what to what, when, and by which request
    stays, and the log verifies as before. There is no way back."""
    return await control.door.people.erase(person_id)


@put(
    "/admin/v1/people/{person_id:str}/memberships/{project_id:str}",
    operation_id="adminGrantMembership",
    audit="member.set",
    tags=["people"],
)
async def grant(
    person_id: FromPath[str],
    project_id: FromPath[str],
    data: JSONBody[Grant],
    control: ControlIn,
    operator: OperatorIn,
) -> PersonView:
    return await control.door.people.grant(person_id, project_id, data.role)


@delete(
    "/admin/v1/people/{person_id:str}/memberships/{project_id:str}",
    operation_id="adminWithdrawMembership",
    audit="member.removed",
    tags=["people"],
    status_code=200,
)
async def withdraw(
    person_id: FromPath[str], project_id: FromPath[str], control: ControlIn, operator: OperatorIn
) -> PersonView:
    return await control.door.people.withdraw(person_id, project_id)


@post(
    "/admin/v1/people/{person_id:str}/links",
    operation_id="adminMakeSignInLink",
    audit="person.link_made",
    tags=["people"],
)
async def make_link(
    person_id: FromPath[str], data: JSONBody[MakeLink], control: ControlIn, operator: OperatorIn
) -> SignInLink:
    """For one use, and shown this once."""
    return await control.door.people.link(person_id, data.purpose)


@get("/v1/members", operation_id="listMembers", tags=["people"], summary="The project's people")
async def list_members(control: ControlIn, principal: PrincipalIn) -> MemberPage:
    principal.require("members:read")
    return MemberPage(data=await control.door.people.members(principal))


@put(
    "/v1/members",
    operation_id="setMember",
    audit="member.set",
    tags=["people"],
    summary="Give somebody a role in the project",
)
async def set_member(data: JSONBody[SetMember], control: ControlIn, principal: PrincipalIn) -> MemberView:
    """Somebody who has an account. Who gives a role has to have it."""
    principal.require("members:write")
    return await control.door.people.set_member(principal, data.email, data.role)


@delete(
    "/v1/members/{person_id:str}",
    operation_id="removeMember",
    audit="member.removed",
    tags=["people"],
    summary="Take somebody out of the project",
)
async def remove_member(person_id: FromPath[str], control: ControlIn, principal: PrincipalIn) -> None:
    principal.require("members:write")
    await control.door.people.remove_member(principal, person_id)


ROUTES: list[Any] = [
    create_person, list_people, get_person, change_person, remove_person, erase_person, grant, withdraw, make_link,
    list_members, set_member, remove_member,
]  # fmt: skip
