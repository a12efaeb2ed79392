"""Creates, reads and ends of calls through HTTP, on the real database."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import jwt
import msgspec
import pytest
import pytest_asyncio

from app.calls.policy import EPOCHS_MAX
from regions.wire import ids
from regions.wire.ticket import Sealed, read, unseal
from tests.conftest import make_settings
from tests.support.api import Api, Project, serving
from tests.support.fleet import add_region, three_regions
from tests.support.hooks import superuser

LONG = {str(i): "x" * 512 for i in range(32)}


async def create(client: Any, key: str | None = None, **more: Any) -> Any:
    return await client.post(
        "/v1/calls", json=call_body(**more), headers={"Idempotency-Key": key or str(uuid4())}
    )


def call_body(**more: Any) -> dict[str, Any]:
    return {"agent": {"url": "ws://127.0.0.1:9/agent"}} | more


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


async def test_a_call_is_placed_where_the_caller_is_near_and_says_why(project: Project) -> None:
    client = project.client
    near = [
        {"region": "eu-west", "rtt_ms": 20},
        {"region": "us-east", "rtt_ms": 90},
        {"region": "ap-south", "rtt_ms": 200},
    ]
    made = (await create(client, latencies=near)).json()
    read_back = (await client.get(f"/v1/calls/{made['id']}")).json()
    assert made["region"] == "eu-west"
    assert [s["region"] for s in made["placement"]["standbys"]] == ["us-east", "ap-south"]
    assert {c["region"]: c["reason"] for c in made["placement"]["candidates"]} == {
        "eu-west": "chosen", "us-east": "costlier", "ap-south": "costlier",
    }  # fmt: skip
    assert made["placement"]["protection"] == "full"
    assert len(made["attach"]) == 3
    assert read_back == {k: v for k, v in made.items() if k not in ("ticket", "attach")}


async def test_a_caller_over_webrtc_is_sent_to_the_listener_that_takes_offers(
    api: Api, project: Project
) -> None:
    body = call_body(caller={"kind": "webrtc"})
    key = {"Idempotency-Key": str(uuid4())}
    made = (await project.client.post("/v1/calls", json=body, headers=key)).json()
    again = (await project.client.post("/v1/calls", json=body, headers=key)).json()
    fresh = await project.client.post(f"/v1/calls/{made['id']}/ticket", json={"ticket": made["ticket"]})
    for answer in (made, again, fresh.json()):
        grants = jwt.decode(answer["ticket"], options={"verify_signature": False})["g"]
        assert answer["attach"] == [g["url"] + "/v1/webrtc" for g in grants]
        assert all(g["url"].startswith("http://") for g in grants)


async def test_a_stream_of_twilios_gets_one_address_with_its_ticket_and_no_standby(api: Api) -> None:
    project = await api.project()
    made = (await create(project.client, caller={"kind": "twilio"})).json()
    claims = jwt.decode(made["ticket"], options={"verify_signature": False})
    assert (claims["kind"], len(claims["g"])) == ("twilio", 1)
    assert made["attach"] == [f"{claims['g'][0]['url']}/v1/twilio/{made['ticket']}"]
    placement = made["placement"]
    assert (placement["standbys"], placement["protection"]) == ([], "none")
    assert placement["protection_reason"] == "its caller cannot go to a standby"
    fresh = await project.client.post(f"/v1/calls/{made['id']}/ticket", json={"ticket": made["ticket"]})
    assert fresh.json()["attach"][0].endswith(f"/v1/twilio/{fresh.json()['ticket']}")
    assert len(fresh.json()["attach"]) == 1


async def test_the_answer_shows_what_was_left_to_us(project: Project) -> None:
    made = (await create(project.client)).json()
    assert made["caller"] == {"kind": "websocket", "from": None, "to": None}
    assert made["agent"] == {
        "url": "ws://127.0.0.1:9/agent",
        "dialect": "twilio",
        "parameters": {},
        "fallback_url": None,
        "reconnect": {"sound": "tone", "deadline_s": 20.0, "silent_s": 20.0},
    }


async def test_what_happens_to_a_lost_backend_is_chosen_with_the_call_and_known_to_every_ticket(
    api: Api, project: Project
) -> None:
    agent = {
        "url": "ws://127.0.0.1:9/",
        "reconnect": {"sound": "silence", "deadline_s": 7.5, "silent_s": 4.0},
    }
    end_when = {"idle_s": 30.0, "silence_s": 60.0, "monologue_s": 0.0}
    made = (await create(project.client, agent=agent, end_when=end_when)).json()
    assert made["agent"]["reconnect"] == agent["reconnect"]
    assert made["end_when"] == end_when
    fresh = await project.client.post(f"/v1/calls/{made['id']}/ticket", json={"ticket": made["ticket"]})
    key_id, fleet_key = api.control.keyring.fleet_key
    for ticket in (made["ticket"], fresh.json()["ticket"]):
        claims = read(ticket, keys=api.control.keyring.public_keys)
        plain = unseal(claims.sealed, keys={key_id: fleet_key}, bound_to=claims.call)
        sealed = msgspec.json.decode(plain, type=Sealed)
        wanted = sealed.agent.reconnect
        assert (sealed.end_when.idle_s, sealed.end_when.silence_s) == (30.0, 60.0)
        assert (wanted.sound, wanted.deadline_s, wanted.silent_s) == ("silence", 7.5, 4.0)


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({"sound": "music"}, "/agent/reconnect/sound"),
        ({"deadline_s": 121}, "/agent/reconnect/deadline_s"),
        ({"deadline_s": -1}, "/agent/reconnect/deadline_s"),
        ({"silent_s": 1.9}, "/agent/reconnect/silent_s"),
        ({"attempts": 3}, "/agent/reconnect"),
    ],
    ids=["sound", "too long", "negative", "too soon", "unknown"],
)
async def test_a_way_to_reconnect_that_is_none_is_refused_by_name(
    project: Project, wanted: dict[str, Any], pointer: str
) -> None:
    refused = await create(project.client, agent={"url": "ws://127.0.0.1:9/", "reconnect": wanted})
    assert refused.status_code in (400, 422)
    assert pointer in str(refused.json()["errors"])


async def test_how_turns_are_found_is_chosen_with_the_call_and_known_to_every_ticket(
    api: Api, project: Project
) -> None:
    """What is by default makes no ticket longer."""
    default: dict[str, Any] = {"mode": "auto", "start_ms": 60, "end_ms": 320, "end_ms_max": 1_000}
    default |= {"barge_in": "two_step", "barge_in_ms": 200}
    key_id, fleet_key = api.control.keyring.fleet_key
    for asked, held in (
        ({}, b""),
        ({"mode": "auto"}, b""),
        ({"end_ms": 700, "barge_in": "off"}, b'"turns":{"end_ms":700,"barge_in":"off"}'),
    ):
        made = (await create(project.client, turns=asked)).json()
        assert made["turns"] == default | asked
        found = (await project.client.get(f"/v1/calls/{made['id']}")).json()
        assert found["turns"] == made["turns"]
        fresh = await project.client.post(f"/v1/calls/{made['id']}/ticket", json={"ticket": made["ticket"]})
        for ticket in (made["ticket"], fresh.json()["ticket"]):
            claims = read(ticket, keys=api.control.keyring.public_keys)
            plain = unseal(claims.sealed, keys={key_id: fleet_key}, bound_to=claims.call)
            assert held in plain and (b"turns" in plain) == bool(held)
            wanted = msgspec.json.decode(plain, type=Sealed).turns
            assert msgspec.structs.asdict(wanted) == made["turns"]


async def test_a_default_that_is_said_and_one_that_is_not_are_the_same_create(project: Project) -> None:
    body: dict[str, Any] = {"agent": {"url": "ws://127.0.0.1:9/"}}
    key = {"Idempotency-Key": str(uuid4())}
    made = await project.client.post("/v1/calls", json=body, headers=key)
    again = await project.client.post("/v1/calls", json=body | {"turns": {"end_ms": 320}}, headers=key)
    assert again.json()["id"] == made.json()["id"]
    other = await project.client.post("/v1/calls", json=body | {"turns": {"end_ms": 340}}, headers=key)
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({"mode": "telepathy"}, "/turns/mode"),
        ({"start_ms": 39}, "/turns/start_ms"),
        ({"end_ms": 3_001}, "/turns/end_ms"),
        ({"end_ms_max": 5_001}, "/turns/end_ms_max"),
        ({"barge_in": True}, "/turns/barge_in"),
        ({"barge_in_ms": 59}, "/turns/barge_in_ms"),
        ({"silence_ms": 3}, "/turns"),
    ],
)
async def test_turns_that_cannot_be_are_refused_by_name(
    project: Project, wanted: dict[str, Any], pointer: str
) -> None:
    refused = await create(project.client, turns=wanted)
    assert refused.status_code in (400, 422)
    assert pointer in str(refused.json()["errors"])


async def test_the_ticket_grants_three_epochs_and_hides_the_backend(api: Api, project: Project) -> None:
    client = project.client
    made = (await create(client)).json()
    claims = read(made["ticket"], keys=api.control.keyring.public_keys)
    assert [g.epoch for g in claims.grants] == [1, 2, 3]
    assert claims.call == made["id"]
    assert "agent" not in str(jwt.decode(made["ticket"], options={"verify_signature": False}))


async def test_every_ticket_tells_edges_and_nobody_else_who_calls_whom(api: Api, project: Project) -> None:
    body = {
        "agent": {"url": "ws://127.0.0.1:9/"},
        "caller": {"from": "tel:+14155550100", "to": "sip:bot@example.com"},
    }
    key = {"Idempotency-Key": str(uuid4())}
    made = (await project.client.post("/v1/calls", json=body, headers=key)).json()
    again = (await project.client.post("/v1/calls", json=body, headers=key)).json()
    fresh = await project.client.post(f"/v1/calls/{made['id']}/ticket", json={"ticket": made["ticket"]})
    key_id, fleet_key = api.control.keyring.fleet_key
    for ticket in (made["ticket"], again["ticket"], fresh.json()["ticket"]):
        claims = read(ticket, keys=api.control.keyring.public_keys)
        plain = unseal(claims.sealed, keys={key_id: fleet_key}, bound_to=claims.call)
        sealed = msgspec.json.decode(plain, type=Sealed)
        assert (sealed.from_number, sealed.to_number) == ("+14155550100", "sip:bot@example.com")
        assert "4155550100" not in str(jwt.decode(ticket, options={"verify_signature": False}))


async def test_the_same_key_gives_the_same_call_and_another_body_is_refused(
    api: Api, project: Project
) -> None:
    client = project.client
    first = await create(client, "k1", metadata={"a": "b"})
    again = await create(client, "k1", metadata={"a": "b"})
    other = await create(client, "k1", metadata={"a": "c"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert read(again.json()["ticket"], keys=api.control.keyring.public_keys).grants == (
        read(first.json()["ticket"], keys=api.control.keyring.public_keys).grants
    )
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_fifty_concurrent_creates_with_ten_keys_on_two_instances_make_ten_calls(
    api: Api, project: Project
) -> None:
    other = make_settings(api.settings.database_url, api.settings.redis_urls, api.settings.data)
    async with serving(other) as second:
        clients = (project.client, await second.client(project.key))
        answers = await asyncio.gather(*(create(clients[i % 2], f"key-{i % 10}") for i in range(50)))
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["id"] for a in answers}) == 10
    assert sum("Idempotent-Replayed" not in a.headers for a in answers) == 10


async def test_an_ended_call_has_its_final_event_above_every_grant(api: Api, project: Project) -> None:
    client = project.client
    made = (await create(client)).json()
    ended = (await client.post(f"/v1/calls/{made['id']}/end")).json()
    again = (await client.post(f"/v1/calls/{made['id']}/end")).json()
    events = (await client.get(f"/v1/calls/{made['id']}/events")).json()["data"]
    ticket = await client.post(f"/v1/calls/{made['id']}/ticket", json={"ticket": made["ticket"]})
    assert (ended["state"], ended["end_reason"], ended["epoch"]) == ("canceled", "ended_by_api", 4)
    assert again == ended
    assert [(e["seq"], e["type"]) for e in events] == [(1, "call.created"), (2, "call.ended")]
    assert (ticket.status_code, ticket.json()["code"]) == (409, "call_ended")


async def test_a_new_ticket_grants_epochs_above_all_before(api: Api, project: Project) -> None:
    made = (await create(project.client)).json()
    nobody, path = await api.client(), f"/v1/calls/{made['id']}/ticket"
    first = await nobody.post(path, json={"ticket": made["ticket"]})
    second = await nobody.post(path, json={"ticket": made["ticket"]})
    forged = await nobody.post(path, json={"ticket": made["ticket"][:-4] + "AAAA"})
    assert (first.status_code, first.json()["epoch"]) == (200, 4)
    assert second.json()["epoch"] == 7
    assert (forged.status_code, forged.json()["code"]) == (401, "bad_ticket")


async def test_a_call_that_has_used_up_its_epochs_is_told_so_and_not_to_wait(
    api: Api, project: Project
) -> None:
    made = (await create(project.client)).json()
    async with superuser(api) as database:
        await database.execute(
            "update vx.calls set epoch_granted = $2 where id = $1",
            ids.decode(ids.CALL, made["id"]),
            EPOCHS_MAX,
        )
    answer = await project.client.post(f"/v1/calls/{made['id']}/ticket", json={"ticket": made["ticket"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "epochs_used_up")
    assert "retry-after" not in answer.headers


async def test_what_another_project_owns_is_not_found(api: Api, project: Project) -> None:
    theirs = (await api.project()).client
    made = (await create(project.client)).json()
    answers = [await theirs.get(f"/v1/calls/{made['id']}{p}") for p in ("", "/events", "/conversation")]
    answers.append(await theirs.post(f"/v1/calls/{made['id']}/end"))
    listed = (await theirs.get("/v1/calls")).json()["data"]
    still = (await project.client.get(f"/v1/calls/{made['id']}")).json()
    assert [a.status_code for a in answers] == [404] * 4
    assert listed == []
    assert still["state"] == "ringing"


async def test_residency_that_cannot_be_met_is_refused_with_what_could(api: Api, project: Project) -> None:
    client = project.client
    answer = await create(client, regions={"jurisdictions": ["ch"]})
    bound = (await create(client, regions={"jurisdictions": ["eu"]})).json()
    assert (answer.status_code, answer.json()["code"]) == (422, "residency_unsatisfiable")
    assert answer.json()["allowed_regions"] == ["ap-south", "eu-west", "us-east"]
    assert bound["region"] == "eu-west"
    assert bound["placement"]["standbys"] == []
    assert bound["placement"]["protection"] == "none"


async def test_pages_follow_a_cursor_that_belongs_to_its_filters(api: Api, project: Project) -> None:
    client = project.client
    made = [(await create(client, metadata={"n": str(i % 2)})).json()["id"] for i in range(5)]
    first = (await client.get("/v1/calls", params={"limit": 2})).json()
    second = (await client.get("/v1/calls", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    odd = (await client.get("/v1/calls", params={"metadata.n": "1"})).json()["data"]
    mixed = await client.get("/v1/calls", params={"state": "failed", "cursor": first["next_cursor"]})
    negative = await client.get("/v1/calls", params={"limit": -1})
    nonsense = await client.get("/v1/calls", params={"cursor": "AAAA"})
    assert [c["id"] for c in first["data"] + second["data"]] == made[::-1][:4]
    assert [c["id"] for c in odd] == [made[3], made[1]]
    assert [mixed.status_code, negative.status_code, nonsense.status_code] == [400, 400, 400]


async def test_the_list_is_of_what_every_filter_lets_pass(project: Project) -> None:
    client = project.client
    rang = [
        (
            await create(
                client,
                caller={"kind": "websocket", "from": "+14155550100", "to": to},
                metadata={"a": a, "b": "1"},
            )
        ).json()["id"]
        for to, a in (("+442071838750", "x"), ("tel:+1-206-555-0199", "x"), ("+442071838750", "y"))
    ]
    made_late = (await create(client, metadata={"b": "1"})).json()
    late, between = made_late["id"], made_late["created_at"]
    await client.post(f"/v1/calls/{rang[0]}/end")
    state = (await client.get(f"/v1/calls/{rang[0]}")).json()["state"]

    async def listed(query: str) -> list[str]:
        answer = await client.get(f"/v1/calls?{query}")
        assert answer.status_code == 200, answer.text
        return [c["id"] for c in answer.json()["data"]]

    assert await listed("to=%2B44%2020%207183%208750") == [rang[2], rang[0]]
    assert await listed("to=+12065550199") == [rang[1]], "a plus that was not escaped"
    assert await listed("from=%2B14155550100&metadata.a=x") == [rang[1], rang[0]]
    assert await listed("metadata.a=x&metadata.b=1&limit=1") == [rang[1]]
    assert await listed("metadata.a=x&metadata.b=2") == []
    assert await listed("metadata.xb=1") == [], "a name and a value, not their letters in a row"
    assert await listed(f"state={state}") == [rang[0]]
    assert await listed(f"state=ringing&created_before={quote(between)}") == [rang[2], rang[1]]
    assert await listed(f"created_after={quote(between)}") == [late]
    assert await listed(f"created_after={quote(between)}&metadata.a=x") == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("created_after=yesterday", "/created_after"),
        ("created_before=2026-01-01T00:00:00", "/created_before"),
        ("created_after=2026-01-02T00:00:00Z&created_before=2026-01-02T00:00:00Z", "/created_before"),
        ("to=12", "/to"),
        ("from=sip:@", "/from"),
    ],
)
async def test_a_filter_that_is_none_is_refused_by_name(project: Project, query: str, pointer: str) -> None:
    answer = await project.client.get(f"/v1/calls?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_filter")
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"agent": {"url": "ws://127.0.0.1:9/x"}, "foo": 1}, 422, "invalid", "/foo"),
        ({"agent": {"url": "ws://127.0.0.1:9/x", "bar": 1}}, 422, "invalid", "/agent/bar"),
        ({"agent": {"url": 5}}, 422, "invalid", "/agent/url"),
        ({"agent": {"url": "ws://example.com/x"}}, 422, "invalid", "/agent/url"),
        ({"agent": {"url": "wss://10.0.0.1/x"}}, 422, "invalid", "/agent/url"),
        ({"agent": {"url": "wss://0x7f.1/x"}}, 422, "invalid", "/agent/url"),
        ({"agent": {"url": "https://example.com/x"}}, 422, "invalid", "/agent/url"),
        (call_body(webhook_url="https://169.254.169.254/latest"), 422, "invalid", "/webhook_url"),
        (call_body(metadata={"k": "x" * 513}), 422, "invalid", "/metadata"),
        (call_body(max_duration_s=0), 422, "invalid", "/max_duration_s"),
        (call_body(max_duration_s="5"), 422, "invalid", "/max_duration_s"),
        (call_body(max_duration_s=True), 422, "invalid", "/max_duration_s"),
        (call_body(latencies=[{"region": "us-east", "rtt_ms": "5"}]), 422, "invalid", "/latencies/0/rtt_ms"),
        (call_body(latencies=[{"region": "us-east", "rtt_ms": 5, "at": 1790000000}]), 422, "invalid", "/latencies/0/at"),
        (call_body(latencies=[{"region": "us-east", "rtt_ms": 5, "at": "2026-01-01T00:00:00"}]), 422, "invalid", "/latencies/0/at"),
        ({"agent": {"url": "ws://127.0.0.1:9/", "parameters": LONG}}, 422, "invalid", "/agent/parameters"),
        (call_body(caller={"kind": "websocket", "from": "+14155550123x"}), 422, "invalid", "/caller/from"),
        (call_body(caller={"kind": "websocket", "from": "+14155550123\n"}), 422, "invalid", "/caller/from"),
        (call_body(caller={"kind": "websocket", "from": "tel:+14155550123;ext=5"}), 422, "invalid", "/caller/from"),
        (call_body(caller={"kind": "websocket", "from": "+1\u0664155550123"}), 422, "invalid", "/caller/from"),
        (call_body(latencies=[{"region": "us-east", "rtt_ms": -1}]), 422, "invalid", "/latencies/0/rtt_ms"),
        (call_body(latencies=[{"region": "us-east", "rtt_ms": "fast"}]), 422, "invalid", "/latencies/0/rtt_ms"),
        (call_body(latencies=[{"region": "us-east", "rtt_ms": 5}] * 101), 422, "invalid", "/latencies"),
        (call_body(regions={"pin": "mars-north"}), 422, "invalid", "/regions/pin"),
        (call_body(regions={"pin": "us-east", "allow": ["eu-west"]}), 422, "invalid", "/regions/pin"),
        (call_body(caller={"kind": "phone", "to": "+14155550123"}), 422, "not_available", "/caller/kind"),
        (call_body(caller={"kind": "phone", "to": "12"}), 422, "invalid", "/caller/to"),
        (call_body(caller={"kind": "websocket", "from": "sip:@"}), 422, "invalid", "/caller/from"),
        (call_body(caller={"kind": "pigeon"}), 422, "invalid", "/caller/kind"),
        ({"agent": {"url": "ws://127.0.0.1:9/x", "dialect": "morse"}}, 422, "invalid", "/agent/dialect"),
        (call_body(end_when={"idle_s": -1}), 422, "invalid", "/end_when/idle_s"),
        (call_body(end_when={"idle": 1}), 422, "invalid", "/end_when/idle"),
        (call_body(end_when={"silence_s": 9}, turns={"mode": "off"}), 422, "invalid", "/end_when/silence_s"),
        (
            call_body(
                caller={"kind": "twilio", "address": "192.0.2.1"}, regions={"move_for_gain": True}
            ), 422, "invalid", "/regions/move_for_gain",
        ),
        ({"agent": {"url": "ws://127.0.0.1:9/x", "sample_rate": 16_000}}, 422, "invalid", "/agent/sample_rate"),
        ({"agent": {"url": "ws://127.0.0.1:9/x", "dialect": "teler", "sample_rate": 24_000}}, 422, "invalid", "/agent/sample_rate"),
        ({"agent": {"url": "ws://127.0.0.1:9/x", "dialect": "native", "sample_rate": 44_100}}, 422, "invalid", "/agent/sample_rate"),
        ({"agent": {"url": "ws://127.0.0.1:9/", "parameters": {"voxplane_x": "x"}}}, 422, "invalid", "/agent/parameters/voxplane_x"),
        ([], 422, "invalid", ""),
        ("text", 422, "invalid", ""),
    ],
)  # fmt: skip
async def test_a_bad_create_is_refused_with_a_pointer_and_changes_nothing(
    project: Project, body: Any, status: int, code: str, pointer: str
) -> None:
    client = project.client
    answer = await client.post("/v1/calls", json=body, headers={"Idempotency-Key": "x"})
    listed = (await client.get("/v1/calls")).json()["data"]
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert pointer in [e["pointer"] for e in problem["errors"]]
    assert problem["fix"]
    assert problem["request_id"] == answer.headers["request-id"]
    assert listed == []


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", {}, 400, "malformed_json"),
        (b"\xff\xfe", {}, 400, "malformed_json"),
        (b'{"agent":{"url":"ws://127.0.0.1:9/\xff\xfe"}}', {}, 400, "malformed_json"),
        (b'{"agent":' * 25_000, {}, 422, "invalid"),
        (b'{"agent":{"url":"ws://127.0.0.1:9/x"},"max_duration_s":NaN}', {}, 400, "malformed_json"),
        (b"x" * 10_000_000, {}, 413, "too_large"),
        (b"{}", {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        (b'{"agent":{"url":"ws://127.0.0.1:9/\x00"}}', {}, 400, "malformed_json"),
        (b'{"agent":{"url":"ws://127.0.0.1:9/x"}}', {"Idempotency-Key": ""}, 400, "idempotency_key_required"),
        (
            b'{"agent":{"url":"ws://127.0.0.1:9/x"}}',
            {"Idempotency-Key": "k" * 256},
            400,
            "bad_idempotency_key",
        ),
    ],
)
async def test_a_body_that_is_none_is_refused(
    project: Project, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    sent = {"Idempotency-Key": "x", "Content-Type": "application/json"} | headers
    answer = await project.client.post("/v1/calls", content=content, headers=sent)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("tel:+1-415-555-0123", "+14155550123"), ("TEL:+14155550123", "+14155550123"), ("+1 (415) 555-0123", "+14155550123"),
        ("SIP:bob@example.com", "sip:bob@example.com"),
    ],
)  # fmt: skip
async def test_a_number_is_kept_in_one_form(project: Project, given: str, stored: str) -> None:
    made = await create(project.client, caller={"kind": "websocket", "from": given})
    assert (made.status_code, made.json()["caller"]["from"]) == (201, stored)


async def test_who_may_not_ask_is_not_told_what_is_wrong_with_the_body(api: Api) -> None:
    answer = await (await api.client()).post("/v1/calls", json={"nonsense": 1})
    assert answer.status_code == 401


async def test_every_call_may_name_a_webhook_url_of_its_own(project: Project) -> None:
    """More of them than a driver plans anew for each."""
    urls = [f"http://127.0.0.1:9/{i}" for i in range(12)]
    made = [await create(project.client, webhook_url=url) for url in urls]
    made += await asyncio.gather(
        *(create(project.client, webhook_url="http://127.0.0.1:9/new") for _ in range(20))
    )
    assert {m.status_code for m in made} == {201}
    hooks = (await project.client.get("/v1/webhooks")).json()["data"]
    assert sorted(h["url"] for h in hooks) == sorted([*urls, "http://127.0.0.1:9/new"])


async def test_a_create_is_answered_again_also_when_nothing_can_be_placed_any_more(
    api: Api, project: Project
) -> None:
    region = f"r-{uuid4().hex[:8]}"
    edge, _ = await add_region(api, region)
    made = await create(project.client, "once", regions={"pin": region})
    connection = await asyncpg.connect(api.settings.database_url)
    await connection.execute("update vx.edges set seen_at = now() - interval '1 hour' where id = $1", edge)
    await connection.close()
    await api.control.fleet.refresh()
    again = await create(project.client, "once", regions={"pin": region})
    other = await create(project.client, "once", regions={"pin": region}, metadata={"k": "v"})
    fresh = await create(project.client, regions={"pin": region})
    assert (again.status_code, again.json()["id"]) == (201, made.json()["id"])
    assert again.headers["idempotent-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (fresh.status_code, fresh.json()["code"]) == (503, "no_healthy_region")


async def test_tickets_are_not_renewed_without_end(project: Project) -> None:
    made = (await create(project.client)).json()
    answers = [
        await project.client.post(f"/v1/calls/{made['id']}/ticket", json={"ticket": made["ticket"]})
        for _ in range(12)
    ]
    codes = [a.status_code for a in answers]
    assert codes[:10] == [200] * 10
    assert 429 in codes[10:]
    assert answers[-1].headers["retry-after"]
