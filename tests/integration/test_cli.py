"""``voxplane`` as a newcomer types it: what it prints, its exit codes, and that a wrong word is answered in a line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import asyncpg
import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.db import Database
from app.fleet.keyring import Keyring
from app.local.folder import temporary_folder
from app.local.postgres import Postgres
from app.local.process import is_alive, works_in
from app.vault import LocalKeys
from regions.edge.software import software
from tests.support.api import another
from tests.support.cli import WITHIN_S, begin, invoke, until_says, voxplane
from tests.support.engines import Engines
from voxplane import AsyncCaller

NOBODY = "http://127.0.0.1:9"
COMMANDS = ("up", "demo", "serve", "edge", "migrate", "call", "events", "regions", "keys create", "keys list")
COMMANDS += ("keys change", "keys revoke", "keys rotate", "edges", "move", "listen", "trigger", "replay")
COMMANDS += tuple(f"webhooks {w}" for w in ("create", "list", "health", "rotate", "delete", "resend"))
COMMANDS += ("call timeline", "place", "regions matrix")
COMMANDS += ("drill", "drills", "drills show", "drills stop", "projects create", "projects list")
COMMANDS += tuple(
    f"{w} {v}" for w in ("regions", "edges") for v in ("cordon", "drain", "evacuate", "progress", "uncordon")
)


def refused(code: int, says: str, *words: str, **env: str) -> None:
    done = invoke(*words, **env)
    assert done.code == code, done
    assert re.search(says, done.err), done.err
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("voxplane")


@pytest.fixture
def folder() -> Iterator[Path]:
    made = temporary_folder("voxplane-cli")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@dataclass(frozen=True)
class Running:
    env: dict[str, str]
    folder: Path
    said: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(engines: Engines) -> AsyncIterator[Running]:
    """`voxplane up` on servers that were there before."""
    folder = temporary_folder("voxplane-cli")
    async with engines.database(template="template0") as url:
        env = {
            "VOXPLANE_DATA": str(folder),
            "DATABASE_URL": url + "?sslmode=prefer",
            "REDIS_URLS": ",".join(f"{region}={url}" for region, url in engines.redis_urls.items()),
        }
        process = await begin("up", "--port", "0", "--regions", "2", "--instances", "1", **env)
        try:
            said = await until_says(process, "Ctrl-C stops everything")
            yield Running({"VOXPLANE_DATA": str(folder)}, folder, said)
            assert process.returncode is None
        finally:
            process.terminate()
            async with asyncio.timeout(WITHIN_S):
                out, err = await process.communicate()
            shutil.rmtree(folder)
        assert (process.returncode, err) == (0, b"")
        assert out.decode().endswith("stopped\n")


def left_in(folder: Path) -> list[int]:
    """Processes that work below the folder."""
    pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    return [pid for pid in pids if works_in(pid, folder)]


# ------------------------------------------------------------------------------------------------------ help, wrong words


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    done = invoke(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert re.search(rf"Example[^\n]*:\n(.*\n)*.*voxplane {command}", done.out), done.out


def test_help_lists_the_commands_and_the_exit_codes() -> None:
    done = invoke("--help")
    assert all(f"  {command.split()[0]} " in done.out for command in COMMANDS)
    assert "Exit codes" in done.out


@pytest.mark.parametrize(
    "words",
    [
        "nonsense",
        "up --regions 9",
        "up --port 99999",
        "up --cells 9",
        "drill us-east --real --share nan",
        "drill us-east --real --share 0",
        "call",
        "keys create",
        "call --agent x --wav y --listen-s -1",
        "call --agent x --wav y --browser",
        "call --browser",
        "call --agent x --wav y --webrtc",
    ],
)
def test_wrong_arguments(words: str) -> None:
    done = invoke(*words.split())
    assert done.code == 2
    assert "Error: " in done.err
    assert "help" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        "regions",
        "events --follow",
        "keys list",
        "call --agent ws://h --wav f",
        "place",
        "regions matrix",
        "call timeline call_x",
    ],
)
def test_without_a_server_to_talk_to(words: str) -> None:
    refused(2, "set VOXPLANE_URL and VOXPLANE_API_KEY, or start `voxplane up`", *words.split())


@pytest.mark.parametrize(
    ("url", "key", "code", "says"),
    [
        (NOBODY, "vx_test_x", 1, "no answer.*127.0.0.1:9.*voxplane up"),
        ("nonsense", "vx_test_x", 2, "VOXPLANE_URL is a list like"),
        ("http://[half", "vx_test_x", 2, "VOXPLANE_URL is a list like"),
        (NOBODY, "schlüssel", 2, "VOXPLANE_API_KEY is a key like"),
    ],
)
def test_an_address_or_key_that_cannot_be_right(url: str, key: str, code: int, says: str) -> None:
    refused(code, says, "events", "--follow", VOXPLANE_URL=url, VOXPLANE_API_KEY=key)


def test_settings_that_are_missing() -> None:
    refused(2, "set DATABASE_URL to postgresql://", "serve")
    refused(2, "set DATABASE_URL to postgresql://", "migrate")
    refused(2, "REDIS_URLS is a list like", "up", REDIS_URLS="nonsense")


@pytest.mark.slow
async def test_an_edge_without_its_settings() -> None:
    done = await voxplane("edge")
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch("voxplane edge: set VOXPLANE_REGION [^\n]*\n", done.err)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "migrate", "up"])
def test_a_database_that_is_not_there(command: str, folder: Path) -> None:
    env = {"VOXPLANE_DATA": str(folder), "DATABASE_URL": "postgresql://user:secret@127.0.0.1:9/x"}
    words = [command, "--port", "0"] if command == "up" else [command]
    done = invoke(*words, **env)
    assert done.code == 1
    assert re.fullmatch(
        r"voxplane: no PostgreSQL answers at 127.0.0.1:9/x \(.*\): start it, or mend DATABASE_URL\n", done.err
    )
    assert "secret" not in done.out


@pytest.mark.slow
def test_a_database_that_does_not_fit(engines: Engines) -> None:
    good = engines.postgres.dsn_of("postgres")
    refused(1, "does not let us in", "migrate", DATABASE_URL=good.replace("voxplane:", "voxplane:x"))
    refused(1, "has no such database", "migrate", DATABASE_URL=engines.postgres.dsn_of("nowhere"))
    refused(1, "run `voxplane migrate`", "serve", DATABASE_URL=good)
    refused(2, "set DATABASE_URL to postgresql://", "migrate", DATABASE_URL="mysql://x")
    refused(2, "DATABASE_URL cannot be used", "migrate", DATABASE_URL="postgresql://h:port/x")


@pytest.mark.slow
def test_serve_names_a_port_or_folder_it_cannot_have(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    env = {"DATABASE_URL": database_url, "VOXPLANE_DATA": str(tmp_path / "file")}
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        refused(1, f":{port} .*VOXPLANE_PORT", "serve", VOXPLANE_PORT=port, **env)
    refused(1, "set VOXPLANE_DATA", "serve", VOXPLANE_PORT="0", **env)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_instance_that_was_ready_and_is_told_to_stop_has_not_failed(
    database_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
    env = {"DATABASE_URL": database_url, "VOXPLANE_DATA": str(tmp_path), "VOXPLANE_PORT": port}
    process = await begin("serve", **env)
    async with asyncio.timeout(WITHIN_S), httpx.AsyncClient() as client:
        while True:
            with suppress(httpx.TransportError):
                if (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200:
                    break
            await asyncio.sleep(0.05)
        process.send_signal(number)
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


@pytest.mark.slow
def test_serve_refuses_another_master_key_than_the_databases(database_url: str, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "master.key").write_bytes(os.urandom(32))
    keys = LocalKeys.from_file(tmp_path / "first" / "master.key")

    async def begin_with_the_first() -> None:
        async with Database.open(database_url) as db:
            await Keyring(db, keys).open()

    asyncio.run(begin_with_the_first())
    refused(
        1,
        "second/master.key is not the master key",
        "serve",
        VOXPLANE_PORT="0",
        DATABASE_URL=database_url,
        VOXPLANE_DATA=str(tmp_path / "second"),
    )


@pytest.mark.slow
def test_migrating_twice_as_a_user_who_is_no_superuser(folder: Path) -> None:
    """On a server of its own: roles belong to the whole server."""
    with asyncio.Runner() as runner:
        postgres = Postgres(folder / "postgres", fsync=False)
        runner.run(postgres.start())
        try:
            runner.run(two_users(postgres))
            port = postgres.port
            words = "changed nothing.*must own the database"
            refused(1, words, "migrate", DATABASE_URL=f"postgresql://plain:x@127.0.0.1:{port}/plain")
            for _ in range(2):
                done = invoke(
                    "migrate", DATABASE_URL=f"postgres://maker:x@127.0.0.1:{port}/maker?sslmode=prefer"
                )
                assert (done.code, done.out) == (0, "the schema is up to date\n"), done.err
        finally:
            runner.run(postgres.stop())


async def two_users(postgres: Postgres) -> None:
    """Each with a database of its own; only ``maker`` may create roles."""
    connection = await asyncpg.connect(postgres.dsn)
    try:
        for user, right in (("plain", "nocreaterole"), ("maker", "createrole")):
            await connection.execute(f"create role {user} login {right} password 'x'")
            await connection.execute(f"create database {user} owner {user}")
    finally:
        await connection.close()


# ------------------------------------------------------------------------------------------------------------------- up


@pytest.mark.slow
async def test_up_on_servers_of_ones_own(running: Running) -> None:
    assert "starting PostgreSQL" not in running.said
    assert "starting Valkey" not in running.said
    assert not (running.folder / "postgres").exists()
    found = await voxplane("regions", "--json", **running.env)
    regions = {r["id"]: r for r in json.loads(found.out)}
    assert {r["health"] for r in regions.values()} == {"healthy"}
    assert all(r["measured"]["rtt_ms"] >= 0 for r in regions.values())
    plain = await voxplane("regions", **running.env)
    assert [line.split()[0] for line in plain.out.splitlines()] == list(regions)


@pytest.mark.slow
def test_regions_and_edges_are_cordoned_drained_and_taken_back(running: Running) -> None:
    edges = json.loads(invoke("edges", "--json", **running.env).out)
    plain = invoke("edges", **running.env).out
    assert [line.split()[0] for line in plain.splitlines()] == [e["id"] for e in edges]
    assert {line.split()[-1] for line in plain.splitlines()} == {e["software"] for e in edges} == {software()}
    edge = next(e for e in edges if e["region"] == "us-east")["id"]
    assert invoke("regions", "cordon", "us-east", **running.env).out == "us-east is cordoned\n"
    assert invoke("regions", "uncordon", "us-east", **running.env).out == "us-east is active\n"
    refused(1, "404 not_found", "regions", "progress", "eu-west", **running.env)
    refused(1, "404 not_found", "edges", "drain", "edge_nonsense", **running.env)
    drained = invoke("regions", "drain", "us-east", "--wait", "--json", **running.env)
    shown = json.loads(drained.out)
    assert (shown["state"], shown["total"], shown["left"]) == ("drained", 0, 0)
    refused(1, "409 is_draining", "edges", "drain", edge, **running.env)
    refused(1, "409 nowhere_to_go", "regions", "evacuate", "eu-west", **running.env)
    said = invoke("regions", "progress", "us-east", **running.env).out
    assert said.startswith("drain drained: 0 of 0 moved, 0 ended, 0 left; by force from ")
    assert (
        json.loads(invoke("regions", "uncordon", "us-east", "--json", **running.env).out)["id"] == "us-east"
    )
    refused(1, "404", "move", "call_00000000000000000000000000", **running.env)
    refused(1, "403 forbidden", "edges", **running.env, VOXPLANE_OPERATOR_KEY=key_of(running))


def key_of(running: Running) -> str:
    key: str = json.loads((running.folder / "profile.json").read_text())["key"]
    return key


@pytest.mark.slow
def test_an_operator_is_told_why(running: Running) -> None:
    region = json.loads((invoke("regions", "--json", **running.env)).out)[0]["id"]
    key = "vx_op_" + (running.folder / "operator.key").read_text().strip()
    operator = running.env | {"VOXPLANE_OPERATOR_KEY": key}
    found = json.loads((invoke("regions", "health", region, "--json", **operator)).out)
    assert found["region"] == region
    assert [s["signal"] for s in found["edges"][0]["signals"]] == ["heartbeats", "probes", "callers"]
    plain = invoke("regions", "health", region, **operator)
    assert plain.code == 0, plain.err
    assert plain.out.startswith(f"{region}: ")
    assert "phi" in plain.out
    refused(1, "404", "regions", "health", "nowhere", **operator)
    refused(1, "403", "regions", "health", region, **running.env, VOXPLANE_OPERATOR_KEY=key_of(running))


@pytest.mark.slow
def test_keys_are_made_listed_and_revoked(running: Running) -> None:
    made = json.loads((invoke("keys", "create", "mine", "--json", **running.env)).out)
    env = running.env | {"VOXPLANE_API_KEY": made["secret"]}
    assert (invoke("regions", **env)).code == 0
    assert made["id"] in (invoke("keys", "list", **running.env)).out
    refused(2, "12h or 30d from now", "keys", "create", "never", "--expires", "0d", **running.env)
    options = ("--expires", "90d", "--allow-from", "127.0.0.1", "--scope", "calls:read", "--role", "operator")
    bound = json.loads(invoke("keys", "create", "bound", *options, "--json", **running.env).out)
    assert (bound["role"], bound["scopes"], bound["allow_from"]) == (
        "operator",
        ["calls:read"],
        ["127.0.0.1/32"],
    )
    rotated = json.loads(
        invoke("keys", "rotate", bound["id"], "--overlap", "2h", "--json", **running.env).out
    )
    assert (rotated["id"], [b["hint"] for b in rotated["before"]]) == (bound["id"], [bound["hint"]])
    assert f"…{bound['hint']} until" in invoke("keys", "list", **running.env).out
    refused(2, "--overlap", "keys", "rotate", bound["id"], "--overlap", "soon", **running.env)
    refused(1, "/overlap_s", "keys", "rotate", bound["id"], "--overlap", "8d", **running.env)
    refused(1, "/allow_from/0", "keys", "create", "x", "--allow-from", "10.0.0.1/8", **running.env)
    narrowed = invoke("keys", "change", made["id"], "--scope", "calls:read", "--json", **running.env)
    assert json.loads(narrowed.out)["scopes"] == ["calls:read"]
    refused(2, "--role", "keys", "change", made["id"], **running.env)
    refused(1, "/role", "keys", "change", made["id"], "--role", "billing", **running.env)
    revoked = invoke("keys", "revoke", made["id"], **running.env)
    assert (revoked.code, revoked.out) == (0, "revoked\n")
    refused(1, "401", "regions", **env)
    refused(1, "404 not_found", "keys", "revoke", another(made["id"]), **running.env)
    refused(1, "/role", "keys", "create", "x", "--role", "king", **running.env)


@pytest.mark.slow
async def test_what_dies_is_started_again(running: Running) -> None:
    """An edge and an instance, each killed."""

    def living(name: str) -> list[int]:
        return [p for p in left_in(running.folder) if name in Path(f"/proc/{p}/cmdline").read_text()]

    for name in ("regions.edge", "app.cli.main"):
        victims = living(name)
        os.kill(victims[0], signal.SIGKILL)
        async with asyncio.timeout(WITHIN_S):
            while is_alive(victims[0]):
                await asyncio.sleep(0.05)
            # a look costs a process of its own: none is taken before there can be something to see
            while len(living(name)) < len(victims):
                await asyncio.sleep(0.05)

            async def healthy() -> bool:
                done = await voxplane("regions", "--json", **running.env)
                return done.code == 0 and all(
                    r["health"] in ("healthy", "probation") and r["measured"] for r in json.loads(done.out)
                )

            while not await healthy():
                await asyncio.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_in_the_middle_of_the_start_leaves_nothing(
    folder: Path, number: signal.Signals, code: int
) -> None:
    process = await begin("up", "--port", "0", VOXPLANE_DATA=str(folder))
    await until_says(process, "starting Valkey")
    process.send_signal(number)
    async with asyncio.timeout(WITHIN_S):
        out, err = await process.communicate()
    assert (process.returncode, err) == (code, b"")
    assert out.decode().endswith("stopped before it was ready\n")
    assert left_in(folder) == []


@pytest.mark.slow
def test_up_names_a_port_that_is_taken(folder: Path) -> None:
    """An edge's: they begin ten above the instances'."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = ["up", "--instances", "1", "--regions", "1", "--port", str(port - 10)]
        if port - 10 <= 65_000:
            refused(1, f"Port ({port}|{port - 10}) .*--port", *words, VOXPLANE_DATA=str(folder))


