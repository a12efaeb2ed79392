"""Rotates the master key: a new one wraps, those before it still open, and what they had wrapped is wrapped anew.

Decides the files (`master.key` wraps, ``master-next.key`` and ``master-old-*.key`` only open) and the order that leaves no instance
with something it cannot open: every folder has the next key before any instance wraps with it, and an old one goes only once
nothing in any cell is wrapped by it. Each step may be taken twice.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from app.cells.settings import CellSettings
from app.db import Database
from app.vault import MASTER_KEY_FILE, LocalKeys, VaultError, put_whole

NEXT_FILE = "master-next.key"
PAGE = 500

# By what a wrapped secret is bound to, beside the row's id.
SELECT = {
    "content": "select id, wrapped from vx.content_keys where wrapped is not null",
    "signing": "select kid as id, wrapped from vx.signing_keys",
    "fleet": "select id, wrapped from vx.fleet_keys",
    "audit": "select kid as id, wrapped from vx.audit_keys",
}
PUT = {
    "content": "update vx.content_keys set wrapped = $3 where id = $1 and wrapped = $2",
    "signing": "update vx.signing_keys set wrapped = $3 where kid = $1 and wrapped = $2",
    "fleet": "update vx.fleet_keys set wrapped = $3 where id = $1 and wrapped = $2",
    "audit": "update vx.audit_keys set wrapped = $3 where kid = $1 and wrapped = $2",
}
SELECT_HOOKS = """
select id, secrets, headers from vx.webhooks where ($1::uuid is null or id > $1) order by id limit $2
"""
PUT_SECRETS = "update vx.webhooks set secrets = $3 where id = $1 and secrets = $2"
PUT_HEADERS = "update vx.webhooks set headers = $3 where id = $1 and headers = $2"


class Rewrapped(msgspec.Struct, kw_only=True):
    """How many secrets were looked at, were wrapped anew, and open under no master key that is here."""

    looked_at: int = 0
    rewrapped: int = 0
    unopened: int = 0


def prepare(folder: Path) -> tuple[Path, bool]:
    """The next master key beside the present one; True where it was made now."""
    path = folder / NEXT_FILE
    there = path.exists()
    put_whole(path, LocalKeys.from_file(folder / MASTER_KEY_FILE).successor())
    return path, not there


def turn(folder: Path, now: datetime) -> bool:
    """The next master key takes the place of the present one, which stays beside it to open. False where there is no next one."""
    present, following = folder / MASTER_KEY_FILE, folder / NEXT_FILE
    if not following.exists():
        return False
    if present.exists() and present.read_bytes() != following.read_bytes():
        put_whole(folder / f"master-old-{now.astimezone(UTC):%Y%m%dT%H%M%S}.key", present.read_bytes())
    following.replace(present)
    return True


def old_keys(folder: Path) -> list[Path]:
    return sorted(folder.glob("master-old-*.key"))


async def rewrap(cells: Iterable[CellSettings], keys: LocalKeys, *, change: bool = True) -> Rewrapped:
    """All that a master key has wrapped, in every cell. Without `change` it counts. Raises what the driver raises."""
    told = Rewrapped()
    for cell in cells:
        async with Database.open(
            cell.url, cell=cell.number, jurisdiction=cell.jurisdiction, urls=cell.urls
        ) as db:
            for kind in SELECT:
                await _rewrap_keys(db, kind, keys, told, change=change)
            await _rewrap_hooks(db, keys, told, change=change)
    return told


async def _rewrap_keys(db: Database, kind: str, keys: LocalKeys, told: Rewrapped, *, change: bool) -> None:
    for row in await db.pool("admin").fetch(SELECT[kind]):
        fresh = _fresh(row["wrapped"], f"{kind}:{row['id']}", keys, told)
        if fresh is not None and change:
            await db.pool("admin").execute(PUT[kind], row["id"], row["wrapped"], fresh)


async def _rewrap_hooks(db: Database, keys: LocalKeys, told: Rewrapped, *, change: bool) -> None:
    async for row in _hooks(db):
        secrets = msgspec.json.decode(row["secrets"])
        changed = False
        for secret in secrets:
            fresh = _fresh(base64.b64decode(secret["wrapped"]), f"webhook:{row['id']}", keys, told)
            if fresh is not None:
                secret["wrapped"], changed = base64.b64encode(fresh).decode(), True
        if changed and change:
            after = msgspec.json.encode(secrets).decode()
            await db.pool("worker").execute(PUT_SECRETS, row["id"], row["secrets"], after)
        if row["headers"]:
            fresh = _fresh(row["headers"], f"webhook headers:{row['id']}", keys, told)
            if fresh is not None and change:
                await db.pool("worker").execute(PUT_HEADERS, row["id"], row["headers"], fresh)


async def _hooks(db: Database) -> AsyncIterator[Any]:
    after = None
    while rows := await db.pool("worker").fetch(SELECT_HOOKS, after, PAGE):
        for row in rows:
            yield row
        after = rows[-1]["id"]


def _fresh(wrapped: bytes, bound_to: str, keys: LocalKeys, told: Rewrapped) -> bytes | None:
    """Wrapped by the newest master key; None where it is already, or opens under none."""
    told.looked_at += 1
    if keys.is_newest(wrapped, bound_to):
        return None
    try:
        plain = keys.unwrap(wrapped, bound_to)
    except VaultError:
        told.unopened += 1
        return None
    told.rewrapped += 1
    return keys.wrap(plain, bound_to)


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        os.unlink(path)
