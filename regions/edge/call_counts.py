"""What happened to calls on this edge, as its metrics say it: counted from what is written of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate

from regions.edge.pressed import Presses
from regions.wire.edge_metrics import head
from regions.wire.events import EVENT_TYPES, EndReason

RETURN_S = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets; one more takes the rest."""
REASONS = ("closed", "silent", "refused", "planned", "other")
PRESSES = ("button", "key")
END_REASONS = frozenset(reason.value for reason in EndReason)


class CallCounts:
    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.taken: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.ended: Counter[str] = Counter()
        self.presses_dropped: Counter[str] = Counter(dict.fromkeys(PRESSES, 0))
        self._returns = [0] * (len(RETURN_S) + 1)
        self._returns_s = 0.0

    def seen(self, type_: str, data: Mapping[str, object]) -> None:
        """An event was written. No value of `data` becomes a label that is not one of ours."""
        self.events[type_ if type_ in EVENT_TYPES else "other"] += 1
        if type_ == "call.ended":
            reason = str(data.get("end_reason"))
            self.ended[reason if reason in END_REASONS else "other"] += 1
        elif type_ in ("call.reconnecting", "call.moved") and data.get("from_epoch") != data.get("to_epoch"):
            reason = str(data.get("reason"))
            self.taken[reason if reason in REASONS else "other"] += 1

    def presses(self, kind: str, call: str, epoch: int) -> Presses:
        """For one ownership of a call; what it drops is counted here. `kind`: one of `PRESSES`."""
        return Presses(kind, call, epoch, self.presses_dropped)

    def returned(self, after_s: float) -> None:
        self._returns[bisect_left(RETURN_S, after_s)] += 1
        self._returns_s += after_s

    def exposition(self) -> str:
        events, taken, ended, presses, back = (
            f"voxplane_edge_{n}"
            for n in ("events_total", "taken_total", "ended_total", "presses_dropped_total", "return_seconds")
        )
        bounds = [*map(str, RETURN_S), "+Inf"]
        return "".join(
            (
                head(events),
                *(f'{events}{{type="{type_}"}} {n}\n' for type_, n in sorted(self.events.items())),
                head(taken),
                *(f'{taken}{{reason="{why}"}} {n}\n' for why, n in sorted(self.taken.items())),
                head(ended),
                *(f'{ended}{{reason="{why}"}} {n}\n' for why, n in sorted(self.ended.items())),
                head(presses),
                *(f'{presses}{{kind="{kind}"}} {n}\n' for kind, n in sorted(self.presses_dropped.items())),
                head(back),
                *(
                    f'{back}_bucket{{le="{bound}"}} {n}\n'
                    for bound, n in zip(bounds, accumulate(self._returns), strict=True)
                ),
                f"{back}_sum {self._returns_s:.3f}\n{back}_count {sum(self._returns)}\n",
            )
        )
