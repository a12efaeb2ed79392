"""The uplink: one WebSocket per edge to the control plane, JSON text frames, one struct per message.

Decides the messages and their limits. Leaves to the two ends when to send them. The edge opens
``/edge/v1/uplink`` with ``Authorization: Bearer <token it signed itself>`` and says `Hello`; the control plane
answers `Welcome` or closes with a `Goodbye`. Everything after it may come in any order, from either side.

A newer uplink of the same (edge, incarnation) voids the older one: the control plane numbers them (`generation`).
Nothing on the uplink is lost when it drops: the edge keeps every durable event until it is acknowledged and sends
it again, with the same numbers.
"""

from __future__ import annotations

import msgspec

from regions.wire.events import EdgeEvent, Origin
from regions.wire.measuring import Measure, Measured
from regions.wire.observations import Neighbours, Observed

UPLINK_PATH = "/edge/v1/uplink"
FRAME_BYTES_MAX = 1 << 20
CALLS_PER_BATCH_MAX = 500
EVENTS_PER_BATCH_MAX = 1_000
HEARTBEAT_S = 1.0
ALIVE_S = 1.0
BATCHES_IN_FLIGHT_MAX = 4

REGISTER_TYP = "vx-enrol+jwt"
"""`typ` of the enrolment token: signed by the control plane, for one region, single use, at most 5 minutes."""
EDGE_TOKEN_TYP = "vx-edge+jwt"
"""`typ` of the tokens an enrolled edge signs itself (EdDSA), at most 60 s, single use."""
EDGE_REVOKED = "edge_revoked"
"""The code of the problem that such an edge is answered with: it will not be let in again, whatever it holds."""
EDGE_KEY_RETIRED = "edge_key_retired"
"""The code of the problem that a token is answered with whose key was replaced, and holds no more."""
EDGE_KEY_TYP = "vx-edge-key+jwt"
"""`typ` of what proves that an edge has the new key it names: the claims of an edge token, signed with that key."""
EDGE_TOKEN_AUDIENCE = "voxplane.control"


class EdgeListeners(msgspec.Struct, frozen=True, kw_only=True):
    """The two listeners of an edge, as callers reach them: ``ws(s)://host:port`` and ``http(s)://host:port``, no path. `webrtc`: the
    second one takes callers over WebRTC."""

    media_url: str
    http_url: str
    webrtc: bool = False


class RegisterRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /edge/v1/register``. The bearer token is an enrolment token, or one the edge signed itself.

    `name` is unique within the region and stays with the edge over restarts; `incarnation` is new at every start
    (a UUID as text). `public_key` is the raw Ed25519 key, base64url without padding.
    """

    name: str
    region: str
    incarnation: str
    listeners: EdgeListeners
    capacity_calls: int
    public_key: str
    version: str = ""


class RegisterResponse(msgspec.Struct, frozen=True, kw_only=True):
    """`edge_id` is an ``edge_`` TypeID; `uplink_urls` are tried in order."""

    edge_id: str
    region: str
    uplink_urls: list[str]


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge carries right now. `lateness_p99_ms`: of the pacer; `cpu`: share of one core, 0 to 1."""

    calls: int
    capacity_calls: int
    cpu: float = 0.0
    lateness_p99_ms: float = 0.0


