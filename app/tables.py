"""The tables that SQLAlchemy Core statements name. The schema itself stands in ``migrations/sql``."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, Float, Integer, LargeBinary, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(schema="vx")
Time = DateTime(timezone=True)

projects = Table(
    "projects",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text),
    Column("mode", Text),
    Column("settings", JSONB),
    Column("version", Integer),
    Column("created_at", Time),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", Uuid),
    Column("name", Text),
    Column("role", Text),
    Column("scopes", ARRAY(Text)),
    Column("secret_hash", LargeBinary),
    Column("hint", Text),
    Column("created_at", Time),
    Column("expires_at", Time),
    Column("revoked_at", Time),
    Column("last_used_at", Time),
    Column("limits", JSONB),
    Column("rotated_at", Time),
    Column("allow_from", ARRAY(Text)),
)

key_secrets = Table(
    "key_secrets",
    metadata,
    Column("secret_hash", LargeBinary, primary_key=True),
    Column("key_id", Uuid),
    Column("project_id", Uuid),
    Column("hint", Text),
    Column("valid_until", Time),
)

regions = Table(
    "regions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text),
    Column("jurisdiction", Text),
    Column("latitude", Float),
    Column("longitude", Float),
    Column("admin_state", Text),
    Column("weight", Float),
    Column("proximity", Text),
    Column("price_ms", Float),
    Column("version", Integer),
    Column("created_at", Time),
)

edges = Table(
    "edges",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("region", Text),
    Column("name", Text),
    Column("admin_state", Text),
    Column("version", Integer),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", Uuid),
    Column("scope", Text),
    Column("url", Text),
    Column("description", Text),
    Column("types", ARRAY(Text)),
    Column("metadata", JSONB(none_as_null=True)),
    Column("secrets", JSONB),
    Column("signatures", ARRAY(Text)),
    Column("headers", LargeBinary),
    Column("header_names", ARRAY(Text)),
    Column("format", Text),
    Column("rate_per_s", Integer),
    Column("concurrency", Integer),
    Column("local_targets", Boolean),
    Column("enabled", Boolean),
    Column("disabled_reason", Text),
    Column("verified_at", Time),
    Column("failing_since", Time),
    Column("warned", Integer),
    Column("waiting", Integer),
    Column("full_since", Time),
    Column("version", Integer),
    Column("created_at", Time),
    Column("named_at", Time),
    Column("unnamed_at", Time),
    Column("deleted_at", Time),
)
