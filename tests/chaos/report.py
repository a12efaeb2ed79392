"""What a run says at its end: a table, a verdict, and the history of what broke a rule."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos import logs
from tests.chaos.callers import Counts
from tests.chaos.history import History, Violation

SHOWN_MAX = 20
HISTORIES_MAX = 5


def table(
    history: History,
    counts: Counts,
    struck: Counter[str],
    complaints: Counter[str],
    *,
    late: int,
    seconds: float,
) -> str:
    events = [e for c in history.calls for e in c.events]
    hooks = Counter(h.message_id for h in history.hooks)
    effects = sum(n.kind == "effect" for n in history.noted)
    tools = sum(n.kind == "tool" for n in history.noted)
    waiting = [c for c in history.calls if c.waiting]
    ends = Counter(str(c.end_reason) for c in history.calls)
    adopted = sum(e.origin is not None and e.origin[0] < e.epoch and e.type != "call.ended" for e in events)
    rows = [
        ("faults", f"{sum(struck.values())}"),
        *((f"  {what}", str(times)) for what, times in sorted(struck.items())),
        ("calls", f"{len(history.calls)} in {seconds:.0f} s; at once {_spread(counts.at_once)}"),
        ("  ended", ", ".join(f"{reason} {n}" for reason, n in ends.most_common())),
        ("  not attached, lost", f"{counts.refused}, {counts.lost}"),
        ("  creates repeated", str(counts.creates_repeated)),
        ("failovers", f"{counts.failovers}, of which {len(counts.gaps_s)} found an owner"),
        ("  gap p50 / p99 / max", _gaps(counts.gaps_s)),
        *(("  one of the longest", f"{s * 1000:.0f} ms {what}") for s, what in counts.longest),
        ("events", f"{len(events)}; adopted {adopted}, given up {sum(e.type == 'events.lost' for e in events)}"),
        ("  kept as late", str(late)),
        ("acknowledged", f"{sum(len(c.acked) for c in history.calls)} times to callers, "
                         f"{sum(n.kind == 'acked' for n in history.noted)} tool calls of {tools} to backends"),
        ("effects", str(effects)),
        ("webhooks", f"{len(history.hooks)}; {sum(hooks.values()) - len(hooks)} came again, "
                     f"{sum(h.overtook for h in history.hooks)} overtook"),
        ("streams", ", ".join(f"{name} {len(seen)}" for name, seen in history.streams.items())),
        ("reads", str(len(history.reads))),
        ("waiting for their grants to expire", str(len(waiting))),
        ("errors in the logs", str(sum(complaints.values()))),
        *logs.shown(complaints),
    ]  # fmt: skip
    return "\n".join(f"  {name:36} {value}" for name, value in rows)


def verdict(violations: Sequence[Violation], history: History) -> str:
    waits = [f"  waits: {c.id} ({c.name}): {c.waiting}" for c in history.calls if c.waiting]
    if not violations:
        return "\n".join([*waits, "HOLDS: no rule was broken."])
    broken = Counter(v.rule for v in violations)
    lines = [f"  {v.rule:18} {v.call} {v.detail[:400]}" for v in violations[:SHOWN_MAX]]
    more = [f"  … and {len(violations) - SHOWN_MAX} more"] if len(violations) > SHOWN_MAX else []
    names = ", ".join(f"{rule} {n}" for rule, n in broken.most_common())
    return "\n".join([*waits, f"BROKEN: {names}", *lines, *more])


def write(
    path: Path, seed: int, faults: list[str], violations: Sequence[Violation], history: History
) -> None:
    """The violations, and all that was seen of the first calls that they are about."""
    calls = list(dict.fromkeys(v.call for v in violations if v.call))[:HISTORIES_MAX]
    found: dict[str, Any] = {
        "seed": seed,
        "faults": faults,
        "violations": [{"rule": v.rule, "call": v.call, "detail": v.detail} for v in violations],
        "histories": [history.of_call(call) for call in calls],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def first_history(violations: Sequence[Violation], history: History) -> str:
    """The log of the first call that broke a rule, one event a line."""
    call = next((v.call for v in violations if v.call), "")
    lines = [f"  the log of {call}:"] if call else []
    for found in history.calls:
        if found.id == call:
            lines += [
                f"  {e.seq:4} {e.epoch:3} {e.region!s:9} {e.type:22} {e.origin} {json.dumps(e.data)[:120]}"
                for e in found.events
            ]
            lines += [f"  its caller saw acknowledged: {found.acked[-6:]}"]
    return "\n".join(lines)


def _gaps(gaps_s: list[float]) -> str:
    if not gaps_s:
        return "none"
    return " / ".join(
        f"{s * 1000:.0f} ms" for s in (statistics.median(gaps_s), _quantile(gaps_s, 0.99), max(gaps_s))
    )


def _spread(at_once: list[int]) -> str:
    return f"{min(at_once)} to {max(at_once)}" if at_once else "none"


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
