"""What an edge may put in a frame. Pure: a frame comes in, a message or the reason it is nonsense comes out.

An edge that talks nonsense is cut off alone, and nothing of that frame is kept. A frame in whose form nothing is wrong but that
holds an event which the log cannot hold is none of these: see `app.log.unfit`.
"""

from __future__ import annotations

import msgspec

from app.log.unfit import fits
from regions.wire import ids
from regions.wire.events import DATA_BYTES_MAX, EVENT_TYPES, FINAL_TYPE, LOST_TYPE, EdgeEvent, Source, first_n
from regions.wire.measuring import (
    COUNT_MAX,
    HOST_CHARS_MAX,
    LEGS_MAX,
    MESH_MAX,
    REGION_CHARS_MAX,
    WITNESSED_MAX,
    Leg,
    Measured,
    Mesh,
    Witnessed,
    is_network,
)
from regions.wire.observations import (
    AGE_MS_MAX,
    FAILURES_MAX,
    RTT_MS_MAX,
    STREAK_MAX,
    TARGETS_MAX,
    Observed,
)
from regions.wire.uplink import (
    CALLS_PER_BATCH_MAX,
    EVENTS_PER_BATCH_MAX,
    FRAME_BYTES_MAX,
    CallEvents,
    Cut,
    Done,
    Events,
    FromEdge,
    Heartbeat,
    Held,
    Hello,
    Load,
    Volatile,
    from_edge_decoder,
)

AT_MS_MAX = 1 << 43
DURABLE_TYPES = frozenset(t.name for t in EVENT_TYPES.values() if t.durable and Source.EDGE in t.sources)
PLAIN_TYPES = DURABLE_TYPES - {FINAL_TYPE, LOST_TYPE}
CAPACITY_MAX = 100_000
LOAD_MAX = 1e9
DRAIN_S_MAX = 86_400
CUT_MAX = 200
UNACKED_MAX = 200


class BadFrame(Exception):
    """A frame that is not one; the text says why and repeats nothing of it."""


