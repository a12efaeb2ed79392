"""What the evaluation of placement says: one line on stdout for each way and condition, and every figure with its target for
`build/placement.json`.

A missed figure is printed as MISSED and fails nothing: the data set is no part of the project, and what is missed is to be read.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import numpy as np

from tests.bench.report import Figure
from tests.evaluation.placement_ways import Outcome
from tests.evaluation.placement_world import Floats

VERDICTS = {None: "", True: "met", False: "MISSED"}
CONFIDENT = 1.96
"""Standard errors on either side: 95 %."""


@dataclass(slots=True)
class Report:
    """`quiet`: nothing is printed."""

    quiet: bool = False
    figures: list[Figure] = field(default_factory=list)

    def heading(self, text: str) -> None:
        self._say(f"\n{text}\n  {'':44}   share    p50 ms    p95 ms  probes   target")

    def outcome(self, name: str, how: str, outcome: Outcome, target: float | None = None) -> Outcome:
        """`target`: the least share of callers within 10 ms of the oracle."""
        p50, p95 = np.percentile(outcome.regret_ms, [50, 95]).tolist()
        probes = float(outcome.probes.mean())
        share = self._add(
            f"{name}.share", outcome.share, "share", f"{how}: within 10 ms of the oracle", target=target
        )
        self._add(f"{name}.regret_p50_ms", p50, "ms", how)
        self._add(f"{name}.regret_p95_ms", p95, "ms", how)
        self._add(f"{name}.probes", probes, "a call", how)
        wanted = "" if target is None else f"≥ {target:.3f}"
        self._say(
            f"  {how:44}{outcome.share:8.4f}{p50:10.1f}{p95:10.1f}{probes:8.1f}  {wanted:>7} {VERDICTS[share.met]}"
        )
        return outcome

    def not_behind(self, name: str, how: str, ours: Outcome, theirs: Outcome) -> None:
        """A paired comparison at equal probes. Missed where ours is behind by more than chance explains."""
        gain, error = paired(ours, theirs)
        figure = self._add(
            f"{name}.gain_points_high", gain + error, "points",
            f"{how}: upper end of the 95 % interval of what ours gains; {gain:+.2f} ± {error:.2f}", target=0.0,
        )  # fmt: skip
        self._add(f"{name}.gain_points", gain, "points", f"{how}, ± {error:.2f}")
        self._say(f"    ours against {how:27}{gain:+8.2f} points, ± {error:.2f}{'':17}{VERDICTS[figure.met]}")

    def fall(self, name: str, how: str, falls: Floats, target: float | None) -> None:
        """How much the share of the same callers fell, in points. `falls`: (draws, callers), NaN where one is not counted. Met where
        the whole interval is."""
        mean, error = over_draws(falls)
        figure = self._add(
            f"{name}.fall_points_high", mean + error, "points",
            f"{how}: upper end of the 95 % interval over {len(falls)} draws; {mean:+.2f} ± {error:.2f}", target=target, at_most=True,
        )  # fmt: skip
        self._add(f"{name}.fall_points", mean, "points", f"{how}, ± {error:.2f}")
        wanted = "" if target is None else f"≤ {target:.1f}"
        self._say(
            f"    fall of the honest: {how:23}{mean:+8.2f} points, ± {error:.2f}{'':4}  {wanted:>7} {VERDICTS[figure.met]}"
        )
        if len(falls) > 1:
            self.note("  draw by draw: " + " ".join(f"{f:+.2f}" for f in np.nanmean(falls, axis=1).tolist()))

    def number(
        self,
        name: str,
        how: str,
        value: float,
        unit: str,
        target: float | None = None,
        *,
        at_most: bool = False,
    ) -> None:
        figure = self._add(name, value, unit, how, target=target, at_most=at_most)
        wanted = "" if target is None else f"{'≤' if at_most else '≥'} {target:g}"
        self._say(f"  {how:56}{value:12,.3f} {unit:8} {wanted:>10} {VERDICTS[figure.met]}")

    def note(self, text: str) -> None:
        self._say(f"  {text}")

    def _add(
        self,
        name: str,
        value: float,
        unit: str,
        how: str,
        *,
        target: float | None = None,
        at_most: bool = False,
    ) -> Figure:
        figure = Figure(
            family="placement", name=name, value=value, unit=unit, how=how, target=target, at_most=at_most
        )
        self.figures.append(figure)
        return figure

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, flush=True)


def paired(ours: Outcome, theirs: Outcome) -> tuple[float, float]:
    """(mean of the difference of the shares in points, half its 95 % interval). A caller is one observation, for its
    slices are alike."""
    apart = fallen(ours, theirs)
    return float(apart.mean()), _half(apart)


def fallen(before: Outcome, after: Outcome) -> Floats:
    """For each caller, by how many points its share is lower afterwards."""
    points: Floats = 100.0 * (before.near - after.near).mean(axis=0)
    return points


def over_draws(falls: Floats) -> tuple[float, float]:
    """The same of several draws of the same callers, (draws, callers), NaN where one is not counted. Draws differ by chance and
    callers by what they are: the interval is the wider of the two that take the one or the other for observations."""
    by_draw, counted = np.nanmean(falls, axis=1), falls[:, np.isfinite(falls).any(axis=0)]
    errors = [_half(np.nanmean(counted, axis=0))]
    if len(by_draw) > 1:
        errors.append(_half(by_draw))
    return float(by_draw.mean()), max(errors)


def _half(observed: Floats) -> float:
    return student(len(observed) - 1) * float(observed.std(ddof=1)) / len(observed) ** 0.5


def student(freedom: int) -> float:
    """The 97.5th percentile of Student's t (Cornish and Fisher's expansion; 1 % too low at 5 degrees, less above)."""
    z = CONFIDENT
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
