"""Accounts and memberships: who is there, and what each may do in which project.

Decides who may change whom: the platform's operators everyone, a project's admins the people of their project. People live in
the home cell, whichever cell their projects are in.
"""

from __future__ import annotations

import os
from uuid import UUID

import structlog

from app.cells.cells import Cells
from app.clock import Clock, rfc3339
from app.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from app.ids import new_id, parse
from app.people.policy import PASSWORD_LINK_LIFE, SECRET_BYTES, SIGN_IN_LINK_LIFE, email_of, hash_of, token_of
from app.people.shapes import CreatePerson, MembershipView, MemberView, PersonErased, PersonView, SignInLink
from app.people.store import PeopleStore, Person
from app.projects.auth import Principal
from app.projects.roles import permissions
from regions.wire import ids

log = structlog.get_logger()

LINK_PATHS = {"sign_in": "/console/sign-in/link", "password": "/console/sign-in/password"}


class People:
    def __init__(self, store: PeopleStore, clock: Clock, cells: Cells, console_url: str) -> None:
        self._store = store
        self._clock = clock
        self._cells = cells
        self._console_url = console_url

    # ------------------------------------------------------------------------------------------------- for operators

    async def create(self, body: CreatePerson) -> PersonView:
        person_id = new_id(self._cells.home.cell.number)
        email = self._email(body.email)
        if not await self._store.insert(person_id, email, body.name, body.operator, self._clock.now()):
            raise Conflict("There is an account with this address already.", fix="Grant it what it lacks.")
        log.info("person.created", person=ids.encode(ids.PERSON, person_id), operator=body.operator)
        return self.view(await self._known(person_id))

    async def all(self) -> list[PersonView]:
        return [self.view(p) for p in await self._store.all()]

    async def get(self, text: str) -> PersonView:
        return self.view(await self.person(text))

    async def remove(self, text: str) -> None:
        """The account, with its sessions, links and memberships; at once, everywhere."""
        person = await self.person(text)
        await self._store.remove(person.id)
        log.info("person.removed", person=ids.encode(ids.PERSON, person.id))

    async def erase(self, text: str) -> PersonErased:
        """What the audit logs of all cells have of somebody who has no account any more: address and summary, of what they did and
        of what was done to them. Raises `NotFound`, `Conflict`."""
        person_id = parse(ids.PERSON, text)
        if person_id is None:
            raise NotFound(
                "This is no person's id.",
                fix="The address went with the account. The id stands in the audit log, at `person.removed`.",
            )
        if await self._store.one(person_id) is not None:
            raise Conflict(
                "This person still has an account.",
                fix="Remove it first: voxplane people remove. What an account does is accounted for.",
            )
        name = ids.encode(ids.PERSON, person_id)
        answers, away = await self._cells.ask(lambda c: c.audit.erase_person(name))
        entries, done = sum(n for n, _ in answers), all(d for _, d in answers) and not away
        log.info("person.erased", person=name, entries=entries, done=done)
        return PersonErased(person=name, entries=entries, done=done, cells_away=away)

    async def set_operator(self, text: str, operator: bool) -> PersonView:
        person = await self.person(text)
        await self._store.set_operator(person.id, operator)
        return self.view(await self._known(person.id))

    async def grant(self, text: str, project: str, role: str) -> PersonView:
        person = await self.person(text)
        project_id, _ = await self._project(project)
        await self._put(person.id, project_id, role)
        return self.view(await self._known(person.id))

    async def withdraw(self, text: str, project: str) -> PersonView:
        person, project_id = await self.person(text), parse(ids.PROJECT, project)
        if project_id is None or project_id not in person.roles:
            raise NotFound("This person is not a member of that project.")
        await self._store.drop_membership(person.id, project_id, last_owner=True)
        return self.view(await self._known(person.id))

    async def link(self, text: str, purpose: str) -> SignInLink:
        """For one use: who opens it is signed in, or may set the account's password."""
        person = await self.person(text)
        life = PASSWORD_LINK_LIFE if purpose == "password" else SIGN_IN_LINK_LIFE
        secret, until = token_of(os.urandom(SECRET_BYTES)), self._clock.now() + life
        await self._store.put_link(hash_of(secret), person.id, purpose, until)
        log.info("person.link_made", person=ids.encode(ids.PERSON, person.id), purpose=purpose)
        path = f"{LINK_PATHS[purpose]}#{secret}"
        return SignInLink(url=f"{self._console_url}{path}", path=path, expires_at=rfc3339(until))

    # ------------------------------------------------------------------------------------------------- for a project

    async def members(self, principal: Principal) -> list[MemberView]:
        found = await self._store.of_project(principal.project_id)
        return [self._member(p, principal.project_id) for p in found]

    async def set_member(self, principal: Principal, email: str, role: str) -> MemberView:
        """Somebody who has an account becomes a member, or gets another role. An owner's role is an owner's to give and to take."""
        self._check_role(principal, role)
        person = await self._store.by_email(self._email(email))
        if person is None:
            raise NotFound(
                "Nobody with this address has an account here.",
                fix="A platform operator makes one: voxplane people create.",
            )
        self._check_role(principal, person.roles.get(principal.project_id, "viewer"))
        await self._put(person.id, principal.project_id, role)
        return self._member(await self._known(person.id), principal.project_id)

    async def remove_member(self, principal: Principal, text: str) -> None:
        person_id = parse(ids.PERSON, text)
        person = await self._store.one(person_id) if person_id is not None else None
        if person is None or principal.project_id not in person.roles:
            raise NotFound("There is no such member of this project.")
        self._check_role(principal, person.roles[principal.project_id])
        if await self._store.drop_membership(person.id, principal.project_id) is False:
            raise _last_owner()

    # ----------------------------------------------------------------------------------------------------------------

    async def person(self, text: str) -> Person:
        """By id or by address; raises `NotFound`."""
        if "@" in text:
            found = await self._store.by_email(text.strip().lower())
        else:
            person_id = parse(ids.PERSON, text)
            found = await self._store.one(person_id) if person_id is not None else None
        if found is None:
            raise NotFound("There is no such person.", fix="`voxplane people list` names them.")
        return found

    async def _known(self, person_id: UUID) -> Person:
        found = await self._store.one(person_id)
        if found is None:
            raise NotFound("This person has been removed meanwhile.")
        return found

    async def _project(self, text: str) -> tuple[UUID, str]:
        of_project = self._cells.of(parse(ids.PROJECT, text)) or self._cells.home
        return await of_project.projects.mode_of(text)

    async def _put(self, person_id: UUID, project_id: UUID, role: str) -> None:
        if not await self._store.put_membership(person_id, project_id, role):
            raise _last_owner()

    def _check_role(self, principal: Principal, role: str) -> None:
        if not permissions(role) <= principal.scopes or (role == "owner" and principal.role != "owner"):
            raise Forbidden(f"Only who may do as much gives or takes the role {role}.", fix="Ask an owner.")

    def _email(self, text: str) -> str:
        found = email_of(text)
        if found is None:
            raise Invalid(
                "This is not an e-mail address.",
                errors=[FieldError(pointer="/email", detail="must look like ada@example.com")],
            )
        return found

    def _member(self, person: Person, project_id: UUID) -> MemberView:
        return MemberView(
            id=ids.encode(ids.PERSON, person.id),
            email=person.email,
            name=person.name,
            role=person.roles[project_id],
            signed_in_at=rfc3339(person.signed_in_at) if person.signed_in_at else None,
        )

    def view(self, person: Person) -> PersonView:
        return PersonView(
            id=ids.encode(ids.PERSON, person.id),
            email=person.email,
            name=person.name,
            operator=person.operator,
            memberships=[
                MembershipView(project=ids.encode(ids.PROJECT, p), role=role)
                for p, role in sorted(person.roles.items())
            ],
            ways=["password"] * person.has_password + ["provider"] * person.has_provider,
            created_at=rfc3339(person.created_at),
            signed_in_at=rfc3339(person.signed_in_at) if person.signed_in_at else None,
        )


def _last_owner() -> Conflict:
    return Conflict(
        "This is the project's last owner among its people.", fix="Make somebody else an owner first."
    )