def read_frame(frame: str | bytes | None) -> FromEdge:
    """Raises `BadFrame`."""
    if not isinstance(frame, str):
        raise BadFrame("frames are JSON text")
    if len(frame) > FRAME_BYTES_MAX:
        raise BadFrame(f"a frame has at most {FRAME_BYTES_MAX} bytes")
    try:
        message: FromEdge = from_edge_decoder.decode(frame)
    except msgspec.ValidationError as error:
        raise BadFrame(f"the frame does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadFrame("the frame is not JSON, or nested too deeply") from None
    match message:
        case Events():
            check_events(message)
        case Volatile():
            kind = EVENT_TYPES.get(message.type)
            if kind is None or kind.durable or Source.EDGE not in kind.sources:
                raise BadFrame("this type of event is not volatile")
        case Hello():
            _check_load(message.load)
            _check_held(message.held)
            _check_version(message.desired_version)
        case Heartbeat():
            _check_load(message.load)
            _check_held(message.lapsed)
            _check_held(message.not_taken)
            if not 0 <= message.drain_left_s <= DRAIN_S_MAX:
                raise BadFrame(f"an edge stops within {DRAIN_S_MAX} s")
        case Done():
            _check_version(message.version)
            _check_cut(message.cut)
        case Observed():
            _check_observed(message)
        case Measured():
            _check_measured(message)
    return message


def _check_load(load: Load) -> None:
    sound = 0 <= load.calls <= CAPACITY_MAX and 1 <= load.capacity_calls <= CAPACITY_MAX
    if not (sound and 0 <= load.cpu <= LOAD_MAX and 0 <= load.lateness_p99_ms <= LOAD_MAX):
        raise BadFrame(f"a load counts up to {CAPACITY_MAX} calls, and its other figures are not negative")


def _check_observed(observed: Observed) -> None:
    """NaN and infinity are no JSON; what is left is checked for its size."""
    if len(observed.probes) > 2 * TARGETS_MAX or len(observed.failures) > FAILURES_MAX:
        raise BadFrame(f"a report is about {TARGETS_MAX} edges and {FAILURES_MAX} calls at most")
    sound = 0 <= observed.lag_ms <= AGE_MS_MAX and all(
        0 <= p.rtt_ms <= RTT_MS_MAX and 0 <= p.age_ms <= AGE_MS_MAX and 1 <= p.streak <= STREAK_MAX
        for p in observed.probes
    )
    if not sound or not all(0 <= f.age_ms <= AGE_MS_MAX for f in observed.failures):
        raise BadFrame("round trips, ages and counts are not negative, and have bounds")
    try:
        for probe in observed.probes:
            ids.decode(ids.EDGE, probe.edge)
        for failure in observed.failures:
            ids.decode(ids.CALL, failure.call)
            ids.decode(ids.EDGE, failure.edge)
    except ids.IdError as error:
        raise BadFrame(str(error)) from None


def _check_measured(measured: Measured) -> None:
    callers, backends, mesh = measured.callers, measured.backends, measured.mesh
    if len(callers) > WITNESSED_MAX or len(backends) > LEGS_MAX or len(mesh) > MESH_MAX:
        raise BadFrame(
            f"a report is about {WITNESSED_MAX} networks, {LEGS_MAX} backends and {MESH_MAX} regions at most"
        )
    times: list[Witnessed | Leg | Mesh] = [*callers, *backends, *mesh]
    if not all(0 <= m.rtt_ms <= RTT_MS_MAX and 0 <= m.jitter_ms <= RTT_MS_MAX for m in times):
        raise BadFrame("round trips and their spread are not negative, and have bounds")
    counted = all(1 <= c.samples <= COUNT_MAX for c in callers) and all(
        0 <= b.failures <= COUNT_MAX for b in backends
    )
    if not counted or not all(0 <= m.loss <= 1 for m in mesh):
        raise BadFrame("counts are not negative and have bounds, and a loss is a share")
    if not all(is_network(c.network) for c in callers):
        raise BadFrame("a caller's network is a /24 or a /48, written in the usual way")
    if not all(1 <= len(b.host) <= HOST_CHARS_MAX for b in backends) or not all(
        1 <= len(m.region) <= REGION_CHARS_MAX for m in mesh
    ):
        raise BadFrame("a backend and a region have a name, and it has a bound")


def _check_held(held: list[Held]) -> None:
    if len(held) > CAPACITY_MAX or not all(1 <= h.epoch < 1 << 30 for h in held):
        raise BadFrame("what is held has epochs, and there are not that many calls")


def _check_cut(cut: list[Cut]) -> None:
    if len(cut) > CUT_MAX or any(len(c.unacked) > UNACKED_MAX for c in cut):
        raise BadFrame(f"at most {CUT_MAX} calls are cut at once, and {UNACKED_MAX} events of each are named")
    for c in cut:
        sound = 0 <= c.epoch < 1 << 30 and 0 <= c.at_ms < AT_MS_MAX and 0 <= c.acked_seq < 1 << 31
        if not (sound and all(1 <= o.epoch < 1 << 30 and 1 <= o.n < 1 << 30 for o in c.unacked)):
            raise BadFrame("epochs, times and numbers have bounds")
        try:
            ids.decode(ids.CALL, c.call)
        except ids.IdError as error:
            raise BadFrame(str(error)) from None


def _check_version(version: int) -> None:
    if not 0 <= version < 1 << 62:
        raise BadFrame("a version is a whole number below 2^62")


def check_events(batch: Events) -> None:
    if (
        len(batch.calls) > CALLS_PER_BATCH_MAX
        or sum(len(run.events) for run in batch.calls) > EVENTS_PER_BATCH_MAX
    ):
        raise BadFrame(f"a batch has at most {CALLS_PER_BATCH_MAX} calls and {EVENTS_PER_BATCH_MAX} events")
    if len({run.call for run in batch.calls}) != len(batch.calls):
        raise BadFrame("a call stands at most once in a batch")
    if not _is_plain(batch):
        for run in batch.calls:
            _check_run(run)


def _is_plain(batch: Events) -> bool:
    """Whether nothing in it needs a second look: the checks of `_check_run`, made for all events at once, of a batch that
    adopts nothing, has lost nothing and ends nothing."""
    events = [event for run in batch.calls for event in run.events]
    if not events or not {event.type for event in events} <= PLAIN_TYPES:
        return False
    for run in batch.calls:
        numbers = [event.n for event in run.events]
        if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            return False
        if not (1 <= run.epoch < 1 << 30 and numbers[0] >= 1 and numbers[-1] < 1 << 30):
            return False
    times = [event.at_ms for event in events]
    try:
        ids.decode_many(ids.CALL, [run.call for run in batch.calls])
        ids.decode_many(ids.EVENT, [event.id for event in events])
    except ids.IdError:
        return False
    return min(times) >= 0 and max(times) < AT_MS_MAX and {event.origin for event in events} == {None}


def _check_run(run: CallEvents) -> None:
    if not run.events or not 1 <= run.epoch < 1 << 30:
        raise BadFrame("a run has an epoch and at least one event")
    try:
        ids.decode(ids.CALL, run.call)
        follows = first_n(run.events[0], run.epoch)
        for i, event in enumerate(run.events):
            if first_n(event, run.epoch) != follows or not 1 <= event.n < 1 << 30:
                raise BadFrame("n ascends by one within a run")
            follows = event.n + 1
            if event.type == FINAL_TYPE and i + 1 < len(run.events):
                raise BadFrame("nothing follows the final event")
            _check_envelope(event, run.epoch)
    except ids.IdError as error:
        raise BadFrame(str(error)) from None


def check_event(event: EdgeEvent, epoch: int) -> None:
    """One event of an owner at `epoch`, its place in the run apart. Raises `BadFrame`, or `IdError` for its id."""
    _check_envelope(event, epoch)
    if not fits(event):
        raise BadFrame(
            f"data is a JSON object of at most {DATA_BYTES_MAX} bytes, in UTF-8, without NUL and without numbers beyond all bounds"
        )


def _check_envelope(event: EdgeEvent, epoch: int) -> None:
    """All but whether the log can hold it: a type that is not known here may be one of an edge that is newer."""
    if event.type in EVENT_TYPES and event.type not in DURABLE_TYPES:
        raise BadFrame("an edge may not write this type of event, or it is not a durable one")
    if not 0 <= event.at_ms < AT_MS_MAX:
        raise BadFrame("at_ms is a time in Unix milliseconds")
    if event.origin is not None and not (1 <= event.origin.epoch < epoch and 1 <= event.origin.n < 1 << 30):
        raise BadFrame("an origin is of an earlier epoch")
    ids.decode(ids.EVENT, event.id)
