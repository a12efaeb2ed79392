"""An interpreter with Patroni in it that the engines' account can run.

Where we are root the engines run as nobody, who may not be able to read our interpreter (below a closed home) or our
packages. Then both are copied, once, to where everybody may read them: the standard library, and what Patroni imports.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from app.local.folder import CACHE, cached_copy
from app.local.process import Account, EngineError

PACKAGES = (
    "patroni", "python-etcd", "dnspython", "urllib3", "psycopg", "psycopg-binary", "PyYAML", "click", "prettytable",
    "wcwidth", "python-dateutil", "psutil", "ydiff", "typing_extensions",
)  # fmt: skip
LEFT_OUT = shutil.ignore_patterns(
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "config-*",
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    executable: Path
    environment: dict[str, str] = field(default_factory=dict)


def find_interpreter(account: Account, cache: Path = CACHE) -> Interpreter:
    """Ours, or a copy of it; raises `EngineError` where Patroni is not installed."""
    try:
        packages = {name: distribution(name) for name in PACKAGES}
    except PackageNotFoundError as error:
        raise EngineError(
            "missing",
            f"Patroni is not installed as it is needed ({error.name} is not there).",
            "Install voxplane-server[ha] (make does it), or set DATABASE_URL to a cluster of yours.",
        ) from None
    executable = Path(sys.executable)
    standard = Path(sysconfig.get_path("stdlib"))
    site = Path(str(packages["patroni"].locate_file("")))
    if not account.demoted or all(_open(p) for p in (executable, executable.resolve(), standard, site)):
        return Interpreter(executable)

    def fill(made: Path) -> None:
        (made / "bin").mkdir()
        shutil.copy2(executable.resolve(), made / "bin" / "python3")
        home = made / sys.platlibdir / standard.name
        shutil.copytree(standard, home, ignore=LEFT_OUT, symlinks=True)
        if sysconfig.get_config_var("Py_ENABLE_SHARED"):
            library = Path(sysconfig.get_config_var("LIBDIR")) / sysconfig.get_config_var("INSTSONAME")
            shutil.copy2(library, made / sys.platlibdir / library.name)
        for package in packages.values():
            for file in package.files or ():
                source = Path(str(package.locate_file(file)))
                if ".." in file.parts or not source.is_file():
                    continue
                target = made / "packages" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    versions = " ".join(f"{name} {package.version}" for name, package in packages.items())
    copied = cached_copy(f"{executable.resolve()} {sys.version} {site} {versions}", fill, cache)
    return Interpreter(
        copied / "bin" / "python3",
        {
            "PYTHONHOME": str(copied),
            "PYTHONPATH": str(copied / "packages"),
            "LD_LIBRARY_PATH": str(copied / sys.platlibdir),
        },
    )


def _open(path: Path) -> bool:
    """Everybody may read it, and walk to it."""
    return path.stat().st_mode & 0o004 != 0 and all(p.stat().st_mode & 0o001 for p in path.parents)
