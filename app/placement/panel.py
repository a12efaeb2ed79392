"""The networks that are looked at for profiles: those that were learned of last, and of nobody's addresses more than a few.

Whoever is given addresses is given many networks at once (a /32 of IPv6 is 65,536 of them), and each of them would have a say in
what strangers are taken to look like. So the networks of one allocation, a /16 or a /32, share a few places, and a new one takes the
place of the oldest of them: a flood from there pushes nobody else out.
"""

from __future__ import annotations

from app.placement.history import History
from app.placement.networks import allocation_of

LOOKED_AT_MAX = 4_096
OF_ONE_ALLOCATION_MAX = 24
"""A sixteenth of the profiles there may be, and enough of them for a deployment all of whose callers are there."""
WHOLE_REGIONS = 64
"""Of these networks all regions are kept: what is far tells networks apart as well as what is near."""


class Panel:
    """`networks_max`: beyond it those that were learned of longest ago are forgotten. Not safe for threads."""

    def __init__(self, networks_max: int = LOOKED_AT_MAX) -> None:
        self._history = History(networks_max, WHOLE_REGIONS)
        self._places: dict[int, dict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._history)

    def newest(self) -> list[int]:
        """All of them, those that were learned of last first."""
        return self._history.newest(len(self._history))

    def learn(self, network: int, region: str, window: int, rtt_ms: float) -> None:
        """As `History.learn`."""
        places = self._places.setdefault(allocation_of(network), {})
        if network in places:
            del places[network]
        elif len(places) >= OF_ONE_ALLOCATION_MAX:
            oldest = next(iter(places))
            del places[oldest]
            self._history.forget(oldest)
        places[network] = None
        before = len(self._history)
        self._history.learn(network, region, window, rtt_ms)
        if len(self._history) < before:
            self._place_again()

    def recall(self, network: int, window: int) -> dict[str, tuple[float, ...]]:
        """As `History.recall`."""
        return self._history.recall(network, window)

    def _place_again(self) -> None:
        """Many were forgotten at once."""
        self._places = {}
        for network in reversed(self.newest()):
            self._places.setdefault(allocation_of(network), {})[network] = None
