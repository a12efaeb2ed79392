"""The program of docs/how-to/receive-webhooks.md runs as it is printed there, and says what the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.local.process import free_port
from app.webhooks.signature import headers, sign, write_secret

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "receive-webhooks.md"
WITHIN_S = 15.0
SECRET = b"0123456789abcdef01234567"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    port = free_port()
    program = tmp_path / "receiver.py"
    program.write_text(found.group(1).replace("3000", str(port)), encoding="utf-8")
    env = os.environ | {"WEBHOOK_SECRET": write_secret(SECRET)}
    with subprocess.Popen([sys.executable, program], env=env, stdout=subprocess.PIPE, text=True) as process:
        yield f"http://127.0.0.1:{port}/hook", process
        process.kill()


def sent(url: str, event: dict[str, object], secret: bytes = SECRET) -> int:
    body, at = json.dumps(event).encode(), int(time.time())
    signed = headers(str(event["id"]), at, sign(str(event["id"]), at, body, [secret]))
    until = time.monotonic() + WITHIN_S
    while True:
        try:
            return httpx.post(url, content=body, headers=signed, trust_env=False).status_code
        except httpx.ConnectError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def event(number: int, kind: str, **data: object) -> dict[str, object]:
    at = "2026-11-25T04:30:00.000Z"
    about = {"call_id": "call_1", "seq": number, "epoch": 1, "region": "us-east", "schema": 1}
    return {"id": f"evt_{number}", "type": kind, "timestamp": at, "data": data} | about


def test_it_takes_what_is_genuine_and_each_event_once(receiver: tuple[str, subprocess.Popen[str]]) -> None:
    url, process = receiver
    spoken = event(2, "turn.ended", role="caller", text="hello")
    assert sent(url, {"id": "evt_0", "type": "webhook.handshake", "data": {"webhook": "whk_1"}}) == 204
    assert sent(url, event(1, "call.ended", end_reason="made_up"), b"y" * 24) == 400
    assert sent(url, event(3, "of.tomorrow", new=1)) == 204
    assert sent(url, event(5, "turn.ended", erased=True)) == 204
    assert [sent(url, spoken), sent(url, spoken)] == [204, 204]
    assert sent(url, event(4, "call.ended", end_reason="caller_hung_up")) == 204
    assert process.stdout is not None
    assert [process.stdout.readline().strip() for _ in range(3)] == [
        "refused: bad_signature",
        "call_1 caller: hello",
        "call_1 ended: caller_hung_up",
    ]
