"""What machines ask an instance."""

from __future__ import annotations

from tests.support.api import Api


async def test_an_instance_that_runs_is_alive_and_ready(api: Api) -> None:
    client = await api.client()

    assert (await client.get("/healthz")).json() == {"status": "ok"}
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "reasons": []})
