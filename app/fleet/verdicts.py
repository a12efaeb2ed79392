"""From what is known of one edge to what is held of it. Pure: signals and the present state in, an assessment and the next state out.

What the signals say, the first case that applies (docs/explanation/detector.md explains each):

1. ``refused``      probes from several vantages find nobody listening, or errors             → down, evacuate
2. ``silent``       no heartbeat for 5 s (4.5 s where the vote agrees), and the vote is not up  → down, quarantine
3. ``gone``         late heartbeats, and the only vantage there is finds nobody listening     → down, quarantine
4. ``failing``      callers leave it, and went to several regions                             → suspect, evacuate
5. ``left``         callers leave it, and went to one region                                  → suspect, quarantine
6. ``late``         a heartbeat is overdue (phi)                                              → suspect, quarantine
7. ``unreachable``  it is heard, and most vantages do not reach it                            → suspect, quarantine
8. ``good``         none of these

What becomes of the state:

    healthy ──bad──► suspect ──worse──► down ──good for 1 s──► probation ──served──► healthy
       ▲                │  ▲                                       │
       └──good for 1 s──┘  └──────────────── bad ──────────────────┘      (then probation begins again)

Probation lasts 10 s, doubled with each time the edge went down, 10 minutes at most; half an hour of health forgives. It takes 10 %
of its capacity in the first half, 50 % in the second. An edge that is suspected three times with less than half a minute of
health in between has flapped as well. A verdict is never the detector's last word: it acts on new calls, and `evacuate`
asks the planner to move those that run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from app.fleet.votes import SEVERAL, Callers, Vote

DOWN_AFTER_S = 5.0
DOWN_AGREED_S = 4.5
RECOVERED_AFTER_S = 1.0
PROBATION_S = 10.0
PROBATION_MAX_S = 600.0
FORGIVEN_AFTER_S = 1_800.0
STEADY_AFTER_S = 30.0
STUMBLES_MAX = 3
RAMP = (0.1, 0.5)
FLAPS_MAX = 60

ORDER = ("healthy", "probation", "suspect", "down")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """`silent_s`: since the last heartbeat; `late`: the next one is overdue."""

    silent_s: float = 0.0
    phi: float = 0.0
    late: bool = False
    vote: Vote = field(default_factory=Vote)
    callers: Callers = field(default_factory=Callers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """`level`: ``good``, ``suspect`` or ``down``; `case`: one of those above; `action`: ``none``, ``quarantine`` or ``evacuate``."""

    level: str
    action: str
    case: str


GOOD = Assessment(level="good", action="none", case="good")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is kept of an edge or a region, shared by all instances. `version` counts its transitions. `owed`: it has been down,
    and has not served its probation. `stumbles`: suspicions that came to nothing, lately."""

    verdict: str = "healthy"
    action: str = "none"
    case: str = "good"
    flaps: int = 0
    stumbles: int = 0
    owed: bool = False
    version: int = 0


def assess(signals: Signals) -> Assessment:
    vote, silent_s = signals.vote, signals.silent_s
    agreed = vote.outcome in ("away", "refused", "failing")
    if vote.positive:
        return Assessment(level="down", action="evacuate", case="refused")
    if vote.outcome != "up" and silent_s > (DOWN_AGREED_S if agreed else DOWN_AFTER_S):
        return Assessment(level="down", action="quarantine", case="silent")
    if signals.late and vote.alone and vote.outcome == "refused":
        return Assessment(level="down", action="quarantine", case="gone")
    if signals.callers.failing:
        several = len(signals.callers.regions) >= SEVERAL
        return Assessment(
            level="suspect",
            action="evacuate" if several else "quarantine",
            case="failing" if several else "left",
        )
    if signals.late:
        return Assessment(level="suspect", action="quarantine", case="late")
    if agreed and not vote.alone:
        return Assessment(level="suspect", action="quarantine", case="unreachable")
    return GOOD


def step(
    state: State, found: Assessment, *, age_s: float, good_for_s: float, may_eject: bool
) -> State | None:
    """The next state, or None where it stays. `age_s`: of the present verdict; `good_for_s`: so long nothing spoke against the
    edge; `may_eject`: a third of the fleet is not ejected yet; an edge that is may always be held for worse."""
    ejected = state.verdict == "down" or state.action == "evacuate"
    if found.level == "down" and (may_eject or ejected):
        if state.verdict == "down":
            return _changed(state, action=_stronger(state.action, found.action), case=found.case)
        forgiven = state.verdict == "healthy" and age_s > FORGIVEN_AFTER_S
        flaps = min(FLAPS_MAX, (0 if forgiven else state.flaps) + 1)
        return _moved(state, "down", found, flaps=flaps, stumbles=0, owed=True)
    if found.level != "good":
        if state.verdict == "down":
            return None
        held = found.level == "down" or (found.action == "evacuate" and not (may_eject or ejected))
        case = "held" if held else found.case
        action = "quarantine" if held else found.action
        if state.verdict == "suspect":
            return _changed(state, action=_stronger(state.action, action), case=case)
        stumbles = 0 if state.verdict == "healthy" and age_s > STEADY_AFTER_S else state.stumbles
        return _moved(state, "suspect", replace(found, action=action, case=case), stumbles=stumbles)
    if state.verdict == "probation":
        if age_s < probation_s(state.flaps):
            return None
        return _moved(state, "healthy", found, owed=False)
    # another observer may have seen a moment ago what this one has not seen yet
    if state.verdict == "healthy" or min(good_for_s, age_s) < RECOVERED_AFTER_S:
        return None
    if state.verdict == "down" or state.owed:
        return _moved(state, "probation", found, owed=True)
    if state.stumbles + 1 >= STUMBLES_MAX:
        return _moved(state, "probation", found, flaps=min(FLAPS_MAX, state.flaps + 1), stumbles=0, owed=True)
    return _moved(state, "healthy", found, stumbles=state.stumbles + 1)


def earliest_s(state: State, found: Assessment, *, age_s: float, good_for_s: float) -> float:
    """In so many seconds it may take new calls again if nothing speaks against it from now on; 0 where it may now."""
    if state.verdict in ("healthy", "probation"):
        return 0.0
    good_s = min(good_for_s, age_s) if found.level == "good" else 0.0
    return max(0.0, RECOVERED_AFTER_S - good_s)


def probation_s(flaps: int) -> float:
    return float(min(PROBATION_MAX_S, PROBATION_S * 2.0 ** (max(1, flaps) - 1)))


def weight(state: State, age_s: float) -> float:
    """The share of its capacity that an edge may fill."""
    if state.verdict == "probation":
        return RAMP[0] if age_s < probation_s(state.flaps) / 2 else RAMP[1]
    return 1.0 if state.verdict == "healthy" else 0.0


def region_verdict(edges: list[str]) -> str:
    """As good as its best edge; with none it is ``down``."""
    return min(edges, key=ORDER.index, default="down")


def _stronger(one: str, other: str) -> str:
    return "evacuate" if "evacuate" in (one, other) else "quarantine"


def _moved(state: State, verdict: str, found: Assessment, **more: int) -> State:
    return replace(
        state,
        verdict=verdict,
        action=found.action,
        case=found.case,
        version=state.version + 1,
        **more,  # type: ignore[arg-type]
    )


def _changed(state: State, *, action: str, case: str) -> State | None:
    """The same verdict with more to be done; a case alone is not worth a transition."""
    if action == state.action:
        return None
    return replace(state, action=action, case=case, version=state.version + 1)
