"""Webhook endpoints on the wire of the REST API."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

EventName = Annotated[str, Meta(min_length=1, max_length=64)]


class CreateWebhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`types`: the event types wanted; left out, all of them."""

    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    types: Annotated[list[EventName], Meta(min_length=1, max_length=64)] | None = None


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """`scope`: ``project``, or ``call`` for an endpoint that calls named by `webhook_url`."""

    id: str
    url: str
    scope: str
    types: list[str] | None
    enabled: bool
    disabled_reason: str | None
    created_at: str


class CreatedWebhook(WebhookView, frozen=True, kw_only=True):
    """`secret` (``whsec_…``) is shown this once."""

    secret: str


class WebhookPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[WebhookView]
    next_cursor: str | None = None


class SigningSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The project's own secret: signs what goes to the `webhook_url` of a call."""

    secret: str


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """`overtook`: an earlier event of the call was parked, and this one did not wait for it."""

    event_seq: int
    call_id: str
    attempt: int
    at: str
    duration_ms: int
    status: int | None
    error: str | None
    overtook: bool


class AttemptPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[AttemptView]
    next_cursor: str | None = None
