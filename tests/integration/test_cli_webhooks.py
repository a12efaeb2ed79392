"""The commands about webhooks, against an instance that runs: what they print, and their exit codes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.local.listen import new_secret
from app.local.receiver import WebhookReceiver
from app.webhooks import recovery, sender
from tests.support.api import Api, Project
from tests.support.cli import WITHIN_S, begin, invoke, voxplane
from tests.support.fleet import three_regions
from tests.support.hooks import make_call

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as started:
        yield started


def env_of(api: Api, project: Project) -> dict[str, str]:
    return {"VOXPLANE_URL": api.url, "VOXPLANE_API_KEY": project.key}


async def test_an_endpoint_from_its_creation_to_its_end(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    env = env_of(api, project)
    made = await voxplane("webhooks", "create", receiver.url, "-t", "call.*", **env)
    hook, receiver.secret = made.out.split()
    assert (await voxplane("webhooks", "list", **env)).out.split()[:2] == [hook, "unverified"]
    tried = await voxplane("trigger", "call.ended", **env)
    assert (tried.code, tried.err) == (0, "")
    assert re.fullmatch(rf"{hook}  call\.ended  evt_\w+  204  \d+ ms\n", tried.out)
    (told,) = json.loads((await voxplane("trigger", "call.ended", "--json", **env)).out)
    assert (told["webhook_id"], told["status"], told["ok"]) == (hook, 204, True)
    receiver.received.pop()
    call = await make_call(project)
    await receiver.until(2, 15)
    assert [e["type"] for e in receiver.received] == ["call.ended", "call.created"]
    again = await voxplane("replay", hook, "--since", "1h", "--what", "all", **env)
    assert (again.code, again.out) == (0, "done: 1 sent again\n"), again
    assert [e["call_id"] for e in receiver.received[1:]] == [call, call]
    sent = await voxplane("webhooks", "resend", hook, f"{call}:1", **env)
    assert (sent.code, sent.out) == (0, "queued\n"), sent
    await receiver.until(4, 15)
    seen = await voxplane("webhooks", "health", hook, **env)
    assert "state              ok" in seen.out
    assert f"{call}:1  attempt 1  204" in seen.out
    turned = await voxplane("webhooks", "rotate", hook, "--overlap", "0s", **env)
    assert turned.out.startswith("whsec_")
    receiver.secret = "whsec_AAAA"
    refused = await voxplane("trigger", "call.ended", **env)
    assert refused.code == 1
    assert "400" in refused.out
    assert "Answer 2xx" in refused.err
    assert (await voxplane("webhooks", "delete", hook, **env)).out == "removed\n"
    nobody = await voxplane("trigger", "call.ended", **env)
    assert (nobody.code, nobody.err.count("\n")) == (1, 1)
    assert "no enabled endpoint" in nobody.err


async def test_an_example_goes_straight_to_a_receiver_on_this_machine(receiver: WebhookReceiver) -> None:
    """No endpoint and no server is needed: the secret is the one that `listen` prints, or one that is told."""
    receiver.secret = new_secret()
    sent = await voxplane("trigger", "call.moved", "--forward", receiver.url, "--secret", receiver.secret)
    assert (sent.code, sent.err) == (0, ""), sent
    assert [e["type"] for e in receiver.received] == ["call.moved"]
    assert f"{receiver.received[0]['call_id']}:1  -> 204" in sent.out
    to = ("--forward", receiver.url, "--secret", receiver.secret)
    assert json.loads((await voxplane("trigger", "call.moved", *to, "--json")).out)["status"] == 204
    other = await voxplane("trigger", "call.moved", "--forward", receiver.url)
    assert (other.code, receiver.faults) == (1, ["bad_signature"])
    assert "signed with whsec_" in other.err


async def test_events_are_forwarded_to_this_machine_signed_and_in_order(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    env = env_of(api, project)
    listening = await begin("listen", "--forward", receiver.url, "-t", "call.*", "--json", **env)
    assert listening.stdout is not None
    assert listening.stderr is not None
    try:
        async with asyncio.timeout(WITHIN_S):
            said = (await listening.stderr.readline()).decode()
            receiver.secret = said.split()[-1]
            assert "ready" in (await listening.stderr.readline()).decode()
            calls = [await make_call(project) for _ in range(3)]
            for call in calls:
                await project.client.post(f"/v1/calls/{call}/end")
            lines = [json.loads(await listening.stdout.readline()) for _ in range(6)]
        assert {line["status"] for line in lines} == {204}
        assert receiver.faults == []
        for call in calls:
            assert [e["type"] for e in receiver.received if e["call_id"] == call] == [
                "call.created",
                "call.ended",
            ]
    finally:
        listening.terminate()
        async with asyncio.timeout(WITHIN_S):
            _, err = await listening.communicate()
    assert (listening.returncode, err) == (143, b"")


async def test_one_that_answers_nobody_is_said_and_the_rest_goes_on(api: Api, project: Project) -> None:
    listening = await begin("listen", "--forward", "http://127.0.0.1:9/", **env_of(api, project))
    assert listening.stdout is not None
    assert listening.stderr is not None
    try:
        async with asyncio.timeout(WITHIN_S):
            while b"ready" not in await listening.stderr.readline():
                pass
            for _ in range(2):
                await make_call(project)
                assert b"no answer" in await listening.stdout.readline()
    finally:
        listening.terminate()
        async with asyncio.timeout(WITHIN_S):
            await listening.communicate()


async def test_a_key_that_is_revoked_ends_it_in_a_line(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    made = (await project.client.post("/v1/keys", json={"name": "short", "role": "owner"})).json()
    env = env_of(api, project) | {"VOXPLANE_API_KEY": made["secret"]}
    listening = await begin("listen", "--forward", receiver.url, **env)
    assert listening.stderr is not None
    async with asyncio.timeout(WITHIN_S):
        while b"ready" not in await listening.stderr.readline():
            pass
        assert (await project.client.delete(f"/v1/keys/{made['id']}")).status_code == 204
        _, err = await listening.communicate()
    assert (listening.returncode, err.count(b"\n")) == (1, 1), err
    assert b"401" in err


async def test_an_endpoint_that_hangs_is_told_from_an_instance_that_is_away(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "DEADLINE_S", 0.5)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        made = await project.client.post("/v1/webhooks", json={"url": url})
        tried = await voxplane("trigger", "call.ended", **env_of(api, project))
    assert (tried.code, made.json()["id"] in tried.out) == (1, True), tried
    assert "timeout" in tried.out


async def test_a_replay_that_is_canceled_is_no_success(
    api: Api, project: Project, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "SLICE", "select -1 where $1::integer > 0 and $2::integer > 0")
    env = env_of(api, project)
    hook = (await voxplane("webhooks", "create", receiver.url, **env)).out.split()[0]
    again = await begin("replay", hook, "--since", "1h", **env)
    async with asyncio.timeout(WITHIN_S):
        assert again.stderr is not None
        begun = (await again.stderr.readline()).decode()
        path = f"/v1/webhooks/{hook}/replays/{begun.partition(':')[0]}/cancel"
        assert (await project.client.post(path)).json()["state"] == "canceled"
        out, _ = await again.communicate()
    assert (again.returncode, out.decode()) == (1, "canceled: 0 sent again\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("listen --forward nowhere", "--forward is a URL"),
        ("listen --forward http://localhost:99999/", "--forward is a URL"),
        ("listen --forward http://localhost/ --secret whsec_AAAA", "--secret is whsec_"),
        ("trigger call.nothing --forward http://localhost/", "one of agent.connected"),
        ("trigger call.ended --forward http://localhost/ --webhook whk_1", "choose one"),
        ("webhooks rotate whk_1 --overlap long", "--overlap is a time like"),
        ("webhooks resend whk_1 evt_1", "by its call and seq"),
    ],
)
def test_wrong_words_are_answered_in_a_line(words: str, says: str) -> None:
    done = invoke(*words.split())
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1
