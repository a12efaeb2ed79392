"""What is made of a run of the fuzzer: what it has reached, whose fault it is that it did not end, and that it ends."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.client import STUCK, Ended, run
from tests.fuzz.tally import Fault, Tally, bad, whose

DOCUMENT = {
    "paths": {
        "/a": {"parameters": [], "get": {"operationId": "getA"}, "post": {"operationId": "makeA"}},
        "/b": {"get": {"operationId": "getB"}},
    }
}


def asked(name: str) -> str:
    return json.dumps({"asked": name, "method": "GET", "path": "/a"})


def answered(name: str, status: int, code: str = "", *, meant: bool = True, took_s: float = 0.1) -> str:
    return json.dumps({"answered": name, "status": status, "meant": meant, "took_s": took_s, "code": code})


def test_a_run_is_good_where_each_operation_was_answered_well() -> None:
    lines = [
        asked("getA"),
        answered("getA", 200),
        asked("makeA"),
        answered("makeA", 201),
        answered("getB", 404, "no"),
    ]
    report = Tally.of([*lines, answered("getB", 200)]).report(DOCUMENT, set())
    assert (report["operations"], report["reached"], report["answered_well"]) == (3, 3, 3)
    assert report["statuses"] == {"200": 2, "201": 1, "404": 1}
    assert not bad(report)
    missed = Tally.of(lines).report(DOCUMENT, set())
    assert missed["never_answered_well"] == {"getB": {"no": 1}} and bad(missed)
    assert not bad(Tally.of(lines).report(DOCUMENT, {"getB"})), "somebody else was answered well"


def test_a_method_that_an_operation_does_not_have_does_not_reach_it() -> None:
    report = Tally.of([answered("getA", 405, meant=False), answered("makeA", 201)]).report(DOCUMENT, set())
    assert report["never_reached"] == ["getA", "getB"] and bad(report)
    assert report["statuses_of_other_methods"] == {"405": 1}


@pytest.mark.parametrize("line", [{"failed": "getA"}, {"late": "getA (GET /a)"}])
def test_a_request_without_an_answer_is_a_fault(line: dict[str, Any]) -> None:
    well = [answered(name, 200) for name in ("getA", "makeA", "getB")]
    assert not bad(Tally.of(well).report(DOCUMENT, set()))
    assert bad(Tally.of([*well, asked("getA"), json.dumps(line)]).report(DOCUMENT, set()))


def test_what_was_asked_last_is_known_of_a_journal_that_was_cut_off() -> None:
    assert Tally.of([answered("getB", 200), asked("getA"), '{"answ']).last == "getA (GET /a)"
    assert Tally.of([asked("getA"), answered("getA", 200)]).last is None


@pytest.mark.parametrize(
    ("went_on", "serving", "answers", "fault"),
    [
        (True, 1, True, Fault.NOBODY),
        (False, 0, False, Fault.SERVER),
        (False, 1, True, Fault.SERVER),
        (False, 0, True, Fault.CLIENT),
    ],
)
def test_whose_fault_it_is(went_on: bool, serving: int, answers: bool, fault: Fault) -> None:
    assert whose(went_on=went_on, serving=serving, answers=answers) is fault


async def ran(folder: Path, program: str, bound_s: float = 0.5) -> Ended:
    async def answers() -> bool:
        return True

    journal = folder / "journal"
    journal.write_text(asked("getA") + "\n")
    return await run([sys.executable, "-c", program], {}, folder, journal, bound_s, answers)


HANGS = "import signal, time; signal.signal(signal.SIGUSR1, lambda *_: print('threads')); time.sleep(600)"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.client.DUMP_S", 0.3)


async def test_a_client_that_hangs_is_ended_and_blamed(
    tmp_path: Path, hasty: None, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = await ran(tmp_path, HANGS)
    assert ended.hung is Fault.CLIENT
    said = capsys.readouterr().err
    assert "it was at getA (GET /a)" in said and "nothing is known of the instance" in said
    assert (await ran(tmp_path, f"import os; os._exit({STUCK})", 30)).hung is Fault.CLIENT


async def test_an_instance_that_does_not_finish_is_blamed(
    tmp_path: Path, hasty: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run_asgi() -> None:
        await never()

    async def never() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(run_asgi())
    try:
        assert (await ran(tmp_path, HANGS)).hung is Fault.SERVER
    finally:
        task.cancel()
    assert "run_asgi > " in (said := capsys.readouterr().err) and " never" in said, "where it waits"


async def test_one_that_is_slow_is_nobodys_fault(tmp_path: Path, hasty: None) -> None:
    async def go_on() -> None:
        while True:
            await asyncio.sleep(0.01)
            with (tmp_path / "journal").open("a") as journal:
                journal.write(answered("getA", 200) + "\n")

    task = asyncio.create_task(go_on())
    try:
        assert (await ran(tmp_path, HANGS)).hung is Fault.NOBODY
    finally:
        task.cancel()


async def test_what_it_printed_is_shown_and_its_code_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = await ran(tmp_path, "print('x' * 500_000); raise SystemExit(3)", 30)
    assert (ended.code, ended.hung) == (3, None)
    assert capsys.readouterr().out.count("x") == 500_000