class Held(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A call that this edge owns: its ``call_`` id and the epoch."""

    call: str
    epoch: int


# --- edge to control plane -------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """First frame. `desired_version` is the newest command version carried out (0: none)."""

    incarnation: str
    desired_version: int
    load: Load
    held: list[Held] = []
    version: str = ""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat", omit_defaults=True):
    """`lapsed`: calls of which this edge has let go because their caller was not heard any more; said for some minutes.
    `not_taken`: calls that were to be moved and have stayed, for none of the grants could be had; by the first epoch of the move,
    and said for as long as it is so.
    `draining`: it was told to stop, and hands over by closing what is still here in `drain_left_s`. `stopped`: nothing is left
    here, and this is the last."""

    at_ms: int
    load: Load
    draining: bool = False
    drain_left_s: float = 0.0
    stopped: bool = False
    lapsed: list[Held] = []
    not_taken: list[Held] = []


class CallEvents(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of one owner's events, `n` ascending without a gap. `trace`: the `traceparent` of the ownership, where it is traced."""

    call: str
    epoch: int
    events: list[EdgeEvent]
    trace: str = ""


class Events(msgspec.Struct, frozen=True, kw_only=True, tag="events"):
    """A batch to append. `batch` is the edge's own number, echoed in the `Ack`. A call stands at most once in it."""

    batch: int
    calls: list[CallEvents]


class Volatile(msgspec.Struct, frozen=True, kw_only=True, tag="volatile", rename={"type": "event"}):
    """A live-only event (partial transcripts, playback ticks): fanned out, never stored, never acknowledged."""

    call: str
    epoch: int
    type: str
    at_ms: int
    data: msgspec.Raw = msgspec.Raw(b"{}")


class Cut(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a ``cut``. `held`: False where this edge did not own the call at that epoch, or it was on its way to another;
    nothing else is said then. `at_ms`: when, by this edge's clock. `acked_seq`: the newest event of the call of which this owner
    was told that it is durable. `unacked`: what it had written and was not told of, by where it was first numbered."""

    call: str
    epoch: int
    held: bool = True
    at_ms: int = 0
    acked_seq: int = 0
    unacked: list[Origin] = []


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done", omit_defaults=True):
    """Every command up to `version` has been carried out. `held`: calls that a ``deny`` among them was about and that this
    edge has not denied. `cut`: one for each ``cut`` among them."""

    version: int
    held: list[str] = []
    cut: list[Cut] = []


class NewKey(msgspec.Struct, frozen=True, kw_only=True, tag="new_key"):
    """From now on this is the edge's key (raw Ed25519, base64url): said where `Welcome.new_keys` allows it, again until it is
    answered, and the same after a reconnect. `proof`: a token of the type `EDGE_KEY_TYP`, signed with it."""

    public_key: str
    proof: str


# --- control plane to edge -------------------------------------------------------------------------------------


class FleetKey(msgspec.Struct, frozen=True, kw_only=True):
    """A 32-byte key (base64url) under which the control plane seals what tickets carry for edges."""

    id: str
    key: str


class Keys(msgspec.Struct, frozen=True, kw_only=True, tag="keys"):
    """The keys an edge needs to admit a caller without asking anyone. `jwks` is an RFC 7517 key set (OKP, Ed25519)."""

    fleet_keys: list[FleetKey]
    jwks: msgspec.Raw


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """The answer to `Hello`. `alive_s`: the control plane will say something at least this often; 0: it promises nothing.
    `new_keys`: it knows what to do with a `NewKey`."""

    generation: int
    heartbeat_s: float
    keys: Keys
    redis_url: str | None = None
    alive_s: float = 0.0
    new_keys: bool = False


class KeyWanted(msgspec.Struct, frozen=True, kw_only=True, tag="key_wanted"):
    """An operator wants this edge to have another key. Said when the uplink opens and when it is asked, until there is one.
    `asked_at_ms`: by the control plane's clock; who hears the same again has heard it."""

    asked_at_ms: int


class KeyTaken(msgspec.Struct, frozen=True, kw_only=True, tag="key_taken"):
    """The answer to a `NewKey`. `taken`: it is the edge's key, in the log's database; sign with it. Else nothing has changed, and
    `detail` says why."""

    public_key: str
    taken: bool
    detail: str = ""


class Alive(msgspec.Struct, frozen=True, kw_only=True, tag="alive"):
    """Nothing else was said for `Welcome.alive_s`. An edge that is not told for long goes to another instance."""


class AppendStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a run. The meaning of `status`:

    ``durable``   everything up to `durable_n` is stored for good; `seq` is the call's newest, and `stored` of the run's events
                  are new: with as many as the run has, they stand in their order up to `seq`.
    ``gap``       the run does not follow `durable_n`: send from there on.
    ``busy``      the call is locked by another writer, or the outcome is unknown: send the same again.
    ``fenced``    another owner has taken over, or the call is over: what was not stored is kept as `late`; send no more.
    ``conflict``  the same (epoch, n) was stored with another content: a fault of the edge; nothing changed.
    ``refused``   this edge was never granted the epoch, or the call is unknown; `detail` says which.

    `end_reason`: of a ``fenced`` run whose call is over, where that could be found out: nobody else has it.
    """

    call: str
    epoch: int
    status: str
    durable_n: int
    seq: int = 0
    detail: str = ""
    stored: int = 0
    end_reason: str = ""


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack"):
    batch: int
    results: list[AppendStatus]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Desired state for this edge. `kind`: ``end`` (a call; `body.end_reason`), ``deny`` (a call: if you do not hold it, refuse
    its grants up to `body.epoch` from now on), ``move`` (a call: let its caller take one of the grants of `body.ticket` at the
    end of a turn, in `body.within_ms` at the latest), ``ticket`` (a call: hand its caller `body.ticket`, whose standbys are better
    than those it has; nothing where it is missing), ``stay`` (a call: the move that began with `body.epoch` is off; without it,
    any is), ``cut`` (a call: if you own it at `body.epoch`, treat it as if you had died; `body.how`: ``closed`` or ``silent``),
    ``hangup`` (a call: its backend has ended it over REST; end it if you own it at `body.epoch`, the socket numbered `body.socket` is
    the one that you have with the backend, and your clock does not show more than `body.until_ms`; empty where it has come too
    late), ``drain`` (send who attaches first to its standby), ``undrain``. Idempotent."""

    version: int
    kind: str
    call: str | None = None
    body: dict[str, str] = {}


class Desired(msgspec.Struct, frozen=True, kw_only=True, tag="desired"):
    """Commands in ascending version; the edge answers `Done` with the newest version carried out."""

    commands: list[Command]


class Goodbye(msgspec.Struct, frozen=True, kw_only=True, tag="goodbye"):
    """Said before the control plane closes. `code` is stable: ``superseded``, ``bad_frame``, ``shutting_down``,
    ``unavailable``, ``unauthorized``, ``silent``, ``stopped``, ``other_incarnation``."""

    code: str
    detail: str
    fix: str = ""


FromEdge = Hello | Heartbeat | Events | Volatile | Done | Observed | Measured | NewKey
ToEdge = Welcome | Keys | Ack | Desired | Alive | Neighbours | Measure | KeyWanted | KeyTaken | Goodbye

from_edge_decoder = msgspec.json.Decoder(FromEdge)
to_edge_decoder = msgspec.json.Decoder(ToEdge)
