"""What a run has shown: which operations were reached, which were answered well, and how often with which status. Pure.

Reads the journal that `tests.fuzz.hooks` writes in the process of Schemathesis. Decides too whose fault a run is that did not end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SLOWEST = 5
CODES = 8
METHODS = ("get", "post", "put", "patch", "delete")


class Fault(StrEnum):
    """Of a run that was cut off."""

    SERVER = "server"
    CLIENT = "client"
    NOBODY = "nobody"
    """It was slow, and went on."""


@dataclass(slots=True)
class Tally:
    """`statuses`: by operation, of the requests that had its own method; `other`: of those with a method that it does not have.
    `unanswered`: how many requests got no answer. `last`: what was asked last, where it was not answered."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    other: Counter[int] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    late: list[str] = field(default_factory=list)
    slowest: dict[str, float] = field(default_factory=dict)
    codes: dict[str, Counter[str]] = field(default_factory=dict)
    last: str | None = None

    @classmethod
    def of(cls, lines: Iterable[str]) -> Tally:
        """A last line that was cut off in the middle is left out."""
        tally = cls()
        for line in lines:
            try:
                said: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            tally._take(said)
        return tally

    def _take(self, said: dict[str, Any]) -> None:
        if "asked" in said:
            self.last = f"{said['asked']} ({said['method']} {said['path']})"
        elif "answered" in said:
            self.last = None
            counted = self.statuses.setdefault(said["answered"], Counter()) if said["meant"] else self.other
            counted[said["status"]] += 1
            name = said["answered"]
            if said["meant"] and said.get("code"):
                self.codes.setdefault(name, Counter())[said["code"]] += 1
            self.slowest[name] = max(self.slowest.get(name, 0.0), said.get("took_s", 0.0))
        elif "failed" in said:
            self.last = None
            self.unanswered[said["failed"]] += 1
        elif "late" in said:
            self.late.append(said["late"])

    @property
    def well(self) -> set[str]:
        return {
            name for name, counted in self.statuses.items() if any(200 <= status < 300 for status in counted)
        }

    def report(self, document: dict[str, Any], well_elsewhere: set[str]) -> dict[str, Any]:
        """`well_elsewhere`: what was answered well to somebody else, who asks what no generator can."""
        wanted = operations(document)
        totals: Counter[int] = sum(self.statuses.values(), Counter())
        return {
            "operations": len(wanted),
            "reached": len(wanted & set(self.statuses)),
            "answered_well": len(wanted & (self.well | well_elsewhere)),
            "requests": totals.total() + self.other.total(),
            "statuses": {str(status): totals[status] for status in sorted(totals)},
            "statuses_of_other_methods": {str(status): self.other[status] for status in sorted(self.other)},
            "never_reached": sorted(wanted - set(self.statuses)),
            "never_answered_well": {
                name: dict(self.codes.get(name, Counter()).most_common(CODES))
                for name in sorted(wanted - self.well - well_elsewhere)
            },
            "unanswered": dict(sorted(self.unanswered.items())),
            "late": self.late,
            "slowest_s": dict(sorted(self.slowest.items(), key=lambda of: -of[1])[:SLOWEST]),
        }

    def by_operation(self) -> dict[str, dict[str, int]]:
        return {
            name: {str(status): counted[status] for status in sorted(counted)}
            for name, counted in sorted(self.statuses.items())
        }


def operations(document: dict[str, Any]) -> set[str]:
    return {
        operation["operationId"]
        for methods in document["paths"].values()
        for method, operation in methods.items()
        if method in METHODS
    }


def bad(report: dict[str, Any]) -> bool:
    """Whether a run that ended by itself leaves something to be desired."""
    return any(report[name] for name in ("never_reached", "never_answered_well", "unanswered", "late"))


def whose(*, went_on: bool, serving: int, answers: bool) -> Fault:
    """Of a run that was cut off. `went_on`: requests were answered to the last; `serving`: how many requests the instance is at work
    on; `answers`: whether it answers a new one.

    1. It went on: nobody's, it was slow. 2. The instance answers nobody: its. 3. It has a request that it does not finish: its.
    4. It waits for a request, and none comes: the client's."""
    if went_on:
        return Fault.NOBODY
    if not answers or serving:
        return Fault.SERVER
    return Fault.CLIENT
