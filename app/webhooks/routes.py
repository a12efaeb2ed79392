"""Webhook endpoints over HTTP."""

from __future__ import annotations

from typing import Any

from litestar import delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from app.calls.routes import bounded
from app.dependencies import ControlIn, PrincipalIn
from app.webhooks.shapes import AttemptPage, CreatedWebhook, CreateWebhook, SigningSecret, WebhookPage
from app.webhooks.signature import write_secret


@post("/v1/webhooks", operation_id="createWebhook", tags=["webhooks"], summary="Have events sent to a URL")
async def create_webhook(
    data: JSONBody[CreateWebhook], control: ControlIn, principal: PrincipalIn
) -> CreatedWebhook:
    principal.require("webhooks:write")
    return await control.webhooks.create(principal, data)


@get("/v1/webhooks", operation_id="listWebhooks", tags=["webhooks"])
async def list_webhooks(control: ControlIn, principal: PrincipalIn) -> WebhookPage:
    principal.require("webhooks:read")
    return WebhookPage(data=await control.webhooks.all(principal))


@get("/v1/webhooks/signing-secret", operation_id="getSigningSecret", tags=["webhooks"])
async def signing_secret(control: ControlIn, principal: PrincipalIn) -> SigningSecret:
    principal.require("webhooks:write")
    return SigningSecret(secret=write_secret(await control.webhooks.signing_secret(principal.project_id)))


@delete("/v1/webhooks/{webhook_id:str}", operation_id="deleteWebhook", tags=["webhooks"])
async def delete_webhook(webhook_id: FromPath[str], control: ControlIn, principal: PrincipalIn) -> None:
    principal.require("webhooks:write")
    await control.webhooks.delete(principal, webhook_id)


@get("/v1/webhooks/{webhook_id:str}/attempts", operation_id="listAttempts", tags=["webhooks"])
async def list_attempts(
    webhook_id: FromPath[str],
    control: ControlIn,
    principal: PrincipalIn,
    limit: FromQuery[int] = 50,
) -> AttemptPage:
    principal.require("webhooks:read")
    return AttemptPage(data=await control.webhooks.attempts(principal, webhook_id, bounded(limit)))


ROUTES: list[Any] = [create_webhook, list_webhooks, signing_secret, delete_webhook, list_attempts]
