"""Histories of the caller's watch, with what it did at each step: every client library has to do the same.

``openapi/clients/watch-histories.json`` is recorded from the Python library's `Watch` (``python -m tests.support.watch_histories``
writes it again); the tests of both libraries play it back. A step is ``[what, at_ms, argument, actions, state, epoch]``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

from voxplane.watch import Action, AskTicket, GiveUp, LetGo, Prepare, Retry, Take, Watch

FILE = Path(__file__).resolve().parents[2] / "openapi" / "clients" / "watch-histories.json"
DRAWS = (0.0, 1.0, 0.5)
RANDOM_HISTORIES = 30
STEPS = 40
EPOCHS = [1, 2, 3]
SEEN = (
    "tick", "tick", "tick", "heard", "closed", "prepared", "failed", "attached", "planned", "declined", "granted",
    "not_granted",
)  # fmt: skip

Told = tuple[str, float, Any]
"""What was seen, when, and the epoch, the epochs or the reason that belongs to it."""

SCENARIOS: dict[str, list[Told]] = {
    "silence prepares, and takes once the standby answers": [
        ("tick", 399, None), ("tick", 400, None), ("tick", 600, None), ("prepared", 620, 2), ("attached", 700, 2),
    ],
    "a standby that answers early is taken at 500 ms": [
        ("tick", 400, None), ("prepared", 430, 2), ("tick", 499, None), ("tick", 500, None), ("attached", 520, 2),
    ],
    "an owner that is heard again keeps the call": [
        ("tick", 400, None), ("heard", 450, None), ("prepared", 460, 2), ("tick", 849, None), ("tick", 850, None),
    ],
    "a closed socket takes at once, and a refused take goes on": [
        ("closed", 10, None), ("failed", 20, 2), ("failed", 30, 3), ("granted", 40, [4, 5]), ("attached", 90, 4),
    ],
    "both silent is the caller's own network": [
        ("tick", 400, None), ("tick", 1_500, None), ("tick", 2_500, None), ("attached", 2_600, 1), ("tick", 2_999, None),
    ],
    "the newest ticket's grants come first": [
        ("granted", 10, [4, 5]), ("tick", 400, None), ("failed", 410, 4), ("failed", 420, 5), ("prepared", 600, 2),
    ],
    "a take that nobody answers goes on to the next": [
        ("closed", 0, None), ("tick", 1_499, None), ("tick", 1_500, None), ("tick", 3_000, None), ("not_granted", 3_100, None),
        ("tick", 30_000, None),
    ],
    "a planned move": [("granted", 0, [4, 5]), ("planned", 100, 4), ("heard", 150, None), ("attached", 160, 4)],
    "a planned move that is refused leaves the owner": [
        ("planned", 100, 2), ("declined", 120, 2), ("tick", 400, None), ("planned", 410, 2),
    ],
    "a planned move that is refused takes no lower grant away": [
        ("planned", 100, 3), ("declined", 120, 3), ("closed", 200, None), ("attached", 230, 2),
    ],
    "a planned move whose owner dies": [("planned", 100, 2), ("closed", 110, None), ("failed", 130, 2), ("attached", 200, 3)],
    "a primary that refuses is left for its standby": [("closed", 5, "refused"), ("attached", 50, 2)],
}  # fmt: skip


def _play(watch: Watch, told: Told) -> list[Action]:
    what, at_ms, argument = told
    if what == "closed":
        return watch.closed(at_ms, argument or "closed")
    method = getattr(watch, what)
    return method(at_ms) if argument is None else method(argument, at_ms)


def action_text(action: Action) -> str:
    match action:
        case Prepare(epoch):
            return f"prepare {epoch}"
        case Take(epoch, reason):
            return f"take {epoch} {reason}"
        case LetGo(epoch):
            return f"let_go {epoch}"
        case Retry(epoch):
            return f"retry {epoch}"
        case AskTicket():
            return "ask_ticket"
        case GiveUp():
            return "give_up"


def recorded(name: str, told: Iterator[Told]) -> dict[str, Any]:
    draws = cycle(DRAWS)
    watch = Watch(EPOCHS, 1, 0.0, lambda: next(draws))
    steps = []
    for step in told:
        actions = _play(watch, step)
        steps.append([*step, [action_text(a) for a in actions], str(watch.state), watch.epoch])
    return {"name": name, "steps": steps}


def _random(seed: int) -> Iterator[Told]:
    chance, at_ms, highest = Random(seed), 0, max(EPOCHS)
    for _ in range(STEPS):
        at_ms += chance.choice((0, 20, 100, 400, 500, 1_600, 4_000))
        what = chance.choice(SEEN)
        if what == "granted":
            highest += 2
            yield what, at_ms, [highest - 1, highest]
        elif what == "closed":
            yield what, at_ms, chance.choice(("closed", "refused"))
        elif what in ("tick", "heard", "not_granted"):
            yield what, at_ms, None
        else:
            yield what, at_ms, chance.randint(1, highest)


def histories() -> dict[str, Any]:
    named = [recorded(name, iter(told)) for name, told in SCENARIOS.items()]
    drawn = [recorded(f"seed {seed}", _random(seed)) for seed in range(RANDOM_HISTORIES)]
    return {"draws": DRAWS, "epochs": EPOCHS, "histories": [*named, *drawn]}


def text() -> str:
    found = histories()
    lines = ",\n".join(json.dumps(history, separators=(",", ":")) for history in found["histories"])
    head = f'"draws": {json.dumps(found["draws"])}, "epochs": {json.dumps(found["epochs"])}'
    return f'{{{head}, "histories": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
