"""The embedded engines: data outlive every way to die, and what cannot be started says why and what to do."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio as redis

from app.local.deployment import PLACES, Deployment, RegionUp
from app.local.folder import keep_whole, reachable_binaries, temporary_folder
from app.local.ha import Cluster
from app.local.ha_etcd import Etcd
from app.local.postgres import Postgres
from app.local.process import Account, EngineError, free_port, is_alive
from app.local.valkey import Valkey

ROOT = Path(__file__).parents[2]
PARENT = """
import asyncio, sys
from pathlib import Path
from app.local.postgres import Postgres
from app.local.valkey import Valkey

async def main():
    folder = Path(sys.argv[1])
    async with Postgres(folder / "postgres", fsync=False) as postgres, Valkey(folder / "valkey") as valkey:
        print(postgres.pid, valkey.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One for the module: making a database takes most of a second. Each test leaves its engines stopped."""
    made = temporary_folder("voxplane-engines")
    yield made
    shutil.rmtree(made)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    made = temporary_folder("voxplane-engines")
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def postgres(folder: Path) -> AsyncIterator[Postgres]:
    """Not started."""
    made = Postgres(folder / "postgres", fsync=False)
    yield made
    await made.stop()


@pytest.fixture
async def valkey(folder: Path) -> AsyncIterator[Valkey]:
    """Not started."""
    made = Valkey(folder / "valkey")
    yield made
    await made.stop()


async def sql(postgres: Postgres, statement: str) -> object:
    connection = await asyncpg.connect(postgres.dsn, timeout=10)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def refused(engine: Postgres | Valkey) -> EngineError:
    with pytest.raises(EngineError) as raised:
        await engine.start()
    error = raised.value
    assert error.detail
    assert error.fix
    assert str(error) == f"{error.detail} {error.fix}"
    return error


async def gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while is_alive(pid):
            await asyncio.sleep(0.01)


async def test_one_that_cannot_start_again_keeps_no_other_from_it(
    postgres: Postgres, valkey: Valkey, folder: Path
) -> None:
    valkey.port = free_port()
    await asyncio.gather(postgres.start(), valkey.start())
    deployment = Deployment(folder, postgres=postgres)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as edge:
        deployment.regions["us-east"] = RegionUp(PLACES[0], valkey, edge, 9)
        for engine in (postgres, valkey):
            os.kill(engine.pid, signal.SIGKILL)
            engine.process.wait()
        told: list[str] = []
        with socket.create_server(("127.0.0.1", valkey.port)), pytest.raises(EngineError, match="is taken"):
            await deployment.mend(told.append)
        assert told == ["PostgreSQL"]
        assert await deployment.mend(told.append) == ["the Valkey of us-east"]
    assert await sql(postgres, "select 1") == 1


async def test_an_etcd_that_cannot_start_again_is_tried_again_and_keeps_nobody_from_it(
    postgres: Postgres, elsewhere: Path
) -> None:
    peer = free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        etcd = Etcd(elsewhere / "etcd-1", "etcd-1", other.getsockname()[1], {"etcd-1": peer})
        deployment = Deployment(elsewhere, postgres=postgres)
        deployment.cluster = Cluster(elsewhere, etcds={"etcd-1": etcd})
        told: list[str] = []
        for _ in range(2):
            with pytest.raises(EngineError):
                await deployment.mend(told.append)
    assert told == ["PostgreSQL"]


@pytest.mark.parametrize("kind", [Postgres, Valkey])
async def test_a_file_that_cannot_be_written_beside_the_data_is_told(
    kind: type[Postgres | Valkey], elsewhere: Path
) -> None:
    engine = kind(elsewhere / "engine")
    (engine.folder / "engine.pid").mkdir(parents=True)
    error = await refused(engine)
    assert error.code == "not_writable"
    assert "engine.pid" in error.detail


def test_what_cannot_be_written_whole_stays_as_it_was(elsewhere: Path) -> None:
    kept = elsewhere / "profile.json"
    keep_whole(kept, "before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        with pytest.raises(EngineError):
            keep_whole(kept, "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert kept.read_text() == "before"
    assert [f.name for f in elsewhere.iterdir()] == ["profile.json"]
    assert kept.stat().st_mode & 0o777 == 0o600


async def test_rows_survive_a_stop_and_a_kill_of_the_server(postgres: Postgres, folder: Path) -> None:
    await postgres.start()
    port, password = postgres.port, postgres.dsn
    await sql(postgres, "drop table if exists kept")
    await sql(postgres, "create table kept as select 1 as n")
    await postgres.stop()
    await postgres.start()
    await sql(postgres, "insert into kept values (2)")
    os.kill(postgres.pid, signal.SIGKILL)
    await postgres.stop()

    again = Postgres(folder / "postgres", fsync=False)
    async with again:
        assert (again.port, again.dsn) == (port, password)
        assert await sql(again, "select sum(n) from kept") == 3


async def test_keys_survive_a_stop_and_a_kill_of_the_server(valkey: Valkey) -> None:
    for name in ("first", "second"):
        await valkey.start()
        async with redis.from_url(valkey.url) as client:
            await client.set(name, name)
        if name == "first":
            await valkey.stop()
    os.kill(valkey.pid, signal.SIGKILL)
    await valkey.stop()
    await valkey.start()
    async with redis.from_url(valkey.url, decode_responses=True) as client:
        assert await client.mget("first", "second") == ["first", "second"]


@pytest.mark.parametrize("kind", [Postgres, Valkey])
async def test_a_port_that_is_taken_is_named(kind: type[Postgres | Valkey], folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = await refused(kind(folder / kind.__name__.lower(), port=port))
    assert error.code == "port_taken"
    assert str(port) in error.detail
    assert str(port) in error.fix


async def test_a_kept_port_that_was_taken_meanwhile_is_left(postgres: Postgres) -> None:
    await postgres.start()
    port = postgres.port
    await postgres.stop()
    with socket.create_server(("127.0.0.1", port)):
        again = Postgres(postgres.folder, fsync=False)
        async with again:
            assert again.port != port


@pytest.mark.parametrize("kind", [Postgres, Valkey])
async def test_data_of_another_user_are_left_alone(kind: type[Postgres | Valkey], elsewhere: Path) -> None:
    engine = elsewhere / "engine"
    if os.geteuid() == 0:
        (engine / "data").mkdir(parents=True)
        os.chown(engine / "data", 12345, 12345)
    else:
        engine = Path("/usr")  # root's
    error = await refused(kind(engine))
    assert error.code == "foreign_owner"
    assert str(engine) in error.detail


async def test_data_of_another_version_are_left_alone(elsewhere: Path) -> None:
    data = elsewhere / "data"
    data.mkdir()
    Account().own(data)
    (data / "PG_VERSION").write_text("16\n")
    error = await refused(Postgres(elsewhere))
    assert error.code == "other_version"
    assert "PostgreSQL 16" in error.detail
    assert [f.name for f in data.iterdir()] == ["PG_VERSION"]


async def test_a_folder_without_a_database_is_left_alone(elsewhere: Path) -> None:
    data = elsewhere / "data"
    data.mkdir()
    Account().own(data)
    (data / "somebody's.txt").write_text("mine")
    assert (await refused(Postgres(elsewhere))).code == "no_database"
    assert (data / "somebody's.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", [Postgres, Valkey])
async def test_one_start_at_a_time(kind: type[Postgres | Valkey], folder: Path) -> None:
    async with kind(folder / kind.__name__.lower()) as first:
        error = await refused(kind(first.folder))
        assert error.code == "in_use"
        assert str(first.folder) in error.detail
        assert is_alive(first.pid)
        if isinstance(first, Postgres):
            assert await sql(first, "select 1") == 1


async def test_of_many_starts_at_once_one_wins(folder: Path) -> None:
    starts = [Postgres(folder / "postgres", fsync=False) for _ in range(4)]
    done = await asyncio.gather(*(p.start() for p in starts), return_exceptions=True)
    assert sorted(e.code if isinstance(e, EngineError) else "" for e in done) == ["", *["in_use"] * 3]
    for each in starts:
        await each.stop()


async def test_engines_do_not_outlive_a_parent_that_is_killed(postgres: Postgres, valkey: Valkey) -> None:
    folder = postgres.folder.parent
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        line = await asyncio.to_thread(parent.stdout.readline)
        pids = [int(pid) for pid in line.split()]
        assert len(pids) == 2
    finally:
        parent.kill()
        parent.communicate()
    # at once, while the old ones are still on their way out
    await postgres.start()
    await valkey.start()
    assert await sql(postgres, "select 1") == 1
    for pid in pids:
        await gone(pid)


async def test_an_engine_that_outlived_its_parent_is_taken_over(postgres: Postgres) -> None:
    """As where the system tells nobody of a parent's death."""
    await postgres.start()
    orphan = postgres.process
    held = postgres._held
    assert held is not None
    held.release()
    again = Postgres(postgres.folder, fsync=False)
    async with again:
        assert orphan.wait() == 0
        assert await sql(again, "select 1") == 1


async def test_a_number_that_now_belongs_to_another_process_is_no_obstacle(postgres: Postgres) -> None:
    await postgres.start()
    os.kill(postgres.pid, signal.SIGKILL)
    await postgres.stop()
    pid_file = postgres.folder / "data" / "postmaster.pid"
    _, _, rest = pid_file.read_text().partition("\n")
    pid_file.write_text(f"{os.getpid()}\n{rest}")
    (postgres.folder / "engine.pid").write_text(str(os.getpid()))
    await postgres.start()
    assert await sql(postgres, "select 1") == 1


async def test_a_database_that_was_half_made_is_made_anew(elsewhere: Path) -> None:
    first = Postgres(elsewhere / "engine", fsync=False)
    starting = asyncio.create_task(first.start())
    async with asyncio.timeout(20):
        while not (elsewhere / "engine" / "data.new" / "PG_VERSION").exists():
            await asyncio.sleep(0.001)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert not (elsewhere / "engine" / "data").exists()
    async with Postgres(elsewhere / "engine", fsync=False) as second:
        assert await sql(second, "select 1") == 1
    assert not (elsewhere / "engine" / "data.new").exists()


async def test_a_lost_password_is_told(postgres: Postgres) -> None:
    await postgres.start()
    await postgres.stop()
    kept = (postgres.folder / "password").read_text()
    (postgres.folder / "password").write_text("another")
    error = await refused(postgres)
    assert error.code == "other_password"
    (postgres.folder / "password").write_text(kept)
    await postgres.start()


@pytest.mark.parametrize("kind", [Postgres, Valkey])
async def test_a_folder_that_cannot_be_written_is_told(
    kind: type[Postgres | Valkey], elsewhere: Path
) -> None:
    (elsewhere / "file").write_text("")
    error = await refused(kind(elsewhere / "file" / "engine"))
    assert error.code == "not_writable"
    assert str(elsewhere / "file") in error.detail


async def test_a_closed_umask_and_odd_letters_are_no_obstacle(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's folders are made so that the engines' user may enter; a path may be relative and hold blanks and quotes."""
    monkeypatch.chdir(elsewhere)
    before = os.umask(0o077)
    try:
        async with Valkey(Path("new") / 'my "own" data' / "valkey") as valkey:
            assert await redis.from_url(valkey.url).ping()
    finally:
        os.umask(before)


def test_starts_at_once_share_one_copy_of_binaries_behind_a_closed_door(tmp_path: Path) -> None:
    package = tmp_path / "closed" / "package"
    (package / "bin").mkdir(parents=True)
    (package / "bin" / "engine").write_text("binary" * 10_000)
    (tmp_path / "closed" / "package.libs").mkdir()
    (tmp_path / "closed" / "package.libs" / "lib.so").write_text("library")
    (tmp_path / "closed").chmod(0o700)
    account = Account()
    account.demoted = True
    with ThreadPoolExecutor(8) as threads:
        found = set(
            threads.map(lambda _: reachable_binaries(account, package, "bin", tmp_path / "cache"), range(8))
        )
    assert len(found) == 1
    copied = found.pop()
    assert (copied / "engine").stat().st_size == 60_000
    assert (copied.parents[1] / "package.libs" / "lib.so").exists()
    assert [f.name for f in (tmp_path / "cache").iterdir()] == [copied.parents[1].name]
