"""Brings a database to the newest schema. Decides where the scripts are and what to call; Alembic does the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config

import migrations


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    return config


async def migrate(database_url: str) -> None:
    """Upgrades to the newest revision; doing it twice, or on several instances at once, changes nothing."""
    await asyncio.to_thread(command.upgrade, _config(database_url), "head")
