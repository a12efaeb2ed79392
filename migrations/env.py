"""Alembic's environment: one online upgrade over asyncpg, under an advisory lock so that instances may race."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from app import connection as our
from app.primary import Hosts

LOCK = 7423000


def upgrade(connection: Connection) -> None:
    connection.execute(text(f"select pg_advisory_lock({LOCK})"))
    try:
        connection.commit()
        context.configure(connection=connection, target_metadata=None)
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text(f"select pg_advisory_unlock({LOCK})"))
        connection.commit()


async def run() -> None:
    hosts = Hosts(context.config.attributes["database_url"])
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: hosts.connect(timeout=10, connection_class=our.Connection),
        poolclass=NullPool,
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()


asyncio.run(run())
