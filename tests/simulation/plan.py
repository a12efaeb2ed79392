"""What happens in a seed, drawn before it begins: topology, calls and faults. Pure.

A plan is all there is to know: the same plan gives the same run. Shrinking takes faults and calls out of it, and leaves the
rest as it was.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

REGIONS = ("us-east", "eu-west", "ap-south")
APIS = 2
ACTIVE_S = 9.0
"""Callers and faults are done by then."""
LEAVES_S = 4.0
"""An edge that leaves in order is away for so long at least."""
CAPACITY = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a caller does. `kind`: ``say``, ``dtmf``, ``hangup``, ``leave`` or ``end`` (over the API)."""

    at_s: float
    kind: str
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """`attaches` False: the caller never comes. `doubled`: the create is sent twice at once."""

    number: int
    region: str
    backend: str
    fallback: str | None
    at_s: float
    actions: tuple[Action, ...]
    attaches: bool = True
    doubled: bool = False
    max_duration_s: int = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`trigger` empty: at `at_s`. Else at the first such moment after `at_s`, `delay_s` later, or at `at_s + 3` if none comes."""

    number: int
    kind: str
    at_s: float
    for_s: float = 0.0
    target: str = ""
    other: str = ""
    one_way: bool = False
    silently: bool = False
    slept: bool = False
    steps: int = 0
    amount: float = 0.0
    trigger: str = ""
    delay_s: float = 0.0

    def __str__(self) -> str:
        more = [self.target, f"→ {self.other}" if self.other else "", "one way" if self.one_way else ""]
        more += ["without a word" if self.silently else "", "asleep" if self.slept else ""]
        more += [
            f"for {self.for_s:.2f} s" if self.for_s else "",
            f"{self.amount:+.1f}" if self.amount else "",
        ]
        more += [f"when {self.trigger} +{self.delay_s:.3f} s" if self.trigger else ""]
        return " ".join([f"#{self.number} {self.kind}", *(m for m in more if m)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`offsets_s` and `rates`: the machines' clocks, by name."""

    seed: int
    calls: tuple[CallPlan, ...]
    faults: tuple[Fault, ...]
    latency_s: dict[tuple[str, str], float]
    offsets_s: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    ttl_s: float = 2.0
    hints_lost: float = 0.0
    outbox_max: int = 2_000
    capacity: int = CAPACITY
    """Calls that an edge has room for."""

    def keep(self, faults: set[int], calls: set[int]) -> Plan:
        return replace(
            self,
            faults=tuple(f for f in self.faults if f.number in faults),
            calls=tuple(c for c in self.calls if c.number in calls),
        )


def machines() -> list[tuple[str, str]]:
    """(machine, region) of everything but callers."""
    found = [(f"api-{i}", REGIONS[i]) for i in range(APIS)]
    found += [
        (f"{kind}-{region}", region) for region in REGIONS for kind in ("edge", "pg", "valkey", "backend")
    ]
    return [*found, ("hooks", REGIONS[0]), ("reader", REGIONS[1])]


TRIGGERS = (
    "attached",
    "took",
    "took",
    "prepared",
    "prepared",
    "committing",
    "tool",
    "ended",
    "promoted",
    "asked",
)
CALM_SHARE, CALM_COMMANDS, CALM_CALLS, CALM_ENDS_S, CALM_LENGTHS_S = 0.08, 3, 4, 14.0, (2.5, 9.0)
"""So many seeds have commands alone: only where nothing fails can it be told that a planned move is not heard."""
LENGTHS_S = (0.3, 0.8, 1.5, 2.5, 3.5, 4.5, 6.0)

KINDS = {
    "edge.crash": 14,
    "edge.stop": 12,
    "edge.leave": 4,
    "api.crash": 8,
    "api.stop": 4,
    "primary.crash": 8,
    "primary.stop": 5,
    "standby.crash": 4,
    "caller.stop": 3,
    "backend.crash": 4,
    "cut.edge": 8,
    "cut.uplink": 8,
    "cut.database": 5,
    "cut.replication": 4,
    "cut.region": 5,
    "cut.caller": 6,
    "break": 8,
    "half_open": 6,
    "slow": 5,
    "answers.lost": 5,
    "requests.doubled": 3,
    "clock.jump": 5,
    "double_loss": 4,
    "valkey.loss": 4,
    "control.loss": 5,
    "hooks.down": 2,
    "waits.cut": 5,
    "impostor": 4,
    "rewriter": 4,
}
COMMANDS = {"ops.drain": 6, "ops.evacuate": 2, "ops.cordon": 2, "ops.move": 4, "ops.contradict": 3}
"""An operator's. They are drawn beside the faults, and are none: nobody is excused by them."""
_KINDS = list(KINDS)
_WEIGHTS = list(KINDS.values())


