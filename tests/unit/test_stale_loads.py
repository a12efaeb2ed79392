"""Eight instances that know the fleet's loads as they were two seconds ago, and edges that have the last word.

The choice and what an edge admits are the real ones; time, tickets' way and who comes when are the test's. Seeded, so that each run
is the same.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.belief import Prior
from app.placement.choice import Placement, Wishes, choose
from app.placement.policy import policy_of
from regions.edge.calls import Refusal
from regions.edge.machine import step
from regions.wire.media import Attach
from tests.support.lone_edge import LoneEdge

INSTANCES = 8
CREATES = 2_000
STALE_S = 2.0
EVERY_S = 0.005
REGIONS = ("us-east", "us-west", "eu-west", "ap-south")
WAY_MS = ((10, 70, 90, 220), (70, 10, 140, 180), (90, 140, 10, 120), (220, 180, 120, 10))
CALLERS = (0.55, 0.2, 0.15, 0.1)
"""Of each region's neighbourhood: most are nearest to one that has no room for them all."""
EDGES_PER_REGION = 4
CAPACITY = 150


@dataclass
class World:
    """`edges` by the id that placement knows. `pictures`: of each instance."""

    edges: dict[UUID, LoneEdge]
    pictures: list[Fleet] = field(default_factory=list)
    most: Counter[UUID] = field(default_factory=Counter)

    def fleet(self) -> Fleet:
        """The loads as they are."""
        regions = {
            r: RegionState(id=r, jurisdiction=r[:2], admin_state="active", health="healthy") for r in REGIONS
        }
        states = tuple(
            EdgeState(
                id=i, region=REGIONS[n // EDGES_PER_REGION], name=edge.name, incarnation=i, media_url="ws://m",
                http_url="http://h", capacity_calls=CAPACITY, calls=self.calls(i), health="healthy",
            )
            for n, (i, edge) in enumerate(self.edges.items())
        )  # fmt: skip
        return Fleet(regions=regions, edges=states)

    def calls(self, edge: UUID) -> int:
        return len(self.edges[edge].calls.held())

    def attach(self, placed: Placement, call: str) -> int | None:
        """Which of the ticket's grants was taken at last, from 1; None where every edge is full."""
        lone = [self.edges[e.id] for e in placed.edges]
        ticket = lone[0].ticket(
            "ws://127.0.0.1:9/", call=call, epochs=tuple(range(1, len(lone) + 1)), edges=tuple(lone)
        )
        epoch: int | None = 1
        while epoch is not None:
            calls = lone[epoch - 1].calls
            try:
                claims, grant, sealed = calls.admit(
                    Attach(ticket=ticket, epoch=epoch, mode="attach" if epoch == 1 else "take")
                )
                session = calls.open(claims, grant, sealed)
                calls.own(session, first=True)
            except Refusal as refusal:
                if refusal.code != "full":
                    raise
                epoch = refusal.following.epoch if refusal.following is not None else None
                continue
            session.phase = step(session.phase, "take")
            edge = placed.edges[epoch - 1].id
            self.most[edge] = max(self.most[edge], self.calls(edge))
            return epoch
        return None


def world(folder: Path) -> World:
    key = Ed25519PrivateKey.generate()
    edges = {}
    for number in range(len(REGIONS) * EDGES_PER_REGION):
        edge = LoneEdge(folder / str(number), f"edge_{number}", key)
        edge.calls.context.settings = replace(edge.calls.context.settings, capacity_calls=CAPACITY)
        edges[UUID(int=number + 1)] = edge
    return World(edges)


def place(picture: Fleet, near: int, draw: float) -> Placement | None:
    priors = {r: Prior(ms, "history", 0.9) for r, ms in zip(REGIONS, WAY_MS[near], strict=True)}
    placed = choose(picture, {}, Wishes(), draw=draw, priors=priors, policy=policy_of(picture.regions))
    return placed if isinstance(placed, Placement) else None


def test_stale_loads_of_eight_instances_overrun_no_edge(tmp_path: Path) -> None:
    chance = random.Random(158)
    here = world(tmp_path)
    here.pictures = [here.fleet()] * INSTANCES
    taken: Counter[int | None] = Counter()
    for number in range(CREATES):
        now_s = number * EVERY_S
        instance = number % INSTANCES
        # each looks every two seconds, one after the other: between two looks it knows nothing of what it has placed itself
        since_s = (now_s - instance * STALE_S / INSTANCES) % STALE_S
        if since_s < EVERY_S * INSTANCES:
            here.pictures[instance] = here.fleet()
        near = chance.choices(range(len(REGIONS)), CALLERS)[0]
        placed = place(here.pictures[instance], near, chance.random())
        assert placed is not None
        taken[here.attach(placed, f"call_{number}")] += 1
    assert sum(taken.values()) == CREATES
    assert max(here.most.values()) == CAPACITY, "some edge was full"
    assert all(here.calls(e) <= CAPACITY for e in here.edges)
    refused = sum(e.calls.refused for e in here.edges.values())
    at_standby = taken[2] + taken[3]
    assert refused >= at_standby > 0
    assert at_standby <= CREATES * 0.05, "the edge's word is the exception"
    assert taken[None] == 0, "there was room elsewhere, and a standby had it"
