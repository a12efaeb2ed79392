"""Edges and regions that are trusted no more, and edges that are to have another key, over HTTP. Decides nothing: parses, asks
`Revocations` or `EdgeKeys`, answers."""

from __future__ import annotations

from typing import Any

from litestar import post
from litestar.params import FromPath, JSONBody

from app.dependencies import ControlIn, OperatorIn
from app.fleet.edge_keys import ASKED
from app.fleet.revocation import ACTION
from app.fleet.routes import edge_view
from app.fleet.shapes import EdgeView, Revoke, RevokeView, RotateEdgeKey

DEFAULT, ROTATE_DEFAULT = Revoke(), RotateEdgeKey()


@post(
    "/admin/v1/edges/{edge_id:str}/revoke",
    operation_id="adminRevokeEdge",
    audit=ACTION,
    tags=["fleet"],
    status_code=200,
    summary="Cut an edge off for good: its uplink, its tokens, its keys",
)
async def revoke_edge(
    edge_id: FromPath[str],
    control: ControlIn,
    operator: OperatorIn,
    data: JSONBody[Revoke | None] = None,
) -> RevokeView:
    """Its calls are evacuated, its name takes a fresh enrolment with another key, and enrolment tokens of the region that nobody has
    used yet are void."""
    return await control.revocations.edge(edge_id, (data or DEFAULT).reason)


@post(
    "/admin/v1/regions/{region_id:str}/revoke",
    operation_id="adminRevokeRegion",
    audit=ACTION,
    tags=["fleet"],
    status_code=200,
    summary="Cut off all edges of a region for good",
)
async def revoke_region(
    region_id: FromPath[str],
    control: ControlIn,
    operator: OperatorIn,
    data: JSONBody[Revoke | None] = None,
) -> RevokeView:
    """It is evacuated, and takes no calls until it is uncordoned: enrol edges anew, then `POST …/uncordon`."""
    return await control.revocations.region(region_id, (data or DEFAULT).reason)


@post(
    "/admin/v1/edges/{edge_id:str}/rotate-key",
    operation_id="adminRotateEdgeKey",
    audit=ASKED,
    tags=["fleet"],
    status_code=200,
    summary="Have an edge take another key; the one before holds for a while",
)
async def rotate_edge_key(
    edge_id: FromPath[str],
    control: ControlIn,
    operator: OperatorIn,
    data: JSONBody[RotateEdgeKey | None] = None,
) -> EdgeView:
    """The edge makes it: within a second or two where it has an uplink, else when it has one again. `key.asked_at` says so until
    then. No call and no uplink is touched. Where somebody else may have the present key, revoke the edge instead."""
    return edge_view(await control.edge_keys.ask(edge_id, (data or ROTATE_DEFAULT).overlap_s))


ROUTES: list[Any] = [revoke_edge, revoke_region, rotate_edge_key]
