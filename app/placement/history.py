"""What is known of the round trips between a network and the regions: per pair the last few windows, each one robust value.

Decides what is kept of each network, for how long, and who is forgotten first. Leaves to `learning` what may be learned at all, and
to `belief` what follows from it. A network is a /24, a /48, an autonomous system or a metro (`app.placement.networks`); no address
is in here. A window is an hour; of each the value is the one that was said last, so that a window that is still open can be said
again and again, and two instances that say the same change nothing.

A million networks with eight regions each have to fit into 300 MB, so a network is one `bytes`: 14 of them for each region.
"""

from __future__ import annotations

import struct
from itertools import islice

WINDOW_S = 3_600
WINDOWS_KEPT = 5
REGIONS_KEPT = 8
KEPT_WINDOWS_MAX = 24 * 30
"""A region of which nothing was heard for so many windows is forgotten."""
NETWORKS_MAX = 1_000_000
RTT_MS_MAX = 6_000.0
_SLOT = struct.Struct(f"<HH{WINDOWS_KEPT}H")
_SCALE = 10.0
_WRAP = 1 << 16
_FORGET_AT_ONCE = 0.02


def window_of(at_s: float) -> int:
    """The number of the window in which `at_s` (seconds of Unix time) lies."""
    return int(at_s // WINDOW_S)


class History:
    """`networks_max`: beyond it those that were learned of longest ago are forgotten. `regions_kept`: of each network the nearest
    so many regions. Not safe for threads."""

    def __init__(self, networks_max: int = NETWORKS_MAX, regions_kept: int = REGIONS_KEPT) -> None:
        self._networks_max = networks_max
        self._regions_kept = regions_kept
        self._networks: dict[int, bytes] = {}
        self._regions: list[str] = []
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._networks)

    def newest(self, count: int) -> list[int]:
        """The networks that were learned of last, the newest first."""
        return list(islice(reversed(self._networks), count))

    def learn(self, network: int, region: str, window: int, rtt_ms: float) -> None:
        """The value of that window is `rtt_ms` from now on. What is older than all that is kept changes nothing."""
        number = self._number(region)
        tenths = max(1, round(min(rtt_ms, RTT_MS_MAX) * _SCALE))
        kept = self._networks.pop(network, b"")
        slots = [s for s in _SLOT.iter_unpack(kept) if s[0] != number]
        before = next((s for s in _SLOT.iter_unpack(kept) if s[0] == number), None)
        slots.append(_told(number, before, window % _WRAP, tenths))
        if len(slots) > self._regions_kept:
            slots = _kept(slots, window % _WRAP, self._regions_kept)
        self._networks[network] = b"".join(_SLOT.pack(*s) for s in slots)
        if len(self._networks) > self._networks_max:
            self._forget()

    def recall(self, network: int, window: int) -> dict[str, tuple[float, ...]]:
        """Round trips by region in ms, one for each window that is kept, newest first; `window` is the present one."""
        kept = self._networks.get(network)
        if kept is None:
            return {}
        now = window % _WRAP
        return {
            self._regions[number]: tuple(v / _SCALE for v in values if v)
            for number, newest, *values in _SLOT.iter_unpack(kept)
            if _age(newest, now) <= KEPT_WINDOWS_MAX
        }

    def forget(self, network: int) -> None:
        """What was known of it, if anything."""
        self._networks.pop(network, None)

    def last_learned(self, network: int, window: int) -> int | None:
        """So many windows ago something was last learned of this network; None: nothing is known of it."""
        kept = self._networks.get(network)
        if kept is None:
            return None
        return min(_age(newest, window % _WRAP) for _, newest, *_ in _SLOT.iter_unpack(kept))

    def _number(self, region: str) -> int:
        number = self._numbers.get(region)
        if number is None:
            number = self._numbers[region] = len(self._regions)
            self._regions.append(region)
        return number

    def _forget(self) -> None:
        """Many at once: the first of a dict is found only past all that were removed before it."""
        count = max(1, int(self._networks_max * _FORGET_AT_ONCE))
        for network in [n for n, _ in zip(self._networks, range(count), strict=False)]:
            del self._networks[network]


def _told(number: int, before: tuple[int, ...] | None, window: int, tenths: int) -> tuple[int, ...]:
    """A slot with one more value: of a new window, or of the newest once more."""
    if before is None:
        return (number, window, tenths, *(0,) * (WINDOWS_KEPT - 1))
    _, newest, *values = before
    if window == newest:
        return (number, newest, tenths, *values[1:])
    if (
        _age(newest, window) > KEPT_WINDOWS_MAX
    ):  # it is older than what is known, or all that is known is too old
        return before if _age(window, newest) <= KEPT_WINDOWS_MAX else _told(number, None, window, tenths)
    return (number, window, tenths, *values[: WINDOWS_KEPT - 1])


def _kept(slots: list[tuple[int, ...]], window: int, count: int) -> list[tuple[int, ...]]:
    """The nearest regions, of those that are not too old: a far one is the least missed."""
    slots.sort(key=lambda s: (_age(s[1], window) > KEPT_WINDOWS_MAX, min(v for v in s[2:] if v)))
    return slots[:count]


def _age(then: int, now: int) -> int:
    return (now - then) % _WRAP
