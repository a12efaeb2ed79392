"""What is switched off of the detector, one thing at a time, to see that its world notices."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest import mock

from app.fleet import detector, verdicts, votes
from tests.simulation.mutations import Mutation
from tests.simulation.watch_world import WatchWorld, watch

READ = 2
_assess, _by_target = verdicts.assess, votes.by_target


def _hasty(signals: verdicts.Signals) -> verdicts.Assessment:
    """`assess` that takes silence for a failure."""
    found = _assess(signals)
    return replace(found, action="evacuate") if found.case == "silent" else found


WATCH_MUTATIONS: dict[str, Mutation] = {
    "third": Mutation(
        what="the whole fleet may be ejected",
        off=frozenset({"third"}),
        patches=((detector, "EJECTED_SHARE", 1),),
    ),
    "silence": Mutation(what="silence evacuates as a failure does", patches=((detector, "assess", _hasty),)),
    "lag": Mutation(
        what="an observer that lags goes on judging",
        patches=((detector, "LAG_MAX_S", 1e9), (detector, "READ_MAX_S", 1e9)),
    ),
    "recovery": Mutation(
        what="an edge that was down is never let back", patches=((verdicts, "RECOVERED_AFTER_S", 1e9),)
    ),
    "reports": Mutation(
        what="an observer counts the first reports that it reads, and leaves the others",
        patches=((detector, "by_target", lambda reports: _by_target(list(reports)[:READ])),),
    ),
}


def watch_with(seed: int, mutation: str = "") -> WatchWorld:
    """A seed of the detector's world, with one thing switched off."""
    if not mutation:
        return watch(seed)
    off: Any = WATCH_MUTATIONS[mutation]
    with ExitStack() as stack:
        for patch in off.patches:
            stack.enter_context(mock.patch.object(*patch))
        return watch(seed, off.off)
