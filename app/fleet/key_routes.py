"""The fleet's key sets over HTTP, for operators. Decides nothing: parses, asks the `Keyring`, answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import get, post
from litestar.params import JSONBody
from msgspec import Meta

from app.clock import rfc3339
from app.control import Control
from app.dependencies import ControlIn, OperatorIn
from app.fleet.keyring import KINDS, LEAD_S, OVERLAP_S


class RotateFleetKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`kinds`: both where none is named. `lead_s`: so long the new key is told to everybody before it is used. `overlap_s`: so long
    after that those before it still open and verify; 0 cuts off every ticket and snapshot from before: calls go on where they are,
    and need a new ticket to move."""

    kinds: Annotated[list[Literal["fleet", "signing"]], Meta(max_length=2)] = []
    lead_s: Annotated[int, Meta(ge=0, le=3_600)] = int(LEAD_S)
    overlap_s: Annotated[int, Meta(ge=0, le=2_592_000)] = int(OVERLAP_S)


class FleetKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """`drops_at`: when it is destroyed; null where no other follows it yet."""

    kind: str
    id: str
    created_at: str
    used_from: str
    drops_at: str | None


class FleetKeyPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[FleetKeyView]


@get("/admin/v1/fleet-keys", operation_id="adminListFleetKeys", tags=["fleet"])
async def list_fleet_keys(control: ControlIn, operator: OperatorIn) -> FleetKeyPage:
    """The keys that seal for edges (`fleet`) and sign tickets (`signing`), without their secrets, the newest first."""
    return await _page(control)


@post(
    "/admin/v1/fleet-keys/rotate",
    operation_id="adminRotateFleetKeys",
    audit="fleet_keys.rotated",
    tags=["fleet"],
    status_code=200,
    summary="New keys for the fleet; those before open for a while, then nowhere",
)
async def rotate_fleet_keys(
    control: ControlIn, operator: OperatorIn, data: JSONBody[RotateFleetKeys | None] = None
) -> FleetKeyPage:
    """The body may be left out. After the compromise of an edge: `overlap_s` 0 and a short `lead_s`."""
    wanted = data or RotateFleetKeys()
    kinds = [kind for kind in KINDS if kind in wanted.kinds or not wanted.kinds]

    async def note(connection: Any) -> None:
        said = {"kinds": kinds, "lead_s": wanted.lead_s, "overlap_s": wanted.overlap_s}
        await control.audit.record(connection, "fleet_keys.rotated", summary=said)

    await control.keyring.rotate(kinds, lead_s=wanted.lead_s, overlap_s=wanted.overlap_s, note=note)
    return await _page(control)


async def _page(control: Control) -> FleetKeyPage:
    return FleetKeyPage(
        data=[
            FleetKeyView(
                kind=key.kind,
                id=key.id,
                created_at=rfc3339(key.created_at),
                used_from=rfc3339(key.used_from),
                drops_at=rfc3339(key.drops_at) if key.drops_at else None,
            )
            for key in await control.keyring.states()
        ]
    )


ROUTES: list[Any] = [list_fleet_keys, rotate_fleet_keys]
