"""Where the uplink goes next, and after how long. Pure: what an attempt came to goes in, the next URL and a pause come out.

1. an uplink that had been good for a while has ended  → the next URL at once
2. an attempt failed, and a URL is left untried        → that one at once
3. every URL was tried in vain                         → a pause, which grows from round to round
"""

from __future__ import annotations

PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 2.0
STEADY_S = 5.0
"""An uplink that served for so long was good; one that ends sooner counts as an attempt that failed."""


class Retry:
    def __init__(self) -> None:
        self._turn = 0
        self._tried = 0
        self._pause_s = PAUSE_MIN_S

    def url(self, urls: list[str]) -> str:
        """The one to try next; with it the turn goes to the one after."""
        url = urls[self._turn % len(urls)]
        self._turn += 1
        self._tried += 1
        return url

    def ended(self, urls: list[str], served_s: float) -> float:
        """The pause before the next attempt, in seconds. `served_s`: how long the uplink was good for, 0 where it never was."""
        if served_s >= STEADY_S:
            self._tried, self._pause_s = 1, PAUSE_MIN_S
        if self._tried < len(urls):
            return 0.0
        self._tried = 0
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, PAUSE_MAX_S)
        return pause_s
