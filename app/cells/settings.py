"""Which cells a deployment has, read from its environment. Pure.

Decides how `CELLS` and the databases' URLs are written, and refuses what would put a project into the wrong place: a cell
without a database, a database without a cell, the same one twice. What a database says of itself is compared by `app.db`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

ROLES = ("api", "keys", "append", "worker", "admin")
CELL_MAX = 4095
CELLS_MAX = 64
HOME_URL = "DATABASE_URL"
JURISDICTION = re.compile(r"[a-z][a-z0-9-]{1,15}")
SCHEMES = ("postgresql://", "postgres://")
_OF_CELL = re.compile(r"DATABASE_URL_CELL_([0-9]{1,4})(?:_(API|KEYS|APPEND|WORKER|ADMIN))?")


class SettingsError(Exception):
    """A setting that cannot be used; the text says which and how to write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSettings:
    """One PostgreSQL cluster. `jurisdiction`: where its log lies; empty where the deployment names none. `urls`: a login of its
    own for a role. `home`: it holds the fleet besides."""

    number: int
    jurisdiction: str = ""
    url: str
    urls: dict[str, str] = field(default_factory=dict)
    home: bool = False

    def lies_in(self, jurisdictions: tuple[str, ...]) -> bool:
        """Whether it lies where an instance runs that names these; without a name on either side it does."""
        return not jurisdictions or not self.jurisdiction or self.jurisdiction in jurisdictions

    @property
    def variable(self) -> str:
        """The setting that names its database, for whoever has to say what is wrong with it."""
        return HOME_URL if self.home else f"DATABASE_URL_CELL_{self.number}"


def cells_of(env: Mapping[str, str], lone: int) -> tuple[CellSettings, ...]:
    """The home cell first. `lone`: the number of the one cell where `CELLS` is not given. Raises `SettingsError`."""
    text = env.get("CELLS", "").strip()
    numbers = _numbers(text) if text else {lone: ""}
    home = next(iter(numbers))
    if text and env.get("VOXPLANE_CELL", "") not in ("", str(home)):
        raise SettingsError(f"leave VOXPLANE_CELL out: CELLS says that the home cell is {home}")
    given = _of_others(env, numbers, home)
    cells = [_home(env, home, numbers[home])]
    for number, jurisdiction in list(numbers.items())[1:]:
        urls = given.get(number, {})
        url = urls.pop("", "")
        if not url:
            raise SettingsError(f"set DATABASE_URL_CELL_{number} to the database of cell {number}")
        cells.append(CellSettings(number=number, jurisdiction=jurisdiction, url=url, urls=urls))
    _check_apart(cells)
    return tuple(cells)


def checked_jurisdiction(name: str, text: str) -> str:
    if not JURISDICTION.fullmatch(text):
        raise SettingsError(
            f"{name}: a jurisdiction is 2 to 16 lower-case letters, digits and dashes, such as eu"
        )
    return text


def _numbers(text: str) -> dict[int, str]:
    """Number → jurisdiction, in the order they are written in."""
    found: dict[int, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        number, sep, jurisdiction = (p.strip() for p in part.partition("="))
        if not sep or not number.isascii() or not number.isdigit() or int(number) > CELL_MAX:
            raise SettingsError(
                f"CELLS is a list like 0=us,1=eu: numbers from 0 to {CELL_MAX}, and the jurisdiction of each"
            )
        if int(number) in found:
            raise SettingsError(f"CELLS names cell {int(number)} twice")
        found[int(number)] = checked_jurisdiction("CELLS", jurisdiction)
    if not found:
        raise SettingsError("CELLS names no cell: leave it out, or write a list like 0=us,1=eu")
    if len(found) > CELLS_MAX:
        raise SettingsError(f"CELLS names {len(found)} cells: an instance serves {CELLS_MAX} at most")
    return found


def _home(env: Mapping[str, str], number: int, jurisdiction: str) -> CellSettings:
    url = env.get(HOME_URL, "")
    if not url.startswith(SCHEMES):
        raise SettingsError(
            "set DATABASE_URL to postgresql://user:password@host:port/database, or use `voxplane up`"
        )
    urls = {r: env[k] for r in ROLES if (k := f"{HOME_URL}_{r.upper()}") in env}
    return CellSettings(number=number, jurisdiction=jurisdiction, url=url, urls=urls, home=True)


def _of_others(env: Mapping[str, str], numbers: Mapping[int, str], home: int) -> dict[int, dict[str, str]]:
    """Number → role → URL; the role of the cell's own is empty."""
    found: dict[int, dict[str, str]] = {}
    for name, url in env.items():
        if not name.startswith("DATABASE_URL_CELL_"):
            continue
        match = _OF_CELL.fullmatch(name)
        if match is None:
            raise SettingsError(
                f"{name} is no setting: DATABASE_URL_CELL_<number>, or with _API, _KEYS, _APPEND, _WORKER, _ADMIN"
            )
        number = int(match.group(1))
        if number not in numbers:
            raise SettingsError(f"{name} is the database of a cell that CELLS does not name")
        if number == home:
            raise SettingsError(f"{name}: cell {number} is the home cell, and its database is DATABASE_URL")
        if not url.startswith(SCHEMES):
            raise SettingsError(f"set {name} to postgresql://user:password@host:port/database")
        found.setdefault(number, {})[(match.group(2) or "").lower()] = url
    return found


def _check_apart(cells: list[CellSettings]) -> None:
    seen: dict[str, CellSettings] = {}
    for cell in cells:
        other = seen.setdefault(cell.url, cell)
        if other is not cell:
            raise SettingsError(
                f"{cell.variable} is the database of cell {other.number} already: each cell has one of its own"
            )
