"""Webhook endpoints over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, delete, get, patch, post
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from app.dependencies import ControlIn, PrincipalIn
from app.queries import PagingIn
from app.webhooks.shapes import (
    AttemptPage,
    ChangeWebhook,
    CreatedWebhook,
    CreateWebhook,
    DeliveryPage,
    HealthView,
    Recover,
    ReplayPage,
    ReplayView,
    Resend,
    RotateSecret,
    SigningSecret,
    TestResult,
    TestWebhook,
    WebhookPage,
    WebhookView,
)
from app.webhooks.signature import write_secret

State = Annotated[str | None, QueryParameter(name="state", required=False)]
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", required=False)]


@post(
    "/v1/webhooks",
    operation_id="createWebhook",
    audit="webhook.created",
    tags=["webhooks"],
    summary="Have events sent to a URL",
)
async def create_webhook(
    data: JSONBody[CreateWebhook], control: ControlIn, principal: PrincipalIn
) -> CreatedWebhook:
    principal.require("webhooks:write")
    return await control.webhooks.create(principal, data)


@get("/v1/webhooks", operation_id="listWebhooks", tags=["webhooks"], summary="The project's endpoints")
async def list_webhooks(control: ControlIn, principal: PrincipalIn, paging: PagingIn) -> WebhookPage:
    """Its own, the newest first; then those that creates have named by `webhook_url`."""
    principal.require("webhooks:read")
    found, at = await control.webhooks.page(principal, paging.cursor, paging.limit)
    return WebhookPage(data=found, next_cursor=at)


@get(
    "/v1/webhooks/signing-secret",
    operation_id="getSigningSecret",
    tags=["webhooks"],
    summary="The secret that signs what goes to the webhook_url of calls",
)
async def signing_secret(control: ControlIn, principal: PrincipalIn) -> SigningSecret:
    principal.require("webhooks:write")
    await control.audit.read(principal.project_id, "signing_secret.read")
    return SigningSecret(
        secret=write_secret(await control.webhooks.named.signing_secret(principal.project_id))
    )


@get("/v1/webhooks/{webhook_id:str}", operation_id="getWebhook", tags=["webhooks"], summary="One endpoint")
async def get_webhook(
    webhook_id: FromPath[str], control: ControlIn, principal: PrincipalIn
) -> Response[WebhookView]:
    principal.require("webhooks:read")
    view, version = await control.webhooks.get(principal, webhook_id)
    return Response(view, headers={"ETag": f'"{version}"'})


@patch(
    "/v1/webhooks/{webhook_id:str}",
    operation_id="changeWebhook",
    audit="webhook.changed",
    tags=["webhooks"],
    summary="Change an endpoint, disable or enable it",
)
async def change_webhook(
    webhook_id: FromPath[str],
    data: JSONBody[ChangeWebhook],
    control: ControlIn,
    principal: PrincipalIn,
    if_match: IfMatch = None,
) -> Response[WebhookView]:
    principal.require("webhooks:write")
    view, version = await control.webhooks.change(principal, webhook_id, data, if_match)
    return Response(view, headers={"ETag": f'"{version}"'})


@delete(
    "/v1/webhooks/{webhook_id:str}",
    operation_id="deleteWebhook",
    audit="webhook.deleted",
    tags=["webhooks"],
    summary="Remove an endpoint; what waits for it is dropped",
)
async def delete_webhook(webhook_id: FromPath[str], control: ControlIn, principal: PrincipalIn) -> None:
    principal.require("webhooks:write")
    await control.webhooks.delete(principal, webhook_id)


@post(
    "/v1/webhooks/{webhook_id:str}/rotate",
    operation_id="rotateWebhookSecret",
    audit="webhook.secret_rotated",
    tags=["webhooks"],
    status_code=200,
    summary="A new secret; the present one signs too for a while",
)
async def rotate_secret(
    webhook_id: FromPath[str], data: JSONBody[RotateSecret], control: ControlIn, principal: PrincipalIn
) -> CreatedWebhook:
    principal.require("webhooks:write")
    return await control.webhooks.rotate(principal, webhook_id, data)


@post(
    "/v1/webhooks/{webhook_id:str}/test",
    operation_id="testWebhook",
    tags=["webhooks"],
    status_code=200,
    summary="Send one signed example event now",
)
async def send_test_event(
    webhook_id: FromPath[str], data: JSONBody[TestWebhook], control: ControlIn, principal: PrincipalIn
) -> TestResult:
    principal.require("webhooks:write")
    return await control.webhook_tests.send(principal, webhook_id, data)


@get(
    "/v1/webhooks/{webhook_id:str}/health",
    operation_id="getWebhookHealth",
    tags=["webhooks"],
    summary="How deliveries to an endpoint do",
)
async def get_health(webhook_id: FromPath[str], control: ControlIn, principal: PrincipalIn) -> HealthView:
    principal.require("webhooks:read")
    return await control.webhook_record.health(principal, webhook_id)


@get(
    "/v1/webhooks/{webhook_id:str}/attempts",
    operation_id="listAttempts",
    tags=["webhooks"],
    summary="Attempts, the newest first",
)
async def list_attempts(
    webhook_id: FromPath[str], control: ControlIn, principal: PrincipalIn, paging: PagingIn
) -> AttemptPage:
    principal.require("webhooks:read")
    found, at = await control.webhook_record.attempts(principal, webhook_id, paging.cursor, paging.limit)
    return AttemptPage(data=found, next_cursor=at)


@get(
    "/v1/webhooks/{webhook_id:str}/deliveries",
    operation_id="listDeliveries",
    tags=["webhooks"],
    summary="Deliveries and their states, those of the newest calls first",
)
async def list_deliveries(
    webhook_id: FromPath[str],
    control: ControlIn,
    principal: PrincipalIn,
    paging: PagingIn,
    in_state: State = None,
) -> DeliveryPage:
    principal.require("webhooks:read")
    found, at = await control.webhook_record.deliveries(
        principal, webhook_id, in_state, paging.cursor, paging.limit
    )
    return DeliveryPage(data=found, next_cursor=at)


@post(
    "/v1/webhooks/{webhook_id:str}/resend",
    operation_id="resendEvent",
    audit="webhook.resent",
    tags=["webhooks"],
    status_code=202,
    summary="Send one event again",
)
async def resend(
    webhook_id: FromPath[str], data: JSONBody[Resend], control: ControlIn, principal: PrincipalIn
) -> None:
    principal.require("webhooks:resend")
    await control.webhook_recovery.resend(principal, webhook_id, data)


@post(
    "/v1/webhooks/{webhook_id:str}/recover",
    operation_id="recoverWebhook",
    audit="webhook.recovered",
    tags=["webhooks"],
    status_code=202,
    summary="Send again what failed or was missed since a time",
)
async def recover(
    webhook_id: FromPath[str], data: JSONBody[Recover], control: ControlIn, principal: PrincipalIn
) -> ReplayView:
    principal.require("webhooks:resend")
    return await control.webhook_recovery.recover(principal, webhook_id, data)


@get(
    "/v1/webhooks/{webhook_id:str}/replays",
    operation_id="listReplays",
    tags=["webhooks"],
    summary="Replays, the newest first",
)
async def list_replays(webhook_id: FromPath[str], control: ControlIn, principal: PrincipalIn) -> ReplayPage:
    principal.require("webhooks:read")
    return ReplayPage(data=await control.webhook_recovery.all(principal, webhook_id))


@get(
    "/v1/webhooks/{webhook_id:str}/replays/{replay_id:str}",
    operation_id="getReplay",
    tags=["webhooks"],
    summary="How far a replay is",
)
async def get_replay(
    webhook_id: FromPath[str], replay_id: FromPath[str], control: ControlIn, principal: PrincipalIn
) -> ReplayView:
    principal.require("webhooks:read")
    return await control.webhook_recovery.get(principal, webhook_id, replay_id)


@post(
    "/v1/webhooks/{webhook_id:str}/replays/{replay_id:str}/cancel",
    operation_id="cancelReplay",
    audit="webhook.replay_canceled",
    tags=["webhooks"],
    status_code=200,
    summary="Queue nothing more of a replay",
)
async def cancel_replay(
    webhook_id: FromPath[str], replay_id: FromPath[str], control: ControlIn, principal: PrincipalIn
) -> ReplayView:
    principal.require("webhooks:resend")
    return await control.webhook_recovery.cancel(principal, webhook_id, replay_id)


ROUTES: list[Any] = [
    create_webhook, list_webhooks, signing_secret, get_webhook, change_webhook, delete_webhook, rotate_secret,
    send_test_event, get_health, list_attempts, list_deliveries, resend, recover, list_replays, get_replay, cancel_replay,
]  # fmt: skip
