"""What this instance knows of round trips, and where it comes from: edges' witness, the mesh, the way to backends.

Decides which edge measures which, and keeps it all in memory so that no request waits for it; `RoundTrips` carries it from one
instance to the others. In each region one edge, drawn by lot among the healthy ones, measures one edge of every other region and
the customers' backends. The lot is a hash, so that all instances draw alike.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import numpy as np
import structlog

from app.clock import Clock
from app.connection import DATABASE_ERRORS
from app.fleet.view import EdgeState, Fleet
from app.placement.belief import Coordinates, Known, Prior, kilometres, priors_of
from app.placement.gain import Lately
from app.placement.history import KEPT_WINDOWS_MAX, RTT_MS_MAX, History, window_of
from app.placement.networks import Atlas, Network, network_from
from app.placement.panel import Panel
from app.placement.profiles import NONE, PROFILES_MAX, Profiles, profiles_of
from app.placement.round_trips import BATCH, OVERLAP_S, Leg, RoundTrips
from app.placement.scenarios import Floats
from app.placement.sites import HEALTHY
from app.placement.witness import Value, Witness
from app.supervisor import wait_for_stop
from regions.wire.measuring import LEGS_MAX, MESH_MAX, BackendTarget, Measure, Measured, MeshTarget

log = structlog.get_logger()

FLUSH_S = 5.0
LEARNED_AT_ONCE = 250
PROFILES_EVERY_S = 600.0
PROFILES_GROWN = 1.25
FORGET_EVERY_S = 600.0
LEG_AGE_MAX_S = 86_400.0
RICH = 4
"""A network that is known at so many regions says something of others."""
LEGS_KEPT_MAX = 100_000
HOSTS_MAX = LEGS_MAX
OWN_RTT_MS = 1.0


@dataclass(slots=True)
class Learning:
    """`fleet`: as it is seen now. `store` None: this instance learns for itself alone."""

    fleet: Callable[[], Fleet]
    clock: Clock
    store: RoundTrips | None = None
    atlas: Atlas | None = None
    kept_windows: int = KEPT_WINDOWS_MAX
    history: History = field(default_factory=History)
    panel: Panel = field(default_factory=Panel)
    profiles: Profiles = NONE
    _listeners: list[Lately] = field(default_factory=list)
    _witness: Witness = field(default_factory=Witness)
    _legs: dict[tuple[str, str, str], Leg] = field(default_factory=dict)
    _legs_at_s: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _new_legs: dict[tuple[str, str, str], Leg] = field(default_factory=dict)
    _hosts: OrderedDict[str, BackendTarget] = field(default_factory=OrderedDict)
    _rich: int = 0
    _has_read: bool = False

    # ------------------------------------------------------------------------------------------------ what is asked

    def network(self, address: str | None) -> Network | None:
        return network_from(address, self.atlas) if address else None

    def network_of(self, text: str) -> Network | None:
        """The network that is written so (`Network.text`), whatever its addresses are; None where it is not written so."""
        network = network_from(text.partition("/")[0], self.atlas, local=True)
        return network if network is not None and network.text == text else None

    def known(
        self, network: Network | None, measured: Mapping[str, float], at: Coordinates | None = None
    ) -> Known:
        """`measured`: the caller's own fresh round trips; `at`: where it is, where the network does not say."""
        if network is None:
            return Known(measured=measured, at=at)
        window = window_of(self.clock.now().timestamp())
        wider: dict[str, tuple[float, ...]] = {}
        for number in reversed(network.wider):
            wider.update(self.history.recall(number, window))
        return Known(
            measured=measured,
            history=self.history.recall(network.number, window),
            wider=wider,
            at=network.at or at,
        )

    def priors(self, known: Known) -> dict[str, Prior]:
        """What is believed of every region before the caller's own measurements are laid over it; nothing where nothing is known."""
        if known.nothing and not self.profiles.useful:
            return {}
        return priors_of(self.regions(), known, self.profiles, self.distance_km)

    def regions(self) -> tuple[str, ...]:
        return tuple(sorted(self.fleet().regions))

    def distance_km(self, region: str, at: Coordinates) -> float:
        state = self.fleet().regions[region]
        return kilometres((state.latitude, state.longitude), at)

    def backend_ms(self, host: str) -> dict[str, float]:
        """Round trips from regions to a customer's ``host:port``, as far as they are known."""
        return {
            region: leg.rtt_ms
            for region in self.fleet().regions
            if (leg := self._legs.get((region, "backend", host))) is not None and leg.loss < 1.0
        }

    def mesh(self) -> list[Leg]:
        """From region to region, with the age of each as of now."""
        now_s = self.clock.monotonic_s()
        regions = self.fleet().regions
        return [
            Leg(leg.region, leg.kind, leg.target, leg.rtt_ms, leg.jitter_ms, leg.loss, now_s - self._legs_at_s[key])
            for key, leg in sorted(self._legs.items())
            if leg.kind == "mesh" and leg.region in regions and leg.target in regions
        ]  # fmt: skip

    def listen(self) -> Lately:
        """What is heard of networks from now on, for one reader that takes it every now and then."""
        self._listeners.append(Lately())
        return self._listeners[-1]

    def serves(self, target: BackendTarget) -> None:
        """A call has named this backend: its distance matters. The `HOSTS_MAX` newest do."""
        self._hosts[target.host] = target
        self._hosts.move_to_end(target.host)
        if len(self._hosts) > HOSTS_MAX:
            self._hosts.popitem(last=False)

    # -------------------------------------------------------------------------------------------- what edges are told

    def measure_for(self, edge_id: UUID) -> Measure | None:
        """Every edge is asked for what it witnesses of its callers; the one that was drawn in its region measures the rest."""
        drawn = drawn_edges(edge_id, list(self.fleet().edges))
        if drawn is None:
            return Measure()
        mesh = [MeshTarget(region=e.region, media_url=e.media_url) for e in drawn[:MESH_MAX]]
        return Measure(mesh=mesh, backends=list(self._hosts.values()))

    def heard(self, region: str, measured: Measured) -> None:
        now_s = self.clock.now().timestamp()
        for seen in measured.callers:
            network = self.network_of(seen.network)
            if network is None or seen.samples < 1:
                self._witness.dropped += 1
                continue
            if 0.0 < seen.rtt_ms <= RTT_MS_MAX:
                for lately in self._listeners:
                    lately.report(network.number, region, seen.rtt_ms)
            for number in (network.number, *network.wider):
                self._witness.report(number, region, seen.rtt_ms, now_s)
        for way in measured.mesh:
            self._way(Leg(region, "mesh", way.region, way.rtt_ms, way.jitter_ms, way.loss))
        for to in measured.backends:
            # failures beside a success are the backend's, not the way's
            if to.rtt_ms > 0:
                self._way(Leg(region, "backend", to.host, to.rtt_ms, to.jitter_ms, 0.0))

    def _way(self, leg: Leg) -> None:
        if not (0.0 <= leg.rtt_ms < 60_000.0 and 0.0 <= leg.loss <= 1.0 and leg.jitter_ms >= 0.0):
            return
        self._keep(leg)
        key = (leg.region, leg.kind, leg.target)
        if len(self._new_legs) < LEGS_KEPT_MAX:
            self._new_legs[key] = leg

    def _keep(self, leg: Leg) -> None:
        key = (leg.region, leg.kind, leg.target)
        if key in self._legs or len(self._legs) < LEGS_KEPT_MAX:
            self._legs[key] = leg
            self._legs_at_s[key] = self.clock.monotonic_s() - leg.age_s

    # --------------------------------------------------------------------------------------------------- the workers

    async def worker(self, stop: asyncio.Event) -> None:
        """Reads what is there, then writes and reads what is new, every `FLUSH_S`."""
        assert self.store is not None
        since = await self.store.now()
        async for values in self.store.all_values(self._oldest()):
            await self._take_in(values)
        since -= timedelta(seconds=LEG_AGE_MAX_S)
        forgotten_s = self.clock.monotonic_s()
        while True:
            try:
                since = await self.exchange(since)
                if self.clock.monotonic_s() - forgotten_s > FORGET_EVERY_S:
                    forgotten_s = self.clock.monotonic_s()
                    await self.store.forget(self._oldest())
            except DATABASE_ERRORS as error:
                log.info("placement.not_shared", error=type(error).__name__)
            if await wait_for_stop(stop, FLUSH_S):
                return

    async def exchange(self, since: datetime) -> datetime:
        """Writes what is new here and reads what was written anywhere since then; up to when has been read (the database's clock)."""
        await self._flush()
        return await self._read(since)

    async def _flush(self) -> None:
        assert self.store is not None
        while values := self._witness.take(BATCH):
            try:
                await self._take_in(values)
                await self.store.put_values(values)
            except BaseException:
                self._witness.put_back(values)
                raise
        legs, self._new_legs = self._new_legs, {}
        if legs:
            try:
                await self.store.put_legs(list(legs.values()))
            except BaseException:
                self._new_legs = {**legs, **self._new_legs}
                raise

    async def _read(self, since: datetime) -> datetime:
        assert self.store is not None
        now = await self.store.now()
        # the first time all values have just been loaded; afterwards none may be passed over, however long the database was away
        recent = since if self._has_read else max(since, now - timedelta(seconds=OVERLAP_S + 2 * FLUSH_S))
        async for values in self.store.new_values(recent, now):
            await self._take_in(values)
        self._has_read = True
        async for legs in self.store.new_legs(since, now):
            for leg in legs:
                self._keep(leg)
        return now - timedelta(seconds=OVERLAP_S)

    async def _take_in(self, values: Sequence[Value]) -> None:
        """A few at a time, so that requests wait for milliseconds and not for a page."""
        for first in range(0, len(values), LEARNED_AT_ONCE):
            self._learn(values[first : first + LEARNED_AT_ONCE])
            await asyncio.sleep(0)

    def _learn(self, values: Iterable[Value]) -> None:
        for v in values:
            self.history.learn(v.network, v.region, v.window, v.rtt_ms)
            self.panel.learn(v.network, v.region, v.window, v.rtt_ms)

    def _oldest(self) -> int:
        return window_of(self.clock.now().timestamp()) - self.kept_windows

    async def profiles_worker(self, stop: asyncio.Event) -> None:
        """Looks for networks that are known well, and makes profiles of them, on a thread of its own."""
        made_s = -PROFILES_EVERY_S
        while not await wait_for_stop(stop, FLUSH_S):
            due = self.clock.monotonic_s() - made_s >= PROFILES_EVERY_S
            if not due and self.profiles.regions == self.regions():
                continue
            made_s = self.clock.monotonic_s()
            regions, rows = self.regions(), self._rich_rows()
            if len(rows) and (due or len(rows) > PROFILES_GROWN * self._rich):
                self._rich = len(rows)
                self.profiles = await asyncio.to_thread(profiles_of, regions, rows)
                log.info("placement.profiles", networks=len(self.profiles.rtt_ms), regions=len(regions))

    def _rich_rows(self) -> Floats:
        """The mesh (each region is a network whose round trips are known), then the networks known at the most regions."""
        regions = self.regions()
        columns = {r: i for i, r in enumerate(regions)}
        own = np.full((len(regions), len(regions)), np.nan)
        np.fill_diagonal(own, OWN_RTT_MS)
        for leg in self.mesh():
            if leg.loss < 1.0:
                own[columns[leg.region], columns[leg.target]] = max(OWN_RTT_MS, leg.rtt_ms)
        window = window_of(self.clock.now().timestamp())
        rows = [row for row in own if np.isfinite(row).sum() >= min(RICH, len(regions))]
        for network in self.panel.newest():
            if len(rows) >= PROFILES_MAX:
                break
            known = self.panel.recall(network, window)
            if len(known) >= min(RICH, len(regions)):
                row = np.full(len(regions), np.nan)
                for region, values in known.items():
                    if region in columns:
                        row[columns[region]] = min(values)
                rows.append(row)
        return np.array(rows).reshape(len(rows), len(regions))  # there may be none of either


def drawn_edges(observer: UUID, edges: list[EdgeState]) -> list[EdgeState] | None:
    """One healthy edge of every other region, sorted by region; None where another edge of its region measures, or it is none."""
    by_region: dict[str, list[EdgeState]] = {}
    for edge in edges:
        if edge.health in HEALTHY and not edge.stopped:
            by_region.setdefault(edge.region, []).append(edge)
    own = next((e.region for e in edges if e.id == observer), None)
    if own is None or own not in by_region:
        return None
    if min(by_region[own], key=lambda e: _lot(own, e.id)).id != observer:
        return None
    others = sorted(region for region in by_region if region != own)
    return [min(by_region[region], key=lambda e: _lot(own, e.id)) for region in others]


def _lot(region: str, edge: UUID) -> bytes:
    return hashlib.blake2b(f"{region}{edge}".encode(), digest_size=8).digest()