def draw_plan(seed: int) -> Plan:
    chance = random.Random(seed * 2 + 1)
    calls = tuple(_call(chance, i) for i in range(chance.choice((1, 1, 2, 2, 2, 3))))
    drawn: list[Fault] = []
    for i in range(chance.choice((3, 3, 3, 4, 4, 5, 6))):
        fault = _fault(chance, i, len(calls))
        if drawn and chance.random() < 0.35:
            # troubles come together
            fault = replace(fault, at_s=drawn[-1].at_s + chance.random() * 0.6, trigger=drawn[-1].trigger)
        drawn.append(fault)
    latency_s: dict[tuple[str, str], float] = {}
    for i, a in enumerate(REGIONS):
        for b in REGIONS[i + 1 :]:
            latency_s[(a, b)] = latency_s[(b, a)] = chance.choice((0.004, 0.02, 0.04, 0.09))
    names = [name for name, _ in machines()]
    alone = random.Random(seed * 19 + 8)
    calm = alone.random() < CALM_SHARE
    if calm:
        drawn, calls = [], tuple(_longer(_call(alone, i)) for i in range(CALM_CALLS))
    commands, capacity = _commands(seed, len(drawn), calm=calm)
    return Plan(
        seed=seed,
        calls=calls,
        faults=(*drawn, *commands),
        capacity=capacity,
        latency_s=latency_s,
        offsets_s={name: chance.uniform(-10, 10) for name in names if chance.random() < 0.4},
        rates={name: 1 + chance.uniform(-0.002, 0.002) for name in names if chance.random() < 0.4},
        ttl_s=chance.choice((1.0, 1.5, 2.5)),
        hints_lost=chance.choice((0.0, 0.0, 0.2)),
        outbox_max=chance.choice((2_000, 2_000, 2_000, 12)),
    )


def _call(chance: random.Random, number: int) -> CallPlan:
    begins_s = 0.3 + chance.random() * 1.5
    ends_s = begins_s + chance.choice((2.0, 3.5, 5.0, 6.5))
    actions = []
    at_s = begins_s + 0.3
    while at_s < ends_s - 0.2:
        kind = "dtmf" if chance.random() < 0.25 else "say"
        value = chance.choice("0123456789*#") if kind == "dtmf" else f"u{number}-{len(actions)}"
        actions.append(Action(at_s=at_s, kind=kind, value=value))
        at_s += chance.choice((0.15, 0.5, 1.0, 1.6))
    end = chance.choice(("hangup", "hangup", "hangup", "leave", "end"))
    actions.append(Action(at_s=ends_s, kind=end))
    region = chance.choice(REGIONS)
    return CallPlan(
        number=number,
        region=region,
        backend=chance.choice(REGIONS),
        fallback=chance.choice((None, *REGIONS)),
        at_s=begins_s,
        actions=tuple(actions),
        attaches=chance.random() < 0.94,
        doubled=chance.random() < 0.2,
        max_duration_s=4 if chance.random() < 0.05 else 90,
    )


def _longer(call: CallPlan) -> CallPlan:
    """The same call, which nobody ends before `CALM_ENDS_S`."""
    last = replace(call.actions[-1], at_s=max(call.actions[-1].at_s, CALM_ENDS_S))
    return replace(call, actions=(*call.actions[:-1], last), max_duration_s=90)


def _commands(seed: int, first: int, *, calm: bool) -> tuple[tuple[Fault, ...], int]:
    """What operators do, and how much room the edges have: of a chance of its own, so that the rest of a seed does not hang on it."""
    chance = random.Random(seed * 11 + 5)
    found = [
        Fault(
            number=first + i,
            kind=chance.choices(list(COMMANDS), list(COMMANDS.values()))[0],
            at_s=0.6 + chance.random() * 4.5,
            for_s=chance.choice(CALM_LENGTHS_S if calm else LENGTHS_S),
            target=chance.choice(REGIONS),
            other=chance.choice(("edge", "edge", "region")),
            steps=chance.randrange(12),
            amount=chance.choice((0.0, 0.5, 1.0, 3.0)),
            trigger=chance.choice(TRIGGERS) if chance.random() < 0.5 else "",
            delay_s=chance.choice((0.0, 0.02, 0.1, 0.4)),
        )
        for i in range(CALM_COMMANDS if calm else chance.choice((0, 0, 1, 1, 2)))
    ]
    return tuple(found), chance.choice((2, 2, CAPACITY) if calm else (CAPACITY, CAPACITY, 2, 1))


def _fault(chance: random.Random, number: int, calls: int) -> Fault:
    kind = chance.choices(_KINDS, _WEIGHTS)[0]
    family = kind.split(".")[0]
    region = chance.choice(REGIONS)
    target, other = region, ""
    if family == "api":
        target = f"api-{chance.randrange(APIS)}"
    elif family == "caller" or kind == "cut.caller":
        target, other = f"caller-{chance.randrange(calls)}", region
    elif kind in ("break", "half_open", "slow", "clock.jump"):
        target = chance.choice(
            [
                f"edge-{region}",
                f"edge-{region}",
                f"caller-{chance.randrange(calls)}",
                "api-0",
                "api-1",
                "reader",
            ]
        )
    elif kind == "double_loss" or kind in ("impostor", "rewriter"):
        other = chance.choice([r for r in REGIONS if r != region])
    return Fault(
        number=number,
        kind=kind,
        at_s=0.4 + chance.random() * 5.5,
        for_s=chance.choice(LENGTHS_S),
        target=target,
        other=other,
        one_way=chance.random() < 0.5,
        silently=chance.random() < 0.3,
        slept=chance.random() < 0.4,
        steps=chance.randrange(12),
        amount=chance.uniform(-10, 10)
        if kind == "clock.jump"
        else chance.choice((3.0, 8.0, 20.0))
        if kind == "slow"
        else 0.0,
        trigger=chance.choice(TRIGGERS) if chance.random() < 0.45 else "",
        delay_s=chance.choice((0.0, 0.001, 0.02, 0.1, 0.4)),
    )
