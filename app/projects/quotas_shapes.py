"""Quotas on the wire of the REST API. What a limit is stands in `app.projects.quotas_policy`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.projects.quotas_policy import Count, DefaultLimits, Destinations, KeyLimits, Limits, QuotaName


class ChangeLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is named is changed; null takes the limit away, and then the deployment's default holds. What is given a limit is not
    `unbounded` any more; `unbounded` is replaced whole."""

    concurrent_calls: Count | UnsetType | None = UNSET
    creates_per_s: Annotated[int, Meta(ge=1, le=100000)] | UnsetType | None = UNSET
    max_duration_s: Annotated[int, Meta(ge=1, le=86400)] | UnsetType | None = UNSET
    destinations: Destinations | UnsetType | None = UNSET
    webhook_backlog: Annotated[int, Meta(ge=1, le=1000000)] | UnsetType | None = UNSET
    unbounded: Annotated[list[QuotaName], Meta(max_length=5)] | UnsetType = UNSET


class ProjectQuotas(msgspec.Struct, frozen=True, kw_only=True):
    """`limits`: that operators have set. `default`: the deployment's, for those that they have not. `version`: its ETag; 0 until
    an operator has set any."""

    project_id: str
    limits: Limits
    default: DefaultLimits
    version: int


class QuotaUse(msgspec.Struct, frozen=True, kw_only=True):
    """One quota and how much of it is used at the moment. `limit` null: nothing bounds it. `used`: of calls at once, those that have
    not ended; of creates, those of the last second that still count; of the backlog, the deliveries that wait for the fullest
    endpoint, counted every few seconds."""

    name: str
    scope: str
    limit: int | None
    used: int
    window_s: int | None = None


class QuotasView(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows the project, what this key may use of it, and what is used."""

    project: DefaultLimits
    key: KeyLimits
    use: list[QuotaUse]
