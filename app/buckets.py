"""Token buckets by name: how often something may be asked for, on this instance. Pure but for what it remembers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

BUCKETS_MAX = 10_000


class Buckets:
    """Each name may do `burst` at once and `per_s` on average. The names used longest ago are forgotten, and begin full again."""

    def __init__(self, *, burst: float, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, name: Hashable, now_s: float) -> bool:
        """Whether one more is allowed at `now_s` (monotonic); it is taken then."""
        left, at_s = self._left.get(name, (self._burst, now_s))
        left = min(self._burst, left + max(0.0, now_s - at_s) * self._per_s)
        allowed = left >= 1
        self._left[name] = (left - 1 if allowed else left, now_s)
        self._left.move_to_end(name)
        while len(self._left) > BUCKETS_MAX:
            self._left.popitem(last=False)
        return allowed
