"""What this edge has measured itself, gathered until the next report. Pure: no clock, no sockets.

Decides what is kept of one caller's samples, of one network's callers, of one backend's connections. A report has the
`WITNESSED_MAX` networks with the most samples, and starts from nothing again: what is not sent is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from regions.wire.measuring import (
    COUNT_MAX,
    HOST_CHARS_MAX,
    LEGS_MAX,
    RTT_MS_MAX,
    WITNESSED_MAX,
    Leg,
    Measured,
    Mesh,
    Witnessed,
)

NETWORKS_MAX = 4 * WITNESSED_MAX
"""Gathered between two reports; what comes beyond is dropped."""


@dataclass(slots=True)
class Trips:
    """Round trips on one way: the least, the most, how many."""

    least_ms: float = RTT_MS_MAX
    most_ms: float = 0.0
    samples: int = 0

    def add(self, rtt_ms: float) -> None:
        """One that took longer than `RTT_MS_MAX` says nothing."""
        if 0 <= rtt_ms < RTT_MS_MAX:
            self.least_ms = min(self.least_ms, rtt_ms)
            self.most_ms = max(self.most_ms, rtt_ms)
            self.samples += 1

    @property
    def spread_ms(self) -> float:
        return self.most_ms - self.least_ms if self.samples else 0.0


@dataclass(slots=True)
class _Network:
    least_ms: float
    spread_sum_ms: float
    """Of each caller, times its samples: callers of one network differ among each other, and that is no jitter."""
    samples: int


@dataclass(slots=True)
class _Host:
    trips: Trips
    failures: int = 0


class Witnesses:
    def __init__(self) -> None:
        self._networks: dict[str, _Network] = {}
        self._hosts: dict[str, _Host] = {}
        self._mesh: dict[str, Mesh] = {}

    def caller(self, network: str | None, trips: Trips) -> None:
        """One caller's samples; without a network, or without samples, nothing."""
        if network is None or not trips.samples:
            return
        known = self._networks.get(network)
        if known is not None:
            known.least_ms = min(known.least_ms, trips.least_ms)
            known.spread_sum_ms += trips.spread_ms * trips.samples
            known.samples += trips.samples
        elif len(self._networks) < NETWORKS_MAX:
            self._networks[network] = _Network(trips.least_ms, trips.spread_ms * trips.samples, trips.samples)

    def backend(self, host: str, connect_ms: float | None) -> None:
        """`connect_ms` None: the attempt came to nothing. `host` as ``host:port``."""
        known = self._hosts.get(host)
        if known is None:
            if len(self._hosts) >= LEGS_MAX or not 1 <= len(host) <= HOST_CHARS_MAX:
                return
            known = self._hosts[host] = _Host(Trips())
        if connect_ms is None:
            known.failures += 1
        else:
            known.trips.add(connect_ms)

    def region(self, mesh: Mesh) -> None:
        """The newest of each region; there are no more than were asked for."""
        self._mesh[mesh.region] = mesh

    def flush(self) -> Measured | None:
        """All since the flush before; None where there is nothing."""
        networks, hosts, mesh = self._networks, self._hosts, self._mesh
        self._networks, self._hosts, self._mesh = {}, {}, {}
        if not (networks or hosts or mesh):
            return None
        most = sorted(networks.items(), key=lambda item: -item[1].samples)[:WITNESSED_MAX]
        callers = [
            Witnessed(
                network=network, rtt_ms=round(n.least_ms, 2), jitter_ms=round(n.spread_sum_ms / n.samples, 2),
                samples=min(COUNT_MAX, n.samples),
            )
            for network, n in most
        ]  # fmt: skip
        legs = [
            Leg(
                host=host, rtt_ms=round(h.trips.least_ms, 2) if h.trips.samples else 0.0,
                jitter_ms=round(h.trips.spread_ms, 2), failures=min(COUNT_MAX, h.failures),
            )
            for host, h in hosts.items()
            if h.trips.samples or h.failures
        ]  # fmt: skip
        return Measured(callers=callers, backends=legs, mesh=list(mesh.values()))
