"""Prints what the demo has seen."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.local.demo import Outcome

FIGURES = {
    "time_to_first_audio_ms": "create to the first audio",
    "voice_to_voice_ms": "caller's last word to the answer",
    "barge_in_ms": "caller's first sound to silence",
    "failover_noticed_ms": "SIGKILL to the caller knowing",
    "failover_attached_ms": "SIGKILL to the standby owning the call",
    "audio_gap_ms": "last audio of the old to audio flowing again",
    "webhook_p50_ms": "event to webhook, median",
    "webhook_max_ms": "event to webhook, slowest",
}
COLUMNS = 132
"""Of a file or a pipe."""


def print_report(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(outcome) | {"ok": not outcome.faults}))
        return
    placement = outcome.call["placement"]
    print("\nPlacement")
    for c in placement["candidates"]:
        print(
            f"  {c['region']:<10} {c['rtt_ms']:6.1f} ms {'' if c['source'] == 'measured' else 'at least?':<9}"
            f"  load {c['load']:.2f}  cost {c['cost_ms']:6.1f}  {c['reason']}"
        )
    standbys = ", ".join(s["region"] for s in placement["standbys"])
    print(f"  standbys: {standbys} ({placement['protection']} protection)")
    print("\nTimeline")
    began = _at(outcome.events[0])
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else COLUMNS
    for event in outcome.events:
        offset_s = _at(event) - began
        where = f"epoch {event['epoch']}  {event['region']:<9}"
        line = f"  {offset_s:7.2f} s  seq {event['seq']:>3}  {where} {event['type']:<21} {_said(event)}"
        print(line if len(line) <= columns else line[: max(1, columns - 1)] + "…")
    print("\nFigures")
    for name, meaning in FIGURES.items():
        value = outcome.figures.get(name)
        shown = "      –" if value is None else f"{value:7.0f}"
        print(f"  {shown} ms  {meaning}")
    print("\nProof")
    if outcome.faults:
        for fault in outcome.faults:
            print(f"  FAULT: {fault}")
        return
    print(f"  {len(outcome.events)} events, each once, in order, without a gap; one final event")
    print(
        f"  {outcome.webhooks} webhooks, each verified, once, in the order of the call, saying what the log says"
    )
    print(
        f"  {outcome.killed} was killed; {outcome.went_to} went on, and the answer there still knew the order"
    )
    print(f"  all in {outcome.took_s:.0f} s")


def _at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def _said(event: dict[str, Any]) -> str:
    data = event["data"]
    if "text" in data:
        return f"{data.get('role', '')}: {data['text']}"
    return json.dumps(data, ensure_ascii=False) if data else ""
