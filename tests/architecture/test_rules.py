"""The habits of the house, as far as a machine can see them. Each rule is small; a break names the place and the way out."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = [
    ROOT / "app",
    ROOT / "regions",
    ROOT / "openapi" / "clients" / "python" / "src",
    ROOT / "docs" / "examples",
]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
PURE_NAMES = {"machine", "choice", "detector", "plan", "retry", "signature", "policy", "creation"}
PURE_FILES = {
    "regions/edge/handover.py",
    "regions/edge/kept.py",
    "app/fleet/arrivals.py",
    "app/fleet/drill_plan.py",
    "app/fleet/drill_policy.py",
    "app/fleet/reserve.py",
    "app/fleet/drill_report.py",
    "app/fleet/drill_views.py",
    "app/fleet/votes.py",
    "app/fleet/verdicts.py",
    "app/placement/again.py",
    "app/placement/gain.py",
    "regions/edge/lease.py",
    "regions/edge/listening.py",
    "regions/agents/redial.py",
    "regions/media/hold_sound.py",
    "regions/edge/caller_turns.py",
    "regions/edge/outbox.py",
    "regions/edge/peer.py",
    "regions/edge/played.py",
    "regions/edge/probe_gate.py",
    "regions/edge/witnesses.py",
    "regions/edge/speech.py",
    "regions/edge/takeover.py",
    "regions/edge/utterances.py",
    "regions/media/barge_in.py",
    "regions/media/level.py",
    "regions/media/opinion.py",
    "regions/media/phrases.py",
    "regions/media/playout.py",
    "regions/media/turns.py",
    "regions/agents/text.py",
    "regions/agents/twilio.py",
    "openapi/clients/python/src/voxplane/watch.py",
}
IMPURE = {
    "asyncio", "asyncpg", "httpx", "litestar", "os", "picows", "random", "redis", "secrets", "socket", "sqlalchemy",
    "subprocess", "threading", "time", "urllib3", "uvicorn", "websockets",
}  # fmt: skip
NOW = {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("date", "today"),
    ("time", "time"),
    ("time", "monotonic"),
}
CLOCKS = {"app/clock.py", "regions/edge/clock.py"}


def sources(*roots: Path) -> Iterator[Path]:
    for root in roots:
        yield from sorted(p for p in root.rglob("*.py") if "__pycache__" not in p.parts)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def trees(*roots: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sources(*roots):
        yield name(path), tree_of(path)


def tracked() -> list[Path]:
    """Every file of the project, whether this is a clone or an unpacked archive."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode == 0:
        return [ROOT / f for f in listed.stdout.split("\0") if f and (ROOT / f).is_file()]
    kept = (
        p
        for p in ROOT.rglob("*")
        if p.is_file() and not set(p.parts) & {".venv", ".git", "build", "__pycache__"}
    )
    return list(kept)


def test_files_are_short() -> None:
    long = {name(p): n for p in sources(*CODE) if (n := len(p.read_text().splitlines())) > FILE_LINES_MAX}
    assert not long, f"look for the missing noun in {long}"