@pytest.mark.slow
async def test_of_two_at_once_the_second_is_told_and_a_kill_leaves_nothing(folder: Path) -> None:
    first = await begin("up", "--port", "0", "--regions", "1", "--instances", "1", VOXPLANE_DATA=str(folder))
    try:
        await until_says(first, "starting schema")
        second = await voxplane("up", "--port", "0", VOXPLANE_DATA=str(folder))
        assert second.code == 1
        assert re.search("in use: another `voxplane up`.*VOXPLANE_DATA", second.err), second.err
        await until_says(first, "Ctrl-C stops everything")
    finally:
        first.kill()
        await first.communicate()
    # the parent was killed: nothing of it may stay
    async with asyncio.timeout(WITHIN_S):
        while left_in(folder):
            await asyncio.sleep(0.02)
    logs = {log.name: log.read_text() for log in folder.rglob("*.log")}
    assert any('"control.ready"' in text for text in logs.values())
    assert [name for name, text in logs.items() if "Traceback" in text] == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(1, "VOXPLANE_DATA", "up", "--port", "0", VOXPLANE_DATA=str(tmp_path / "file" / "data"))


# ---------------------------------------------------------------------------------------------------- call and events


@asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    """A bot that says what it hears, and nothing more of the dialect."""

    async def bot(socket: ServerConnection) -> None:
        stream = ""
        try:
            async for text in socket:
                message = json.loads(text)
                stream = message.get("streamSid", stream)
                if message["event"] == "media":
                    media = {"payload": message["media"]["payload"]}
                    await socket.send(json.dumps({"event": "media", "streamSid": stream, "media": media}))
        except ConnectionClosed:
            return

    async with serve(bot, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"


def write_wav(path: Path, rate: int, channels: int = 1, width: int = 2, seconds: float = 0.5) -> Path:
    """A square wave, loud enough to be heard again."""
    half = rate // 800
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        for i in range(int(seconds * 800)):
            level = 8_000 if i % 2 else -8_000
            sample = level.to_bytes(2, "little", signed=True)[-width:]
            file.writeframesraw(sample * channels * half)
    return path


@pytest.mark.slow
async def test_calls_to_a_bot_of_ones_own(running: Running, tmp_path: Path) -> None:
    """At every rate, with one channel and two."""
    kinds = ((8_000, 1), (16_000, 2), (24_000, 1), (48_000, 2))
    async with echoing() as url:
        await asyncio.gather(*(talk(running, tmp_path, url, *kind) for kind in kinds))
    listed = await voxplane("events", "--json", **running.env)
    events = [json.loads(line) for line in listed.out.splitlines()]
    calls = {e["call_id"] for e in events}
    assert len(calls) == len(kinds)
    for call in calls:
        types = {e["type"] for e in events if e["call_id"] == call}
        assert {"call.created", "call.answered", "call.ended"} <= types


async def talk(running: Running, folder: Path, url: str, rate: int, channels: int) -> None:
    said, reply = write_wav(folder / f"{rate}.wav", rate, channels), folder / f"{rate}.reply.wav"
    words = ["call", "--agent", url, "--wav", str(said), "--out", str(reply), "--listen-s", "1"]
    done = await voxplane(*words, **running.env)
    assert (done.code, done.err) == (0, ""), done
    assert re.search(r"call_\w+ in (us-east|eu-west)", done.out)
    with wave.open(str(reply), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (rate, 1, 2)
        heard = memoryview(file.readframes(file.getnframes())).cast("h")
    assert max(heard, default=0) > 4_000


@pytest.mark.slow
async def test_a_call_for_whoever_sits_at_this_machine(running: Running) -> None:
    """The page is there, and the ticket in the fragment of its address is one that an edge takes."""
    async with echoing() as url:
        done = await voxplane("call", "--agent", url, "--browser", **running.env, BROWSER="true")
        assert (done.code, done.err) == (0, ""), done
        address = re.search(r"^  (http://127\.0\.0\.1:\d+/talk)#ticket=(\S+)$", done.out, re.MULTILINE)
        assert address, done.out
        async with httpx.AsyncClient(trust_env=False) as http:
            assert "<title>Talk" in (await http.get(address[1])).text
        async with AsyncCaller(unquote(address[2])) as caller:
            await caller.hangup()
        assert caller.end_reason == "caller_hung_up"


@pytest.mark.slow
def test_files_that_are_no_speech_are_refused_before_a_call(running: Running, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF\x10\0\0\0WAVEnonsense")
    cut = tmp_path / "cut.wav"
    cut.write_bytes(write_wav(tmp_path / "whole.wav", 8_000).read_bytes()[:30])
    good = tmp_path / "whole.wav"
    for file, says in (
        (tmp_path / "missing.wav", "missing.wav cannot be read: No such file.*ffmpeg"),
        (tmp_path, "cannot be read: Is a directory"),
        (broken, "broken.wav cannot be read.*ffmpeg"),
        (cut, "cut.wav cannot be read.*ffmpeg"),
        (write_wav(tmp_path / "44.wav", 44_100), "1 channels of 16 bits at 44100 Hz"),
        (write_wav(tmp_path / "8bit.wav", 8_000, width=1), "of 8 bits"),
        (write_wav(tmp_path / "empty.wav", 8_000, seconds=0), "holds no audio"),
    ):
        refused(1, says, "call", "--agent", "ws://127.0.0.1:9", "--wav", str(file), **running.env)
    nowhere = str(tmp_path / "nowhere" / "reply.wav")
    words = ["call", "--agent", "ws://127.0.0.1:9", "--wav", str(good), "--out", nowhere]
    refused(1, "nowhere.* cannot be written.*--out", *words, **running.env)
    words = ["call", "--wav", str(good), "--listen-s", "0", "--agent"]
    refused(1, "422 .*/agent/url", *words, "ftp://example.com", **running.env)
    refused(1, "/agent/dialect", *words, "ws://127.0.0.1:9", "--dialect", "morse", **running.env)
    words[words.index("--listen-s") + 1] = "10"  # a backend that is not there is waited for a little
    refused(1, "agent_unreachable. Is the backend running", *words, "ws://127.0.0.1:9", **running.env)


@pytest.mark.slow
async def test_events_are_followed_as_they_happen(running: Running, tmp_path: Path) -> None:
    following = await begin("events", "--follow", "--json", **running.env)
    said = write_wav(tmp_path / "said.wav", 8_000, seconds=0.1)
    try:
        assert following.stderr is not None
        async with asyncio.timeout(WITHIN_S):
            assert b"following" in await following.stderr.readline()
        async with echoing() as url:
            words = ["call", "--agent", url, "--wav", str(said), "--listen-s", "0"]
            call = (await voxplane(*words, **running.env)).out.split()[0]
        while True:
            event = json.loads(await until_says(following, "\n"))
            if (event["call_id"], event["type"]) == (call, "call.ended"):
                break
        following.send_signal(signal.SIGINT)
        async with asyncio.timeout(WITHIN_S):
            _, err = await following.communicate()
        assert (following.returncode, err) == (130, b"")
    finally:
        if following.returncode is None:
            following.kill()
            await following.communicate()
