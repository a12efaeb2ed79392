"""Usage and prices over HTTP. Decides nothing but the form of the answer: JSON, or CSV where that is asked for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from litestar import MediaType, Request, Response, get, post, put
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from app.conditions import version_named
from app.control import Control
from app.dependencies import ControlIn, OperatorIn, PrincipalIn
from app.ids import parse
from app.usage.policy import csv
from app.usage.service import Usages
from app.usage.shapes import CallUsage, GroupBy, PriceList, PriceVersion, Refolded, Usage
from regions.wire import ids

PRICES = "/admin/v1/projects/{project_id:str}/prices"
CSV = "text/csv"
Day = Annotated[str | None, QueryParameter(required=False, description="A day in UTC, such as 2026-01-31.")]


@get(
    "/v1/usage", operation_id="getUsage", tags=["usage"], summary="What calls have used, and what that costs"
)
async def get_usage(
    request: Request[Any, Any, Any],
    control: ControlIn,
    principal: PrincipalIn,
    first: Annotated[
        str | None, QueryParameter(name="from", required=False, description="The first day, in UTC.")
    ] = None,
    to: Day = None,
    group_by: Annotated[GroupBy, QueryParameter(required=False)] = "day",
    shape: Annotated[Literal["json", "csv"] | None, QueryParameter(name="format", required=False)] = None,
) -> Response[Usage]:
    """Of calls that ended on these days, `to` not included; without them the last thirty. As CSV with `format=csv`, or where `Accept`
    names `text/csv` and not JSON."""
    principal.require("usage:read")
    found = await control.usages.read(principal, first, to, group_by)
    accepted = request.headers.get("accept", "")
    if shape == "csv" or (shape is None and CSV in accepted and "json" not in accepted):
        name = f"usage-{found.from_}-{found.to}-{group_by}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Vary": "Accept"}
        text: Any = csv(found.data, group_by)
        return Response(text, media_type=CSV, headers=headers)
    return Response(found, media_type=MediaType.JSON, headers={"Vary": "Accept"})


@get(
    "/v1/calls/{call_id:str}/usage",
    operation_id="getCallUsage",
    tags=["usage"],
    summary="What each owner of a call has carried",
)
async def get_call_usage(call_id: FromPath[str], control: ControlIn, principal: PrincipalIn) -> CallUsage:
    principal.require("usage:read")
    return await control.usages.of_call(principal, call_id)


@get(PRICES, operation_id="adminGetPrices", tags=["usage"])
async def admin_get_prices(
    project_id: FromPath[str], control: ControlIn, operator: OperatorIn
) -> Response[PriceList]:
    return _with_etag(await _of(control, project_id).price_list(project_id))


@put(PRICES, operation_id="adminSetPrices", audit="prices.changed", tags=["usage"])
async def admin_set_prices(
    project_id: FromPath[str],
    data: JSONBody[PriceVersion],
    control: ControlIn,
    operator: OperatorIn,
    if_match: Annotated[str | None, HeaderParameter(name="If-Match", required=False)] = None,
) -> Response[PriceList]:
    """The prices from a day on, until the next version's; in place of those of that very day."""
    version = version_named(if_match, "prices")
    return _with_etag(await _of(control, project_id).put_price(project_id, version, data))


@post(
    "/admin/v1/projects/{project_id:str}/usage/refold",
    operation_id="adminRefoldUsage",
    audit="usage.refolded",
    tags=["usage"],
    status_code=202,
)
async def admin_refold(project_id: FromPath[str], control: ControlIn, operator: OperatorIn) -> Refolded:
    """Folds all calls whose events are kept anew from the log. The sums stay whole meanwhile, and come out the same."""
    return await _of(control, project_id).refold(project_id)


def _of(control: Control, project_id: str) -> Usages:
    return (control.cells.of(parse(ids.PROJECT, project_id)) or control).usages


def _with_etag(prices: PriceList) -> Response[PriceList]:
    return Response(prices, headers={"ETag": f'"{prices.version}"'})


ROUTES: list[Any] = [get_usage, get_call_usage, admin_get_prices, admin_set_prices, admin_refold]
