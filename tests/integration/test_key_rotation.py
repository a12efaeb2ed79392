"""Keys that rotate: the fleet's, which open nowhere once their overlap is over, and the master."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
import pytest_asyncio

from app.cells.settings import CellSettings
from app.erasure import masters
from app.vault import MASTER_KEY_FILE, LocalKeys
from regions.wire.keeping import Unopened, opening
from regions.wire.ticket import TicketError, read, unb64, unseal
from tests.support.api import Api, Project
from tests.support.fleet import three_regions

BODY = {"agent": {"url": "ws://127.0.0.1:9/"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


async def made(project: Project) -> str:
    answer = await project.client.post("/v1/calls", json=BODY, headers={"Idempotency-Key": str(uuid4())})
    return str(answer.json()["ticket"])


async def test_a_new_key_is_told_before_it_is_used_and_the_old_one_opens_until_its_time(
    api: Api, project: Project
) -> None:
    keyring = api.control.keyring
    before, ticket = keyring.fleet_key[0], await made(project)

    answer = await api.operator.post("/admin/v1/fleet-keys/rotate", json={"kinds": ["fleet"], "lead_s": 600})
    assert answer.status_code == 200, answer.text
    shown = [k for k in answer.json()["data"] if k["kind"] == "fleet"]
    assert (answer.status_code, keyring.fleet_key[0]) == (200, before)
    assert [k.id for k in keyring.fleet_keys] == [before, shown[0]["id"]]  # edges seal with the first
    assert (shown[0]["drops_at"], shown[1]["drops_at"] is not None) == (None, True)
    assert "wrapped" not in answer.text

    sealed = keyring.seal(b"said", "place")
    await api.operator.post("/admin/v1/fleet-keys/rotate", json={"lead_s": 0, "overlap_s": 0})
    claims_key = {k.id: unb64(k.key) for k in keyring.fleet_keys}
    assert before not in claims_key and len(claims_key) == 1
    with pytest.raises(TicketError):
        read(ticket, keys=keyring.public_keys)
    with pytest.raises(Unopened):
        opening(lambda: keyring.fleet_secrets)(sealed, "place")
    fresh = read(await made(project), keys=keyring.public_keys)
    assert unseal(fresh.sealed, keys=claims_key, bound_to=fresh.call)
    assert len((await api.operator.get("/.well-known/jwks.json")).json()["keys"]) == 1


async def test_what_follows_from_the_first_signing_key_outlives_it(api: Api) -> None:
    before = api.control.keyring.secret_for(b"valkey")
    for _ in range(2):
        answer = await api.operator.post("/admin/v1/fleet-keys/rotate", json={"lead_s": 0, "overlap_s": 0})
        assert answer.status_code == 200
    assert api.control.keyring.secret_for(b"valkey") == before


@pytest.mark.parametrize("body", [{"kinds": ["master"]}, {"overlap_s": -1}, {"lead": 1}, []])
async def test_nonsense_rotates_nothing(api: Api, project: Project, body: object) -> None:
    before = await api.control.keyring.states()
    answer = await api.operator.post("/admin/v1/fleet-keys/rotate", content=json.dumps(body))
    assert answer.status_code in (400, 422) and answer.json()["fix"]
    assert (await project.client.post("/admin/v1/fleet-keys/rotate", json={})).status_code == 403
    assert await api.control.keyring.states() == before


async def test_all_that_the_old_master_wrapped_is_wrapped_anew(api: Api, project: Project) -> None:
    hook = {"url": "http://127.0.0.1:9/", "headers": {"x-token": "t"}}
    assert (await project.client.post("/v1/webhooks", json=hook)).status_code == 201
    await made(project)
    folder = api.settings.data
    masters.prepare(folder)
    masters.turn(folder, api.control.clock.now())
    cells = [CellSettings(number=0, url=api.settings.database_url, home=True)]
    keys = LocalKeys.from_file(folder / MASTER_KEY_FILE)

    told = await masters.rewrap(cells, keys)
    assert (
        told.unopened == 0 and told.rewrapped >= 5
    )  # content, signing, fleet, an endpoint's secret and headers
    newest_alone = LocalKeys((folder / MASTER_KEY_FILE).read_bytes())
    left = await masters.rewrap(cells, newest_alone, change=False)
    assert (left.unopened, left.rewrapped, left.looked_at) == (0, 0, told.looked_at)
    await api.control.keyring.open()
    await made(project)