def test_functions_are_short() -> None:
    long = [
        f"{path}:{node.name} has {length} lines"
        for path, tree in trees(*CODE)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long, f"look for the missing noun in {long}"


def test_modules_begin_with_what_they_decide() -> None:
    mute = [path for path, tree in trees(*CODE) if tree.body and not ast.get_docstring(tree)]
    assert not mute, (
        f"the first paragraph of a module says what it decides and what it leaves to others: {mute}"
    )


def test_decisions_are_pure() -> None:
    """No I/O, no clock, no chance: `now`, ids and draws are parameters."""
    found = []
    for path, tree in trees(*CODE):
        if Path(path).stem not in PURE_NAMES and path not in PURE_FILES:
            continue
        for node in ast.walk(tree):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            found += [f"{path} imports {m}" for m in modules if m.split(".")[0] in IMPURE]
            if isinstance(node, ast.Await | ast.AsyncFunctionDef):
                found.append(f"{path}:{node.lineno} waits")
    assert {Path(f).stem for f in PURE_FILES} | PURE_NAMES >= {"choice", "machine", "takeover"}
    assert not found


def test_the_control_plane_reads_its_clock_in_one_place() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, tree in trees(ROOT / "app")
        if path not in CLOCKS and not path.startswith(("app/local/", "app/cli"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr) in NOW
        and (node.func.value.id, node.func.attr) != ("time", "monotonic")
    ]
    assert not found, f"ask the Clock that is passed in: {found}"


def test_sql_is_never_glued_from_values() -> None:
    """A statement is a constant of its module; where a name has to be put in later, the line says `# sql: names only`."""
    verbs = re.compile(r"^\s*(select|insert|update|delete|with|alter|create|grant)\b")
    found = []
    for path in sources(ROOT / "app"):
        text = path.read_text()
        lines = text.splitlines()
        inside = [
            inner
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for inner in ast.walk(node)
        ]
        for node in inside:
            if not isinstance(node, ast.JoinedStr):
                continue
            first = node.values[0]
            starts = (
                isinstance(first, ast.Constant) and isinstance(first.value, str) and verbs.match(first.value)
            )
            if starts and "sql: names only" not in lines[node.lineno - 1]:
                found.append(f"{name(path)}:{node.lineno}")
    assert not found, f"pass values as parameters: {found}"


def test_no_exception_is_swallowed_unseen() -> None:
    found = []
    for path, tree in trees(*CODE):
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id == "BaseException")
            if broad and not any(isinstance(n, ast.Raise) for n in ast.walk(node)):
                found.append(f"{path}:{node.lineno}")
    assert not found


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("an open end", r"\b(TODO|FIXME|XXX)\b|NotImplementedError"),
        ("an address of a package registry", r"pypi\.org|files\.pythonhosted|registry\.npmjs|--(extra-)?index-url|/simple/"),
        ("a path of one machine", r"/(work|root|home/[a-z]+)/[a-z.]|/tmp/vx"),
        ("a test that is skipped", r"pytest\.(mark\.)?(skip|xfail)"),
    ],
)  # fmt: skip
def test_no_file_carries(what: str, pattern: str) -> None:
    expression = re.compile(pattern)
    here = Path(__file__)
    found = []
    for path in tracked():
        if path == here or path.suffix in (".png", ".wav", ".ico", ".woff2"):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if expression.search(line):
                found.append(f"{name(path)}:{number}: {line.strip()[:80]}")
    assert not found, f"{what}: {found}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_pin_every_package_by_hash(lock: str) -> None:
    blocks = re.split(r"\n(?=[a-zA-Z0-9])", (ROOT / lock).read_text())
    packages = [b for b in blocks if re.match(r"[a-zA-Z0-9]", b)]
    assert len(packages) > 30
    for block in packages:
        assert re.match(r"[A-Za-z0-9._\[\]-]+==\S+", block), block.splitlines()[0]
        assert "--hash=sha256:" in block, block.splitlines()[0]
    names = [re.split(r"[=\[]", block, maxsplit=1)[0] for block in packages]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"one version on every Python, or what is checked on one fails on another: {twice}"


def test_the_runtime_lock_is_part_of_the_development_lock() -> None:
    def pins(lock: str) -> set[str]:
        return set(
            re.findall(r"^([A-Za-z0-9._-]+(?:\[[a-z,]+\])?==\S+)", (ROOT / lock).read_text(), re.MULTILINE)
        )

    assert pins("requirements.lock") <= pins("requirements-dev.lock")


def test_tests_name_no_time_to_sleep_but_to_poll() -> None:
    """`asyncio.sleep` in tests only inside a loop: to look again, never to hope."""
    found = []
    for path, tree in trees(ROOT / "tests"):
        if path.startswith(("tests/bench", "tests/simulation")):
            # what runs in the simulator sleeps in virtual time
            continue
        looped = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.While | ast.For | ast.AsyncFor)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            call = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "sleep"
            )
            if call and id(node) not in looped:
                argument = node.args[0] if node.args else None  # type: ignore[attr-defined]
                if not (isinstance(argument, ast.Constant) and argument.value == 0):
                    found.append(f"{path}:{node.lineno}")  # type: ignore[attr-defined]
    assert not found, f"wait for a condition: {found}"


def test_the_tree_is_the_one_that_is_described() -> None:
    top = {p.relative_to(ROOT).parts[0] for p in tracked()}
    allowed = {
        "app", "migrations", "regions", "tests", "openapi", "deploy", "docs", "pyproject.toml", "README.md",
        "Makefile", "LICENSE", "requirements.lock", "requirements-dev.lock",
    }  # fmt: skip
    assert {t for t in top if not t.startswith(".")} <= allowed


def test_an_edge_imports_nothing_of_the_control_plane() -> None:
    """Not even by way of others: the base distribution has to run an edge."""
    program = (
        "import sys, regions.edge.main\n"
        "heavy = {'app', 'litestar', 'sqlalchemy', 'asyncpg', 'alembic', 'voxplane'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_client_library_imports_nothing_of_the_server() -> None:
    program = (
        "import sys, voxplane\n"
        "heavy = {'app', 'regions', 'litestar', 'sqlalchemy', 'picows'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_example_backend_stands_alone() -> None:
    own = {"grammar", "dialogue", "speech_to_text", "synthesis", "backend"}
    found = []
    for path, tree in trees(ROOT / "docs" / "examples"):
        for node in ast.walk(tree):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [module or ""]
            found += [f"{path}: {n}" for n in names if n.split(".")[0] in {"app", "regions"} and n not in own]
    assert not found


def test_base_dependencies_run_an_edge_and_no_more() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {re.split(r"[^A-Za-z0-9-]", d)[0].lower() for d in project["dependencies"]}
    assert not base & {"litestar", "sqlalchemy", "asyncpg", "alembic", "pocketsphinx"}
    assert {"control", "demo"} <= set(project["optional-dependencies"])
