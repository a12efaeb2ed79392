"""A model of personal devices on bad last miles, laid over measured round trips: what changes from slice to slice, and how.

Three things are added to each round trip of the world beneath:

- the device's access (Wi-Fi, cable, mobile): lognormal over devices, median `ACCESS_MS`, and in each slice another multiple
  of it. It is
  the same towards all regions, so that it changes no order; it hides what is near and what is far.
- the path's jitter: a multiple, of its own in each slice and to each region, of the device's own jitter. The multiple has a
  Pareto tail
  (`TAIL`): most are small, some are ten times as large.
- spells: in a slice the path to one region goes wrong, with the chance `SPELL_CHANCE`, and is 40 to 250 ms slower.

The numbers are not measured: they are set once so that "probe the four regions of least mean history" reaches about 91 % at
twelve regions of
the PlanetLab matrices, and then left alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.evaluation.placement_world import Scene

ACCESS_MS, ACCESS_SPREAD, ACCESS_MOVES = 15.0, 0.7, 0.5
JITTER_MS, JITTER_SHAPE, TAIL = 25.0, 1.5, 2.0
SPELL_CHANCE, SPELL_MS = 0.3, (40.0, 250.0)


def on_bad_last_miles(
    scene: Scene, seed: int = 0, spell_chance: float = SPELL_CHANCE, jitter_ms: float = JITTER_MS
) -> Scene:
    chance = np.random.default_rng(seed)
    slices, callers, _ = scene.rtt_ms.shape
    access = chance.lognormal(np.log(ACCESS_MS), ACCESS_SPREAD, (1, callers, 1))
    access = access * chance.lognormal(0.0, ACCESS_MOVES, (slices, callers, 1))
    of_device = chance.gamma(JITTER_SHAPE, jitter_ms / JITTER_SHAPE, (1, callers, 1))
    jitter = of_device * chance.pareto(TAIL, scene.rtt_ms.shape)
    in_a_spell = chance.random(scene.rtt_ms.shape) < spell_chance
    spell = in_a_spell * chance.uniform(*SPELL_MS, scene.rtt_ms.shape)
    return replace(
        scene, world=f"{scene.world}, bad last miles", rtt_ms=scene.rtt_ms + access + jitter + spell
    )
