"""What has become of backends on this edge, as its metrics say it: how they were lost, how it ended, how long callers waited."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import accumulate

from regions.wire.edge_metrics import head

AWAY_S = (0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets; one more takes the rest."""
LOST_BY = ("closed", "lost", "does_not_read", "too_large", "hung_up_at_once")
CAME_TO = ("reconnected", "gave_up", "left")


class BackendCounts:
    def __init__(self) -> None:
        self.lost: Counter[str] = Counter(dict.fromkeys(LOST_BY, 0))
        self.came_to: Counter[str] = Counter(dict.fromkeys(CAME_TO, 0))
        self._away = [0] * (len(AWAY_S) + 1)
        self._away_s = 0.0

    def over(self, outcome: str, away_s: float) -> None:
        """An absence has ended: one of `CAME_TO`. ``left``: the call ended, or went elsewhere, before."""
        self.came_to[outcome] += 1
        if outcome == "reconnected":
            self._away[bisect_left(AWAY_S, away_s)] += 1
            self._away_s += away_s

    def exposition(self) -> str:
        lost, over, away = (
            f"voxplane_edge_backend{n}" for n in ("s_lost_total", "_absences_total", "_away_seconds")
        )
        bounds = [*map(str, AWAY_S), "+Inf"]
        return "".join(
            (
                head(lost),
                *(f'{lost}{{why="{why}"}} {count}\n' for why, count in sorted(self.lost.items())),
                head(over),
                *(f'{over}{{outcome="{what}"}} {count}\n' for what, count in sorted(self.came_to.items())),
                head(away),
                *(
                    f'{away}_bucket{{le="{bound}"}} {count}\n'
                    for bound, count in zip(bounds, accumulate(self._away), strict=True)
                ),
                f"{away}_sum {self._away_s:.3f}\n{away}_count {sum(self._away)}\n",
            )
        )
