// Generated from openapi/clients/typescript (make typescript-page); do not edit. Sources: 116434085dedfbaa94f9429bbc97e12eba09969ef7aa14aaeab4bca2829dda55

// src/errors.ts
var CallRefused = class extends Error {
  constructor(code, detail, fix) {
    super([`${code}: ${detail}`, fix].filter((part) => part !== "").join(". "));
    this.code = code;
    this.detail = detail;
    this.fix = fix;
    this.name = "CallRefused";
  }
};
var WrongWorld = class extends Error {
  code = "wrong_world";
  constructor() {
    super("this call is one over WebRTC: give the caller `world: overWebRtc({ microphone, track })`");
    this.name = "WrongWorld";
  }
};
var CallLost = class extends Error {
  code = "call_lost";
  constructor() {
    super("no edge answered: is the deployment there, and may this page open WebSockets to it?");
    this.name = "CallLost";
  }
};
var CallOver = class extends Error {
  code = "call_over";
  constructor() {
    super("the call has ended");
    this.name = "CallOver";
  }
};

// src/hearing.ts
var Hearing = class {
  gaps = [];
  newest = null;
  lastFrameAtMs = null;
  /** The owner is given up; several tries to find the next one are one gap. */
  lost(fromEpoch, reason, nowMs) {
    if (this.newest !== null && this.newest.attachedAtMs === null) return;
    this.newest = {
      fromEpoch,
      reason,
      lostAtMs: nowMs,
      lastFrameAtMs: this.lastFrameAtMs,
      toEpoch: null,
      attachedAtMs: null,
      firstFrameAtMs: null,
      audioMs: null
    };
    this.gaps.push(this.newest);
  }
  /** The new edge has refused, and the owner goes on: there is no gap. */
  stayed() {
    if (this.newest === null || this.newest.attachedAtMs !== null) return;
    this.gaps.pop();
    this.newest = this.gaps.at(-1) ?? null;
  }
  attached(epoch, nowMs) {
    if (this.newest === null || this.newest.attachedAtMs !== null) return;
    this.newest.toEpoch = epoch;
    this.newest.attachedAtMs = nowMs;
  }
  /** The agent was heard; the gap that has been closed by it, if one was. */
  audio(epoch, nowMs) {
    this.lastFrameAtMs = nowMs;
    const gap = this.newest;
    if (gap === null || gap.firstFrameAtMs !== null) return null;
    if (gap.fromEpoch === epoch) gap.lastFrameAtMs = nowMs;
    if (gap.toEpoch !== epoch) return null;
    gap.firstFrameAtMs = nowMs;
    gap.audioMs = gap.lastFrameAtMs === null ? null : nowMs - gap.lastFrameAtMs;
    return gap;
  }
};

// src/messages.ts
var SUBPROTOCOL = "voxplane.media.v1";
var MEDIA_PATH = "/v1/media";
var WEBRTC_PATH = "/v1/webrtc";
var HEADER_BYTES = 20;
var PIECE_MS_MAX = 200;
var AUDIO = 1;
var FLAG_FILLER = 1;
var FLAG_SILENCE = 2;
var OFFSET_MAX = 4294967295;
var NOWHERE = { utterance: 0, offset_ms: 0 };
function readMessage(text) {
  let raw;
  try {
    const parsed = JSON.parse(text);
    if (typeof parsed !== "object" || parsed === null) return null;
    raw = parsed;
  } catch {
    return null;
  }
  const { type, stamp, epoch, n, sealed, event, ticket, code, end_reason } = raw;
  switch (type) {
    case "prepared":
      return whole(epoch) && whole(stamp) ? { type, epoch, stamp } : null;
    case "attached":
      if (!whole(epoch) || !whole(stamp)) return null;
      return { type, epoch, stamp, region: text_(raw["region"]), resumed: raw["resumed"] === true };
    case "tick":
      return whole(stamp) ? { type, stamp, at: raw["at"] === void 0 ? null : position(raw["at"]) } : null;
    case "clear":
      return whole(stamp) ? { type, stamp, at: position(raw["at"]) } : null;
    case "snapshot":
      return whole(epoch) && whole(n) && typeof sealed === "string" ? { type, epoch, n, sealed } : null;
    case "acked":
      return whole(epoch) && whole(n) ? { type, epoch, n } : null;
    case "notice":
      if (typeof event !== "string") return null;
      return { type, event, at_ms: number_(raw["at_ms"]), data: raw["data"] ?? null };
    case "ticket":
      return typeof ticket === "string" ? { type, ticket } : null;
    case "move":
      return whole(epoch) ? { type, epoch, within_ms: number_(raw["within_ms"]) } : null;
    case "go":
      return whole(epoch) ? { type, epoch } : null;
    case "ended":
      return typeof end_reason === "string" ? { type, end_reason } : null;
    case "refused":
      return typeof code === "string" ? refusal(code, raw) : null;
    default:
      return null;
  }
}
function refusal(code, raw) {
  const { next_url, next_epoch } = raw;
  return {
    type: "refused",
    code,
    detail: text_(raw["detail"]),
    fix: text_(raw["fix"]),
    next_url: typeof next_url === "string" ? next_url : null,
    next_epoch: whole(next_epoch) ? next_epoch : null
  };
}
function readAudio(message, silence = null) {
  if (message.byteLength < HEADER_BYTES) return null;
  const header = new DataView(message);
  const quiet = message.byteLength === HEADER_BYTES;
  if (quiet && (silence === null || (header.getUint8(1) & FLAG_SILENCE) === 0)) return null;
  const stamp = Number(header.getBigUint64(4));
  if (header.getUint8(0) !== AUDIO || !Number.isSafeInteger(stamp)) return null;
  return {
    stamp,
    utterance: header.getUint32(12),
    offset_ms: header.getUint32(16),
    samples: quiet && silence !== null ? silence.slice() : new Uint8Array(message, HEADER_BYTES),
    filler: (header.getUint8(1) & FLAG_FILLER) !== 0
  };
}
function writeAudio(samples, { sequence, stamp, played }) {
  const message = new Uint8Array(HEADER_BYTES + samples.byteLength);
  const header = new DataView(message.buffer);
  header.setUint8(0, AUDIO);
  header.setUint8(1, samples.byteLength === 0 ? FLAG_SILENCE : 0);
  header.setUint16(2, sequence & 65535);
  header.setBigUint64(4, BigInt(stamp));
  header.setUint32(12, played.utterance);
  header.setUint32(16, played.offset_ms);
  message.set(samples, HEADER_BYTES);
  return message;
}
function ready(epoch, code) {
  return JSON.stringify({ type: "ready", epoch, ...code === "" ? {} : { code } });
}
function moved(epoch) {
  return JSON.stringify({ type: "moved", epoch });
}
function talk(on) {
  return JSON.stringify({ type: "talk", on });
}
function hangup() {
  return JSON.stringify({ type: "hangup" });
}
function clamped({ utterance, offset_ms }) {
  return { utterance: within32(utterance), offset_ms: within32(offset_ms) };
}
function within32(value) {
  return Number.isFinite(value) ? Math.min(OFFSET_MAX, Math.max(0, Math.floor(value))) : 0;
}
function whole(value) {
  return Number.isSafeInteger(value) && value >= 0;
}
function position(raw) {
  if (typeof raw !== "object" || raw === null) return NOWHERE;
  const { utterance, offset_ms } = raw;
  return { utterance: number_(utterance), offset_ms: number_(offset_ms) };
}
function number_(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}
function text_(value) {
  return typeof value === "string" ? value : "";
}

// src/links.ts
var OPEN_WITHIN_MS = 1500;
var Link = class {
  constructor(world, url, ticket, epoch, mode, first, ears) {
    this.epoch = epoch;
    this.mode = mode;
    this.first = first;
    this.ears = ears;
    this.stopWaiting = world.later(OPEN_WITHIN_MS, () => {
      if (!this.open) this.end();
    });
    try {
      const path = url.startsWith("http") ? WEBRTC_PATH : MEDIA_PATH;
      this.socket = world.open(url + path, SUBPROTOCOL, { ticket, epoch });
    } catch {
      world.later(0, () => this.end());
      return;
    }
    this.listen(this.socket);
  }
  prepared = false;
  /** The code with which the edge has refused. */
  refused = "";
  socket = null;
  open = false;
  over = false;
  stopWaiting;
  /** Bytes that wait to be sent. */
  get unsent() {
    return this.socket?.bufferedAmount ?? 0;
  }
  /** Its audio goes on a track. */
  get onTrack() {
    return this.socket?.onTrack ?? false;
  }
  /** Of audio that came on its track; null where there is none, or nobody knows. */
  async packets() {
    return await this.socket?.packets?.().catch(() => null) ?? null;
  }
  get gone() {
    return this.over;
  }
  /** A socket that is not open swallows it: its end is told apart. */
  tell(message) {
    if (this.open && !this.over) this.socket?.send(message);
  }
  /** Gone at once, and nobody is told. */
  drop() {
    if (this.over) return;
    this.over = true;
    this.stopWaiting();
    const socket = this.socket;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close();
  }
  listen(socket) {
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.open = true;
      this.stopWaiting();
      this.tell(this.first());
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string" || data instanceof ArrayBuffer) this.ears.heard(this, data);
    };
    socket.onclose = socket.onerror = () => this.end();
  }
  end() {
    if (this.over) return;
    this.drop();
    this.ears.closed(this);
  }
};
var Links = class {
  constructor(world, ears) {
    this.world = world;
    this.ears = ears;
  }
  links = /* @__PURE__ */ new Set();
  open(url, ticket, epoch, mode, first) {
    const link = new Link(this.world, url, ticket, epoch, mode, first, {
      heard: this.ears.heard,
      closed: (gone) => {
        this.links.delete(gone);
        this.ears.closed(gone);
      }
    });
    this.links.add(link);
    return link;
  }
  drop(link) {
    if (link == null) return;
    link.drop();
    this.links.delete(link);
  }
  close() {
    for (const link of [...this.links]) this.drop(link);
  }
};

// src/overlap.ts
var LINGER_MIN_MS = 200;
var LINGER_MAX_MS = 2500;
var QUIET_MS = 60;
var Overlap = class {
  constructor(beganMs) {
    this.beganMs = beganMs;
    this.oldMs = beganMs;
  }
  oldMs;
  backend = false;
  spoken = false;
  /** Whether this frame of the old edge is heard: the new one has not begun. */
  oldSpoke(nowMs) {
    this.oldMs = nowMs;
    return !this.spoken;
  }
  newSpoke() {
    this.spoken = true;
  }
  backendUp() {
    this.backend = true;
  }
  /** Whether the old edge may be let go: the new one speaks, or has its backend while the old one is quiet; or its lease ends. */
  over(nowMs) {
    const lastedMs = nowMs - this.beganMs;
    if (lastedMs >= LINGER_MAX_MS) return true;
    const quiet = nowMs - this.oldMs >= QUIET_MS;
    return lastedMs >= LINGER_MIN_MS && (this.spoken || this.backend && quiet);
  }
};

// src/moving.ts
var PART_WITHIN_MS = 2e3;
var Moving = class {
  constructor(world, tickets, links, ports) {
    this.world = world;
    this.tickets = tickets;
    this.links = links;
    this.ports = ports;
  }
  /** The new edge's, from `move` until it is taken. */
  link = null;
  going = false;
  left = null;
  /** By the owner. A later move replaces an earlier; where what was prepared has been lost since, it is prepared again. */
  asked({ type, epoch }) {
    if (!this.tickets.has(epoch)) {
      this.answer(epoch, "no_such_epoch");
      return;
    }
    const going = type === "go";
    if (!going || this.link?.epoch !== epoch) {
      this.cancel();
      this.link = this.ports.prepare(epoch);
    }
    this.going = going;
    this.goIfReady();
  }
  answer(epoch, code) {
    this.ports.tell(ready(epoch, code));
  }
  prepared(link) {
    this.answer(link.epoch, "");
    this.goIfReady();
  }
  /** A prepared edge keeps nobody waiting for ever: until `go` that is no answer. */
  failed(link) {
    const going = this.going;
    this.link = null;
    this.going = false;
    if (going || !link.prepared) this.answer(link.epoch, link.refused || "closed");
  }
  /** Hands the link over to whoever takes it. */
  taken() {
    const link = this.link;
    this.link = null;
    this.going = false;
    return link;
  }
  cancel() {
    this.links.drop(this.taken());
  }
  /** `link` was the owner until now; the new one is attached. */
  leave(link, toEpoch, nowMs) {
    this.letGo();
    this.left = { link, toEpoch, overlap: new Overlap(nowMs), told: false };
  }
  isLeft(link) {
    return this.left?.link === link;
  }
  oldSpoke(nowMs) {
    return this.left?.overlap.oldSpoke(nowMs) ?? false;
  }
  newSpoke() {
    this.left?.overlap.newSpoke();
  }
  backendUp() {
    this.left?.overlap.backendUp();
  }
  /** The edge that is left hangs up once it is told where the call is; what it has begun to play is heard before. */
  tick(nowMs) {
    const left = this.left;
    if (left === null || left.told || !left.overlap.over(nowMs)) return;
    left.told = true;
    left.link.tell(moved(left.toEpoch));
    this.world.later(PART_WITHIN_MS, () => {
      this.links.drop(left.link);
      if (this.left === left) this.left = null;
    });
  }
  letGo() {
    const left = this.left;
    this.left = null;
    if (left !== null) this.links.drop(left.link);
  }
  goIfReady() {
    if (this.going && this.link !== null && this.link.prepared) this.ports.go(this.link.epoch);
  }
};

// src/on_track.ts
var PACKET_MS = 20;
var BEHIND_MS = PACKET_MS;
var TICKS_APART_MS = 100;
var LATE_MS = 3 * TICKS_APART_MS;
var OnTrack = class {
  constructor(world) {
    this.world = world;
  }
  at = NOWHERE;
  atMs = 0;
  goesOn = false;
  /** Packets that had come at the tick, and those that have come by now. */
  before = null;
  after = null;
  asked = 0;
  looked = false;
  /** `link` has said where it stands: it goes on from there. */
  tick(link, at) {
    this.stopped(at);
    this.goesOn = true;
    this.atMs = this.world.now();
    const { asked } = this;
    void link.packets().then((count) => {
      if (asked === this.asked) this.before = count;
    });
  }
  /** Nothing was sent beyond `at`. */
  stopped(at) {
    this.at = at;
    this.goesOn = this.looked = false;
    this.before = this.after = null;
    this.asked += 1;
  }
  /** Nothing is being played: it has ended somewhere behind the last tick. */
  paused() {
    if (this.goesOn) this.stopped(this.position);
  }
  /** To be called while nothing comes. */
  look(link) {
    if (!this.goesOn || this.looked || this.before === null || this.world.now() - this.atMs < LATE_MS) return;
    this.looked = true;
    const { asked } = this;
    void link.packets().then((count) => {
      if (asked === this.asked) this.after = count;
    });
  }
  get position() {
    if (!this.goesOn) return this.at;
    const { utterance, offset_ms } = this.at;
    return { utterance, offset_ms: Math.max(0, offset_ms + this.since() - BEHIND_MS) };
  }
  since() {
    if (this.before !== null && this.after !== null) {
      return Math.min(TICKS_APART_MS, Math.max(0, this.after - this.before) * PACKET_MS);
    }
    const ms = this.world.now() - this.atMs;
    return ms <= TICKS_APART_MS ? ms : TICKS_APART_MS / 2 + BEHIND_MS;
  }
};

// src/signal.ts
var Signal = class {
  constructor(world) {
    this.world = world;
  }
  done = false;
  waiting = /* @__PURE__ */ new Set();
  set() {
    this.done = true;
    for (const go of this.waiting) go();
    this.waiting.clear();
  }
  within(ms) {
    if (this.done) return Promise.resolve();
    return new Promise((resolve) => {
      const forget = this.world.later(ms, resolve);
      this.waiting.add(() => {
        forget();
        resolve();
      });
    });
  }
};

// src/silence.ts
var FRAME_MS = 20;
var PEAK_MAX = 16;
var TOLD_FRAMES = 20;
var MULAW = /* @__PURE__ */ new Set([255, 127, 254, 126, 253, 125]);
var Silence = class {
  constructor(encoding, bytesPerMs) {
    this.encoding = encoding;
    this.samples = new Uint8Array(FRAME_MS * bytesPerMs).fill(encoding === "mulaw" ? 255 : 0);
  }
  /** 20 ms of it. */
  samples;
  quiet = 0;
  /** What becomes of a piece: sent as it is, told of by a header alone, or neither. Pieces of other lengths than 20 ms are sent. */
  of(piece) {
    if (piece.byteLength !== this.samples.byteLength || !this.has(piece)) {
      this.quiet = 0;
      return "sound";
    }
    this.quiet += 1;
    return this.quiet % TOLD_FRAMES === 1 ? "told" : "left_out";
  }
  /** Nobody could hear it: 66 dB below full scale at most. */
  has(piece) {
    if (this.encoding === "mulaw") return piece.every((byte) => MULAW.has(byte));
    const samples = new DataView(piece.buffer, piece.byteOffset, piece.byteLength);
    for (let i = 0; i < piece.byteLength; i += 2) {
      if (Math.abs(samples.getInt16(i, true)) > PEAK_MAX) return false;
    }
    return true;
  }
};

// src/standing.ts
var Standing = class {
  /** `played`: up to where the agent has been heard, asked whenever a message tells it. */
  constructor(played) {
    this.played = played;
  }
  stamp = 0;
  acked = { epoch: 0, n: 0 };
  snapshot = null;
  get position() {
    return clamped(this.played());
  }
  heard(message) {
    switch (message.type) {
      case "attached":
      case "tick":
      case "clear":
        this.stamp = message.stamp;
        break;
      case "snapshot":
        this.snapshot = message.sealed;
        break;
      case "acked":
        this.acked = { epoch: message.epoch, n: message.n };
        break;
    }
  }
  /** `reason`: why, with the mode `take`. */
  attach(ticket, epoch, mode, { encoding, sampleRate, reason, dtx = false }) {
    return JSON.stringify({
      type: "attach",
      ticket,
      epoch,
      mode,
      encoding,
      sample_rate: sampleRate,
      ...dtx ? { dtx } : {},
      ...mode === "attach" ? {} : { resume: this.resume() },
      ...mode === "take" && reason !== "closed" ? { reason } : {}
    });
  }
  take(reason) {
    return JSON.stringify({ type: "take", resume: this.resume(), reason });
  }
  alive() {
    return JSON.stringify({ type: "alive", stamp: this.stamp, played: this.position });
  }
  dtmf(digit) {
    return JSON.stringify({ type: "dtmf", digit, stamp: this.stamp });
  }
  resume() {
    const { epoch, n } = this.acked;
    return { epoch, n, played: this.position, ...this.snapshot === null ? {} : { snapshot: this.snapshot } };
  }
};

// src/ticket.ts
var TICKET_CHARS_MAX = 16 * 1024;
var NotATicket = class extends Error {
  code = "not_a_ticket";
  constructor() {
    super("this is not a ticket: use the `ticket` of a created call");
    this.name = "NotATicket";
  }
};
function readTicket(ticket) {
  try {
    if (ticket.length > TICKET_CHARS_MAX) throw new NotATicket();
    const claims = JSON.parse(fromBase64Url(ticket.split(".")[1] ?? ""));
    const grants = claims["g"].map(readGrant).sort((a, b) => a.epoch - b.epoch);
    const callId = claims["sub"];
    if (grants.length === 0 || typeof callId !== "string") throw new NotATicket();
    return { callId, grants, attachBy: seconds(claims["attach_by"]), expires: seconds(claims["exp"]) };
  } catch {
    throw new NotATicket();
  }
}
function isOverWebRtc({ grants }) {
  return grants.every(({ url }) => url.startsWith("http"));
}
function readGrant(raw) {
  const { e: epoch, region, url } = raw;
  const usable = typeof url === "string" && /^(ws|http)s?:\/\/[^/?#@\s]+$/.test(url);
  if (!Number.isSafeInteger(epoch) || typeof region !== "string" || !usable) throw new NotATicket();
  return { epoch, region, url };
}
function seconds(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}
function fromBase64Url(text) {
  const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(binary, (c) => c.charCodeAt(0)));
}

// src/tickets.ts
var PAUSES_MS = [300, 500, 1e3, 2e3];
var Tickets = class {
  constructor(newest, asks) {
    this.newest = newest;
    this.asks = asks;
    const { callId, grants } = readTicket(newest);
    const [first] = grants;
    if (first === void 0) throw new NotATicket();
    this.callId = callId;
    this.first = first;
    for (const grant of grants) this.grants.set(grant.epoch, { grant, ticket: newest });
  }
  callId;
  first;
  grants = /* @__PURE__ */ new Map();
  refused = 0;
  /** Whether there is somebody to ask for another. */
  get renewable() {
    return this.asks !== void 0;
  }
  get epochs() {
    return [...this.grants.keys()];
  }
  get all() {
    return [...this.grants.values()].map(({ grant }) => grant);
  }
  has(epoch) {
    return this.grants.has(epoch);
  }
  of(epoch) {
    const found = this.grants.get(epoch);
    if (found === void 0) throw new RangeError(`no ticket of this call grants epoch ${epoch}`);
    return found;
  }
  /** The epochs that are new with it; none where it is no ticket of this call. */
  add(ticket) {
    try {
      const { callId, grants } = readTicket(ticket);
      const highest = Math.max(...this.grants.keys());
      const fresh = grants.filter(({ epoch }) => epoch > highest);
      if (callId !== this.callId || fresh.length === 0) return [];
      this.newest = ticket;
      this.refused = 0;
      for (const grant of fresh) this.grants.set(grant.epoch, { grant, ticket });
      return fresh.map(({ epoch }) => epoch);
    } catch {
      return [];
    }
  }
  /** Until it is asked for again. `draw`: from 0 to 1. */
  pauseMs(draw) {
    const pauseMs = PAUSES_MS[Math.min(this.refused, PAUSES_MS.length - 1)] ?? 0;
    this.refused += 1;
    return pauseMs * (1 - draw / 2);
  }
  /** The epochs of a new ticket; none where nobody gives one now. Throws `CallOver`. */
  async renew() {
    try {
      const ticket = await this.asks?.(this.callId, this.newest) ?? null;
      return ticket === null ? [] : this.add(ticket);
    } catch (error) {
      if (error instanceof CallOver) throw error;
      return [];
    }
  }
};

// src/voice.ts
var NO_SAMPLES = new Uint8Array();
var ALIVE_EVERY_MS = 400;
var UNSENT_MS_MAX = 1e3;
var Voice = class {
  constructor(world, standing, bytesPerMs, silence = null) {
    this.world = world;
    this.standing = standing;
    this.bytesPerMs = bytesPerMs;
    this.silence = silence;
  }
  owner = null;
  talking = false;
  hangingUp = false;
  sequence = 0;
  sentMs = 0;
  tell(message) {
    if (this.owner === null) return;
    this.sentMs = this.world.now();
    this.owner.tell(message);
  }
  /** In as many messages as it takes; in none where the owner hears a track. */
  audio(samples) {
    if (this.owner?.onTrack) return;
    const size = this.bytesPerMs * PIECE_MS_MAX;
    for (let i = 0; i < samples.byteLength; i += size) {
      if ((this.owner?.unsent ?? 0) > this.bytesPerMs * UNSENT_MS_MAX) return;
      this.sequence += 1;
      const { stamp, position: played } = this.standing;
      const piece = samples.subarray(i, i + size);
      const what = this.silence?.of(piece) ?? "sound";
      if (what === "left_out") continue;
      this.tell(writeAudio(what === "told" ? NO_SAMPLES : piece, { sequence: this.sequence, stamp, played }));
    }
  }
  /** Renews the lease with the newest stamp. */
  answer() {
    this.tell(this.standing.alive());
  }
  dtmf(digit) {
    this.tell(this.standing.dtmf(digit));
  }
  talk(on) {
    this.talking = on;
    this.tell(talk(on));
  }
  hangup() {
    this.hangingUp = true;
    this.tell(hangup());
  }
  /** What the caller wants still holds: a new owner is told. */
  again() {
    if (this.talking) this.tell(talk(true));
    if (this.hangingUp) this.tell(hangup());
  }
  /** Once nothing else was said for a while. */
  keepAlive(nowMs) {
    if (nowMs - this.sentMs > ALIVE_EVERY_MS) this.tell(this.standing.alive());
  }
};

// src/watch.ts
var PREPARE_AFTER_MS = 400;
var TAKE_AFTER_MS = 500;
var OWN_NETWORK_AFTER_MS = 1500;
var RETRY_AFTER_MS = [1e3, 1500, 2e3, 3e3];
var PREPARE_PATIENCE_MS = 1500;
var TAKE_PATIENCE_MS = 1500;
var GIVE_UP_AFTER_MS = 3e4;
var NOTHING = [];
var Watch = class {
  /** `draw`: a number from 0 to 1, another one each time. */
  constructor(epochs, epoch, nowMs, draw = () => 0) {
    this.draw = draw;
    this.epochs = inOrder(epochs);
    this.epoch = this.highestTried = epoch;
    this.heardMs = nowMs;
  }
  state = "attached";
  epoch;
  /** Why the last owner was left, whatever has become of the takes since. */
  leftFor = "closed";
  /** In the order in which they are tried: the newest ticket's first. */
  epochs;
  highestTried;
  heardMs;
  lostMs = 0;
  sentMs = 0;
  standby = null;
  standbyMs = 0;
  answered = false;
  passed = /* @__PURE__ */ new Set();
  retries = 0;
  retryMs = 0;
  asked = false;
  /** Whether an edge that says `attached` at `epoch` is the one that was asked for last. */
  accepts(epoch) {
    return this.state !== "over" && epoch >= this.highestTried;
  }
  /** Anything from the present owner. */
  heard(nowMs) {
    this.heardMs = nowMs;
    this.retries = 0;
    if (this.state !== "suspicious") return NOTHING;
    this.state = "attached";
    return this.letGo();
  }
  /** The standby has answered a prepare. */
  prepared(epoch, nowMs) {
    if (this.state === "suspicious" && epoch === this.standby) this.answered = true;
    return this.tick(nowMs);
  }
  /** The owner's socket has closed, and it did not say that the call ended; `refused`: it has not taken the call. */
  closed(nowMs, reason = "closed") {
    if (this.state === "taking" || this.state === "over") return NOTHING;
    if (this.state === "moving") {
      this.state = "taking";
      return NOTHING;
    }
    return this.take(reason, nowMs);
  }
  /** The owner asks to be left for `epoch`, whose edge is prepared. Nothing while the owner is in doubt. */
  planned(epoch, nowMs) {
    if (this.state !== "attached" || epoch <= this.highestTried || !this.epochs.includes(epoch)) return NOTHING;
    this.state = "moving";
    this.highestTried = epoch;
    this.sentMs = this.lostMs = nowMs;
    return [{ kind: "take", epoch, reason: "planned" }];
  }
  /** An edge has refused: it has not taken the call. Of a planned move the owner still has it. */
  declined(epoch, nowMs) {
    if (this.state === "moving" && epoch === this.highestTried) {
      this.state = "attached";
      this.highestTried = this.epoch;
      this.passed.add(epoch);
      return NOTHING;
    }
    return this.failed(epoch, nowMs);
  }
  /** An edge has said `attached`. */
  attached(epoch, nowMs) {
    if (!this.accepts(epoch)) return NOTHING;
    this.state = "attached";
    this.epoch = this.highestTried = epoch;
    this.heardMs = nowMs;
    this.retries = 0;
    this.asked = false;
    return this.letGo();
  }
  /** A standby refused, or its socket did not open, or closed. */
  failed(epoch, nowMs) {
    if (this.state === "suspicious" && epoch === this.standby) return this.prepareNext(nowMs);
    if ((this.state === "taking" || this.state === "moving") && epoch === this.highestTried) {
      this.state = "taking";
      return this.takeNext("refused", nowMs);
    }
    return NOTHING;
  }
  /** A new ticket has come. */
  granted(epochs, nowMs) {
    this.asked = false;
    const fresh = epochs.filter((epoch) => !this.epochs.includes(epoch));
    this.epochs = [...inOrder(fresh), ...this.epochs];
    return this.state === "taking" ? this.takeNext("refused", nowMs) : NOTHING;
  }
  /** The ticket could not be renewed now; it is asked for again until it is too late. */
  notGranted(nowMs) {
    this.asked = false;
    const late = this.tick(nowMs);
    return late.length > 0 || this.state !== "taking" ? late : this.takeNext("refused", nowMs);
  }
  over() {
    this.state = "over";
  }
  tick(nowMs) {
    const silentMs = nowMs - this.heardMs;
    if (this.state === "attached" && silentMs >= PREPARE_AFTER_MS) {
      this.state = "suspicious";
      return this.prepareNext(nowMs);
    }
    if (this.state === "suspicious") return this.suspect(silentMs, nowMs);
    if (this.state === "moving" && nowMs - this.sentMs >= TAKE_PATIENCE_MS) this.state = "taking";
    if (this.state === "taking") {
      if (nowMs - this.lostMs >= GIVE_UP_AFTER_MS) return this.giveUp();
      if (!this.asked && nowMs - this.sentMs >= TAKE_PATIENCE_MS) return this.takeNext("refused", nowMs);
    }
    return NOTHING;
  }
  /** 1. A standby has answered: take it. 2. Too late. 3. Own network: another round. 4. The standby keeps us waiting. */
  suspect(silentMs, nowMs) {
    if (silentMs >= TAKE_AFTER_MS && this.answered) return this.take("silent", nowMs);
    if (silentMs >= GIVE_UP_AFTER_MS) return this.giveUp();
    if (silentMs >= OWN_NETWORK_AFTER_MS && (this.retries === 0 || nowMs >= this.retryMs)) {
      const pauseMs = RETRY_AFTER_MS[Math.min(this.retries, RETRY_AFTER_MS.length - 1)] ?? 0;
      this.retryMs = nowMs + pauseMs * (1 - this.draw() / 4);
      this.retries += 1;
      const retry = { kind: "retry", epoch: this.epoch };
      if (this.standby !== null) return [retry];
      this.passed.clear();
      return [retry, ...this.prepareNext(nowMs)];
    }
    if (this.standby !== null && !this.answered && nowMs - this.standbyMs > PREPARE_PATIENCE_MS) {
      return [{ kind: "let_go", epoch: this.standby }, ...this.prepareNext(nowMs)];
    }
    return NOTHING;
  }
  giveUp() {
    this.state = "over";
    return [{ kind: "give_up" }];
  }
  prepareNext(nowMs) {
    if (this.standby !== null) this.passed.add(this.standby);
    this.standby = this.next();
    this.answered = false;
    this.standbyMs = nowMs;
    return this.standby === null ? NOTHING : [{ kind: "prepare", epoch: this.standby }];
  }
  take(reason, nowMs) {
    const ready2 = this.answered ? this.standby : null;
    this.state = "taking";
    this.leftFor = reason;
    this.lostMs = nowMs;
    this.standby = null;
    this.answered = false;
    if (ready2 === null) return this.takeNext(reason, nowMs);
    this.sentMs = nowMs;
    this.highestTried = ready2;
    return [{ kind: "take", epoch: ready2, reason }];
  }
  takeNext(reason, nowMs) {
    this.sentMs = nowMs;
    const following = this.next() ?? this.next({ passed: true });
    if (following === null) {
      if (this.asked) return NOTHING;
      this.asked = true;
      return [{ kind: "ask_ticket" }];
    }
    this.highestTried = following;
    return [{ kind: "take", epoch: following, reason }];
  }
  /** The next grant above everything tried; with `passed`, one that failed to prepare is better than none. */
  next({ passed = false } = {}) {
    return this.epochs.find((e) => e > this.highestTried && (passed || !this.passed.has(e))) ?? null;
  }
  letGo() {
    const standby = this.standby;
    this.standby = null;
    this.answered = false;
    this.passed.clear();
    return standby === null ? NOTHING : [{ kind: "let_go", epoch: standby }];
  }
};
function inOrder(epochs) {
  return [...new Set(epochs)].sort((a, b) => a - b);
}

// src/world.ts
var browser = {
  open: (url, protocol) => new WebSocket(url, protocol),
  now: () => performance.now(),
  later: (ms, work) => {
    const timer = setTimeout(work, ms);
    return () => clearTimeout(timer);
  },
  draw: Math.random
};

// src/caller.ts
var TICK_MS = 20;
var HANGUP_WITHIN_MS = 5e3;
var PRIMARY_WITHIN_MS = 3e3;
var BEGIN_WITHIN_MS = 1e4;
var BACKEND_UP = /* @__PURE__ */ new Set(["agent.connected", "call.reconnected"]);
var Caller = class {
  /** Throws `NotATicket`, `WrongWorld`. Nothing is opened before `begin`. */
  constructor(ticket, options = {}) {
    this.options = options;
    const world = this.world = options.world ?? browser;
    this.encoding = options.encoding ?? "pcm16";
    this.sampleRate = options.sampleRate ?? 16e3;
    this.bytesPerMs = this.sampleRate / 1e3 * (this.encoding === "pcm16" ? 2 : 1);
    this.begun = new Signal(world);
    this.ending = new Signal(world);
    this.tickets = new Tickets(ticket, options.renew);
    this.callId = this.tickets.callId;
    if (world === browser && this.tickets.first.url.startsWith("http")) throw new WrongWorld();
    this.gaps = this.hearing.gaps;
    this.onTrack = new OnTrack(world);
    this.standing = new Standing(options.played ?? (() => this.overTrack ? this.onTrack.position : this.received));
    this.silence = options.discardSilence ? new Silence(this.encoding, this.bytesPerMs) : null;
    this.voice = new Voice(world, this.standing, this.bytesPerMs, this.silence);
    this.links = new Links(world, { heard: (l, m) => this.heard(l, m), closed: (l) => this.closed(l) });
    this.watch = new Watch(this.tickets.epochs, this.tickets.first.epoch, 0, world.draw);
    this.moving = new Moving(world, this.tickets, this.links, {
      prepare: (epoch) => this.link(epoch, "prepare"),
      tell: (message) => this.voice.tell(message),
      go: (epoch) => this.carryOut(this.watch.planned(epoch, world.now()))
    });
  }
  callId;
  /** What each failover and move has cost. */
  gaps;
  endReason = null;
  /** The edges are not there any more. */
  lost = false;
  world;
  encoding;
  sampleRate;
  bytesPerMs;
  tickets;
  links;
  watch;
  moving;
  standing;
  silence;
  voice;
  hearing = new Hearing();
  standbys = /* @__PURE__ */ new Map();
  /** Attaches or resumes at the present epoch. */
  joining = null;
  received = NOWHERE;
  onTrack;
  beganMs = null;
  /** What the agent says comes on a track. */
  overTrack = false;
  watching = false;
  served = false;
  finished = false;
  refusal = null;
  said = "";
  begun;
  ending;
  /** Attaches. Rejects with `CallRefused` or `CallLost` where no edge takes the call. */
  async begin() {
    if (this.beganMs !== null) throw new Error("a caller begins once");
    this.beganMs = this.world.now();
    this.joining = this.link(this.watch.epoch, "attach");
    this.keep();
    await this.begun.within(BEGIN_WITHIN_MS);
    if (this.served) return;
    this.close();
    throw this.refusal ?? new CallLost();
  }
  get state() {
    return this.served || this.over ? this.watch.state : "joining";
  }
  get over() {
    return this.watch.state === "over";
  }
  get epoch() {
    return this.watch.epoch;
  }
  /** Where the call is now. */
  get grant() {
    return this.tickets.of(this.watch.epoch).grant;
  }
  /** Where it is, and where it may go. */
  get grants() {
    return this.tickets.all;
  }
  /** Audio to the agent, in pieces of any length, paced by you. Dropped while nobody takes it, as a network would. A call over
   * WebRTC has its audio on the track: then this is the clock alone. */
  send(samples) {
    this.tick();
    if (this.watch.state !== "taking") this.voice.audio(samples);
  }
  /** One of `0-9 * # A B C D`. */
  dtmf(digit) {
    if (!/^[0-9*#A-D]$/.test(digit)) throw new RangeError("a digit is one of 0-9 * # A B C D");
    this.voice.dtmf(digit);
  }
  /** The button of a call whose `turns.mode` is `push_to_talk`; an edge that takes the call over is told again. */
  talk(on) {
    this.voice.talk(on);
  }
  /** Ends the call and waits until the edge has said so; one that takes the call over meanwhile is told as well. */
  async hangup() {
    this.voice.hangup();
    await this.ending.within(HANGUP_WITHIN_MS);
    this.close();
  }
  /** Leaves without a word: the call goes on for a while, and ends by itself. */
  close() {
    this.finish();
    this.links.close();
  }
  // ------------------------------------------------------------------------------------------------ the watch
  /**
   * The clock of the watch, and the keep-alive. A timer calls it, and so does `send`: in a tab that is hidden timers run once a
   * second, while the microphone's frames go on.
   */
  tick() {
    if (this.over || this.beganMs === null) return;
    const nowMs = this.world.now();
    if (this.voice.owner?.onTrack) this.onTrack.look(this.voice.owner);
    if (!this.watching) {
      if (nowMs - this.beganMs > PRIMARY_WITHIN_MS) this.primaryFailed();
      return;
    }
    this.carryOut(this.watch.tick(nowMs));
    this.moving.tick(nowMs);
    if (this.watch.state !== "taking") this.voice.keepAlive(nowMs);
  }
  keep() {
    if (this.over) return;
    this.world.later(TICK_MS, () => this.keep());
    this.tick();
  }
  /** The first attach came to nothing: the first standby is as good a place to begin. */
  primaryFailed() {
    const joining = this.joining;
    this.joining = null;
    this.links.drop(joining);
    this.watching = true;
    this.carryOut(this.watch.closed(this.world.now(), joining?.refused ? "refused" : "closed"));
  }
  carryOut(actions) {
    for (const action of actions) {
      switch (action.kind) {
        case "prepare":
          this.standbys.set(action.epoch, this.link(action.epoch, "prepare"));
          break;
        case "take":
          this.take(action.epoch, action.reason);
          break;
        case "let_go":
          this.links.drop(this.withdrawn(action.epoch));
          break;
        case "retry":
          this.links.drop(this.joining);
          this.joining = this.link(action.epoch, "resume");
          break;
        case "ask_ticket":
          void this.askTicket();
          break;
        case "give_up":
          this.lose();
          break;
      }
    }
    this.tellChange();
  }
  take(epoch, reason) {
    this.hearing.lost(this.watch.epoch, reason, this.world.now());
    const planned = reason === "planned" ? this.moving.taken() : null;
    if (planned !== null) {
      this.standbys.set(epoch, planned);
      planned.tell(this.standing.take(reason));
      return;
    }
    this.moving.cancel();
    this.moving.letGo();
    const prepared = this.withdrawn(epoch);
    for (const link of [this.voice.owner, this.joining, ...this.standbys.values()]) this.links.drop(link);
    this.voice.owner = this.joining = null;
    this.standbys.clear();
    if (prepared?.prepared) {
      this.standbys.set(epoch, prepared);
      prepared.tell(this.standing.take(reason));
      return;
    }
    this.links.drop(prepared);
    this.standbys.set(epoch, this.link(epoch, "take", this.watch.leftFor));
  }
  withdrawn(epoch) {
    const link = this.standbys.get(epoch);
    this.standbys.delete(epoch);
    return link;
  }
  async askTicket() {
    if (this.refusal !== null && !this.served && !this.tickets.renewable) this.begun.set();
    let epochs;
    try {
      epochs = await this.tickets.renew();
    } catch (error) {
      if (!(error instanceof CallOver)) throw error;
      this.lose();
      return;
    }
    if (this.over) return;
    if (epochs.length > 0) {
      this.carryOut(this.watch.granted(epochs, this.world.now()));
      return;
    }
    this.world.later(this.tickets.pauseMs(this.world.draw()), () => {
      if (!this.over) this.carryOut(this.watch.notGranted(this.world.now()));
    });
  }
  // ---------------------------------------------------------------------------------------------- the sockets
  link(epoch, mode, reason = "closed") {
    const { grant, ticket } = this.tickets.of(epoch);
    const { encoding, sampleRate } = this;
    const dtx = this.silence !== null && !grant.url.startsWith("http");
    return this.links.open(
      grant.url,
      ticket,
      epoch,
      mode,
      () => this.standing.attach(ticket, epoch, mode, { encoding, sampleRate, reason, dtx })
    );
  }
  /** A socket has closed or never opened, or its edge has refused. */
  closed(link) {
    if (this.over) return;
    const nowMs = this.world.now();
    if (link === this.joining && !this.watching) {
      this.primaryFailed();
    } else if (link === this.joining) {
      this.joining = null;
      if (this.voice.owner === null) this.carryOut(this.watch.closed(nowMs));
    } else if (link === this.voice.owner) {
      this.voice.owner = null;
      if (this.joining === null) this.carryOut(this.watch.closed(nowMs));
    } else if (this.standbys.get(link.epoch) === link) {
      this.standbys.delete(link.epoch);
      this.standbyFailed(link, nowMs);
    } else if (link === this.moving.link) {
      this.moving.failed(link);
    } else if (this.moving.isLeft(link)) {
      this.moving.letGo();
    }
  }
  standbyFailed(link, nowMs) {
    const wasMoving = this.watch.state === "moving";
    const { watch, moving } = this;
    this.carryOut(link.refused === "" ? watch.failed(link.epoch, nowMs) : watch.declined(link.epoch, nowMs));
    if (wasMoving && this.watch.state === "attached") {
      this.hearing.stayed();
      moving.answer(link.epoch, link.refused);
    }
  }
  heard(link, raw) {
    if (typeof raw !== "string") {
      const audio = readAudio(raw, this.silence?.samples);
      if (audio !== null) this.audio(link, audio);
      return;
    }
    const message = readMessage(raw);
    if (message === null) return;
    switch (message.type) {
      case "refused":
        this.wasRefused(link, message);
        return;
      case "prepared":
        link.prepared = true;
        if (link === this.moving.link) this.moving.prepared(link);
        else this.carryOut(this.watch.prepared(link.epoch, this.world.now()));
        return;
      case "attached":
        this.nowOwnedBy(link);
    }
    if (link === this.voice.owner) this.heardOwner(link, message);
    else if (message.type === "tick" && said(message.at) && this.moving.isLeft(link)) this.leftSpoke(link);
  }
  heardOwner(link, message) {
    this.carryOut(this.watch.heard(this.world.now()));
    this.standing.heard(message);
    switch (message.type) {
      case "tick":
        if (link.onTrack) this.besideTrack(link, message.at);
        break;
      case "clear":
        if (link.onTrack && said(message.at)) this.onTrack.stopped(message.at);
        this.options.clear?.(message.at);
        break;
      case "notice":
        if (BACKEND_UP.has(message.event)) this.moving.backendUp();
        this.options.notice?.({ event: message.event, at_ms: message.at_ms, data: message.data });
        break;
      case "ticket":
        this.carryOut(this.watch.granted(this.tickets.add(message.ticket), this.world.now()));
        break;
      case "move":
      case "go":
        this.moving.asked(message);
        break;
      case "ended":
        this.endReason = message.end_reason;
        this.links.drop(link);
        this.close();
        break;
    }
  }
  /**
   * A full or restarted primary names the next, and a standby's refusal leaves the others; a bad ticket is bad everywhere. An
   * owner that refuses a resume has answered: it is not the caller's own network. That the call has ended is believed.
   */
  wasRefused(link, refused) {
    this.refusal = new CallRefused(refused.code, refused.detail, refused.fix);
    link.refused = refused.code;
    this.links.drop(link);
    if (refused.code === "ended" && this.begun.done) {
      this.close();
      return;
    }
    if (link.mode === "attach" && !this.begun.done && refused.next_url === null) {
      this.begun.set();
      return;
    }
    if (link === this.joining && link.mode === "resume" && this.watch.state === "suspicious") {
      this.links.drop(this.voice.owner);
      this.voice.owner = null;
    }
    this.closed(link);
  }
  nowOwnedBy(link) {
    const nowMs = this.world.now();
    if (!this.watch.accepts(link.epoch)) {
      this.links.drop(link);
      return;
    }
    this.standbys.delete(link.epoch);
    if (link === this.joining) this.joining = null;
    const old = this.voice.owner;
    this.voice.owner = link;
    if (old !== null && old !== link) {
      if (this.watch.state === "moving") this.moving.leave(old, link.epoch, nowMs);
      else this.links.drop(old);
    }
    this.watching = this.served = true;
    this.carryOut(this.watch.attached(link.epoch, nowMs));
    this.hearing.attached(link.epoch, nowMs);
    this.begun.set();
    this.voice.again();
  }
  audio(link, audio) {
    const nowMs = this.world.now();
    const frame = { ...audio, epoch: link.epoch, atMs: nowMs };
    if (link !== this.voice.owner) {
      if (this.moving.isLeft(link) && !audio.filler && this.moving.oldSpoke(nowMs)) this.spoken(frame);
      return;
    }
    this.carryOut(this.watch.heard(nowMs));
    this.standing.stamp = audio.stamp;
    if (audio.filler) {
      this.options.audio?.(frame);
      return;
    }
    this.moving.newSpoke();
    const lengthMs = audio.samples.byteLength / this.bytesPerMs;
    this.received = { utterance: audio.utterance, offset_ms: audio.offset_ms + lengthMs };
    this.spoken(frame);
  }
  /** A tick beside the audio of a track: what it was that was sent, and to be answered. */
  besideTrack(link, at) {
    this.overTrack = true;
    if (said(at)) this.onTrack.tick(link, at);
    else this.onTrack.paused();
    this.voice.answer();
    if (!said(at)) return;
    this.moving.newSpoke();
    const gap = this.hearing.audio(link.epoch, this.world.now());
    if (gap !== null) this.options.gap?.(gap);
  }
  leftSpoke(link) {
    const nowMs = this.world.now();
    if (this.moving.oldSpoke(nowMs)) this.hearing.audio(link.epoch, nowMs);
  }
  spoken(frame) {
    const gap = this.hearing.audio(frame.epoch, frame.atMs);
    this.options.audio?.(frame);
    if (gap !== null) this.options.gap?.(gap);
  }
  tellChange() {
    const now = `${this.state} ${this.epoch} ${this.grants.length}`;
    if (now === this.said) return;
    this.said = now;
    this.options.changed?.();
  }
  lose() {
    this.lost = true;
    this.close();
  }
  finish() {
    if (this.finished) return;
    this.finished = true;
    this.watch.over();
    this.begun.set();
    this.ending.set();
    this.tellChange();
    this.options.ended?.(this.endReason);
  }
};
function said(at) {
  return at !== null && at.utterance > 0;
}

// src/probing.ts
var PROBE_PROTOCOL = "voxplane.probe.v1";
var BUDGET_MS = 300;
var CONNECT_MS = 2e3;
var SAMPLES = 8;
var SAMPLES_FAR = 3;
var PROMISING = 3;
var AT_ONCE = 3;
var SPACING_MS = 12;
var FIRST_MAX = 4;
var REGIONS_MAX = 32;
var EDGES_MAX = 2;
var LATE = 3;
async function probeRegions(regions, options = {}) {
  const world = options.world ?? browser;
  const race = new Race(world, Math.max(1, options.samples ?? SAMPLES));
  const runs = chosen(regions, options.first).map((region) => race.run(region));
  if (runs.length > 0) {
    await new Promise((resolve) => {
      const tooLate = world.later(options.connectMs ?? CONNECT_MS, resolve);
      race.opened = () => {
        race.opened = () => void 0;
        tooLate();
        world.later(options.budgetMs ?? BUDGET_MS, resolve);
      };
      void Promise.all(runs).then(() => resolve());
    });
  }
  race.stop();
  return race.measured((/* @__PURE__ */ new Date()).toISOString());
}
function chosen(regions, first) {
  const byId = new Map(regions.filter(({ probes }) => probes.length > 0).map((region) => [region.id, region]));
  if (first === void 0) return [...byId.values()].slice(0, REGIONS_MAX);
  return [...new Set(first)].flatMap((id) => byId.get(id) ?? []).slice(0, FIRST_MAX);
}
var Samples = class {
  rttsMs = [];
  outMs = /* @__PURE__ */ new Map();
  get leastMs() {
    return Math.min(...this.rttsMs);
  }
  /** Share that did not come back; what may still come back is neither. */
  loss(nowMs) {
    const late = [...this.outMs.values()].filter((sentMs) => nowMs - sentMs > LATE * this.leastMs).length;
    return late / (this.rttsMs.length + late);
  }
};
var Race = class {
  constructor(world, samples) {
    this.world = world;
    this.samples = samples;
  }
  opened = () => void 0;
  found = /* @__PURE__ */ new Map();
  exchanges = /* @__PURE__ */ new Set();
  stopped = false;
  async run(region) {
    const into = new Samples();
    this.found.set(region.id, into);
    for (const { ws } of region.probes.slice(0, EDGES_MAX)) {
      if (this.stopped) return;
      const exchange = new Exchange(this, into);
      this.exchanges.add(exchange);
      await exchange.run(ws);
      if (into.rttsMs.length > 0) return;
      into.outMs.clear();
    }
  }
  stop() {
    this.stopped = true;
    for (const exchange of this.exchanges) exchange.stop();
  }
  /** Among the `PROMISING` least of those that have answered so far. */
  isPromising(mine) {
    const nearer = [...this.found.values()].filter((s) => s !== mine && s.leastMs < mine.leastMs);
    return nearer.length < PROMISING;
  }
  measured(at) {
    const nowMs = this.world.now();
    const answered = [...this.found].filter(([, { rttsMs }]) => rttsMs.length > 0);
    const latencies = answered.map(([region, samples]) => ({
      region,
      rtt_ms: rounded(samples.leastMs, 2),
      jitter_ms: rounded(Math.max(...samples.rttsMs) - samples.leastMs, 2),
      loss: rounded(samples.loss(nowMs), 3),
      at
    }));
    return latencies.sort((a, b) => a.rtt_ms - b.rtt_ms);
  }
};
var Exchange = class {
  constructor(race, into) {
    this.race = race;
    this.into = into;
  }
  socket = null;
  sent = 0;
  wanted = 1;
  waiting = /* @__PURE__ */ new Set();
  done = () => void 0;
  /** Until it has enough, the socket is gone, or it is stopped. */
  run(url) {
    return new Promise((resolve) => {
      this.done = resolve;
      try {
        this.socket = this.race.world.open(url, PROBE_PROTOCOL);
      } catch {
        resolve();
        return;
      }
      this.socket.onopen = () => {
        this.race.opened();
        this.send("");
      };
      this.socket.onmessage = ({ data }) => this.echoed(String(data));
      this.socket.onclose = this.socket.onerror = () => this.stop();
    });
  }
  stop() {
    for (const forget of this.waiting) forget();
    this.waiting.clear();
    const socket = this.socket;
    this.socket = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close();
    }
    this.done();
  }
  echoed(echo) {
    const { race, into } = this;
    const [number = "", nonce = ""] = echo.split(" ");
    const sentMs = into.outMs.get(number);
    if (sentMs === void 0) return;
    into.outMs.delete(number);
    into.rttsMs.push(race.world.now() - sentMs);
    const near = race.isPromising(into);
    this.wanted = Math.max(this.wanted, near ? race.samples : Math.min(SAMPLES_FAR, race.samples));
    if (this.sent < this.wanted) this.send(nonce);
    else if (nonce !== "") this.socket?.send(`z ${nonce}`);
    const beside = near ? Math.min(AT_ONCE - into.outMs.size, this.wanted - this.sent) : 0;
    for (let i = 0; i < beside; i += 1) this.sendLater((i + 1) * SPACING_MS);
    if (into.outMs.size === 0) this.stop();
  }
  send(nonce) {
    const number = String(this.sent++);
    this.into.outMs.set(number, this.race.world.now());
    this.socket?.send(nonce === "" ? number : `${number} ${nonce}`);
  }
  /** It is counted as out from the beginning, so that nobody leaves before it. */
  sendLater(afterMs) {
    const number = String(this.sent++);
    this.into.outMs.set(number, this.race.world.now() + afterMs);
    const forget = this.race.world.later(afterMs, () => {
      this.waiting.delete(forget);
      this.into.outMs.set(number, this.race.world.now());
      this.socket?.send(number);
    });
    this.waiting.add(forget);
  }
};
function rounded(value, digits) {
  return Number(value.toFixed(digits));
}

// src/audio/protocol.ts
var CAPTURE = "voxplane-capture";
var PLAYOUT = "voxplane-playout";
var LISTEN = "voxplane-listen";
function standsAt({ position: position2, bufferedMs, playing, atS }, nowS, heldMs) {
  const sinceMs = playing ? Math.min(bufferedMs, Math.max(0, (nowS - atS) * 1e3)) : 0;
  return { utterance: position2.utterance, offset_ms: Math.max(0, position2.offset_ms + sinceMs - heldMs) };
}

// src/audio/microphone.ts
var Microphone = class _Microphone {
  constructor(stream, source, node) {
    this.stream = stream;
    this.source = source;
    this.node = node;
  }
  /**
   * Asks for the microphone; `heard` gets every frame from then on. The context has the worklet (`loadWorklet`). Rejects with the
   * browser's `NotAllowedError` or `NotFoundError`; where the page is no secure context there are no microphones at all.
   */
  static async open(context, { rateHz, heard }) {
    const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    const source = context.createMediaStreamSource(stream);
    const node = new AudioWorkletNode(context, CAPTURE, {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
      processorOptions: { rateHz }
    });
    node.port.onmessage = ({ data }) => heard(data);
    source.connect(node);
    return new _Microphone(stream, source, node);
  }
  /** For a call over WebRTC. */
  get track() {
    const [track] = this.stream.getAudioTracks();
    if (track === void 0) throw new Error("a microphone has a track");
    return track;
  }
  /** Frames go on while it is muted: of silence. */
  get muted() {
    return this.stream.getAudioTracks().every(({ enabled }) => !enabled);
  }
  set muted(muted) {
    for (const track of this.stream.getAudioTracks()) track.enabled = !muted;
  }
  close() {
    this.node.port.onmessage = null;
    this.source.disconnect();
    for (const track of this.stream.getTracks()) track.stop();
  }
};

// src/audio/speaker.ts
var Speaker = class {
  constructor(context, { rateHz, joined, level }) {
    this.context = context;
    this.node = new AudioWorkletNode(context, PLAYOUT, {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { rateHz }
    });
    this.node.port.onmessage = ({ data }) => {
      if (data.kind === "joined") {
        joined?.(data.joined);
        return;
      }
      this.said = data.said;
      level?.(data.peak);
    };
    this.node.connect(context.destination);
  }
  said = { position: NOWHERE, bufferedMs: 0, playing: false, atS: 0 };
  node;
  /** What has left the loudspeaker: what was given to the device, less what the device still holds. */
  get position() {
    const heldMs = (this.context.outputLatency || this.context.baseLatency || 0) * 1e3;
    return standsAt(this.said, this.context.currentTime, heldMs);
  }
  play({ samples, utterance, offset_ms, epoch, filler }) {
    const bytes = samples.slice(0, samples.byteLength & ~1);
    const frame = { samples: new Int16Array(bytes.buffer), utterance, offset_ms, epoch, filler };
    this.tell({ kind: "frame", frame }, [bytes.buffer]);
  }
  /** Samples that wait to be played, as of the last word of the audio thread. */
  get bufferedMs() {
    return this.said.bufferedMs;
  }
  /** What is buffered is not heard any more. */
  clear() {
    this.said = { ...this.said, playing: false };
    this.tell({ kind: "clear" });
  }
  close() {
    this.node.port.onmessage = null;
    this.node.disconnect();
  }
  tell(message, transfer = []) {
    this.node.port.postMessage(message, transfer);
  }
};

// src/audio/splice.ts
var Splice = class {
  /** The newest owner that has been heard; null before any. */
  epoch = null;
  untilS = 0;
  /** There was sound in the track of `epoch`. What it joins, where it is the first of a newer owner. */
  sound(epoch, fromS, untilS) {
    const before = this.epoch;
    if (before !== null && epoch < before) return null;
    const silentMs = Math.max(0, (fromS - this.untilS) * 1e3);
    this.epoch = epoch;
    this.untilS = untilS;
    return before === null || before === epoch ? null : { fromEpoch: before, toEpoch: epoch, silentMs };
  }
};

// src/audio/track_speaker.ts
var TrackSpeaker = class {
  constructor(context, ears = {}) {
    this.context = context;
    this.ears = ears;
  }
  splice = new Splice();
  playing = /* @__PURE__ */ new Set();
  /** Of the edge that owns the call at `epoch`, or may. */
  add(track, epoch) {
    const stream = new MediaStream([track]);
    const element2 = new Audio();
    element2.muted = true;
    element2.srcObject = stream;
    element2.play().catch(() => void 0);
    const source = this.context.createMediaStreamSource(stream);
    const node = new AudioWorkletNode(this.context, LISTEN, { outputChannelCount: [1] });
    const one = {
      epoch,
      track,
      stop: () => {
        node.port.onmessage = null;
        source.disconnect();
        node.disconnect();
        element2.srcObject = null;
        this.playing.delete(one);
      }
    };
    node.port.onmessage = ({ data }) => this.heard(epoch, data);
    source.connect(node).connect(this.context.destination);
    this.playing.add(one);
  }
  close() {
    for (const one of [...this.playing]) one.stop();
  }
  heard(epoch, { peak, sound }) {
    if (sound !== null) {
      const joined = this.splice.sound(epoch, sound.fromS, sound.untilS);
      if (joined !== null) {
        for (const one of [...this.playing]) if (one.epoch < epoch) one.stop();
        this.ears.joined?.(joined);
      }
    }
    if (epoch === this.splice.epoch || this.splice.epoch === null) this.ears.level?.(peak);
  }
};

// src/audio/index.ts
async function loadWorklet(context) {
  await context.audioWorklet.addModule(new URL("./worklet.js", import.meta.url));
}

// src/rtc/socket.ts
var page = {
  peer: (configuration) => new RTCPeerConnection(configuration),
  fetch: (url, init) => fetch(url, init)
};
var RtcSocket = class {
  constructor(url, protocol, { ticket, epoch }, { microphone, track, iceServers = [] }, ports = page) {
    this.url = url;
    this.ports = ports;
    const pc = this.pc = ports.peer({ iceServers, bundlePolicy: "max-bundle" });
    this.channel = pc.createDataChannel(protocol);
    this.channel.onopen = (event) => this.onopen?.(event);
    this.channel.onmessage = (event) => this.onmessage?.(event);
    this.channel.onclose = () => this.end();
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === "failed" || pc.connectionState === "closed") this.end();
    };
    pc.ontrack = (event) => track(event.track, epoch);
    pc.onicecandidate = ({ candidate }) => {
      if (candidate !== null && candidate.candidate !== "") this.candidates.push(candidate);
      void this.trickle();
    };
    pc.addTransceiver(microphone, { direction: "sendrecv" });
    this.offer(ticket).catch(() => this.end());
  }
  binaryType = "arraybuffer";
  onTrack = true;
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  pc;
  channel;
  candidates = [];
  session = null;
  over = false;
  get bufferedAmount() {
    return this.channel.bufferedAmount;
  }
  send(data) {
    if (typeof data === "string" && this.channel.readyState === "open") this.channel.send(data);
  }
  async packets() {
    let count = null;
    for (const report of (await this.pc.getStats()).values()) {
      if (report["type"] === "inbound-rtp" && report["kind"] === "audio") count = report["packetsReceived"];
    }
    return count;
  }
  /** Leaves without a word: to hang up is a message. */
  close() {
    if (this.over) return;
    this.over = true;
    this.pc.close();
  }
  async offer(ticket) {
    await this.pc.setLocalDescription();
    const answer = await this.ports.fetch(this.url, {
      method: "POST",
      headers: { Authorization: `Bearer ${ticket}`, "Content-Type": "application/sdp" },
      body: this.pc.localDescription?.sdp ?? "",
      credentials: "omit"
    });
    if (this.over) return;
    if (answer.status !== 201) {
      await this.refused(answer);
      return;
    }
    const location2 = answer.headers.get("Location");
    this.session = location2 === null ? null : new URL(location2, this.url);
    const sdp = await answer.text();
    if (this.over) return;
    await this.pc.setRemoteDescription({ type: "answer", sdp });
    await this.trickle();
  }
  /** An edge that is full, or speaks no WebRTC, says nothing about the others. */
  async refused(answer) {
    const problem = await answer.json().catch(() => ({}));
    const { code = `http_${answer.status}`, detail = "the edge does not take the offer", fix = "" } = problem;
    const next_url = answer.status >= 500 || code === "wrong_edge" ? this.url : null;
    if (!this.over) this.onmessage?.({ data: JSON.stringify({ type: "refused", code, detail, fix, next_url }) });
    this.end();
  }
  /** Sends what has been found since; once the session has a name. */
  async trickle() {
    const found = this.session === null ? [] : this.candidates.splice(0);
    const [first] = found;
    if (this.session === null || first === void 0 || this.over) return;
    const lines = [
      ...first.usernameFragment === null ? [] : [`a=ice-ufrag:${first.usernameFragment}`],
      "m=audio 9 UDP/TLS/RTP/SAVPF 0",
      `a=mid:${first.sdpMid ?? "0"}`,
      ...found.map(({ candidate }) => `a=${candidate}`)
    ];
    const headers = { "Content-Type": "application/trickle-ice-sdpfrag" };
    const body = lines.map((line) => `${line}\r
`).join("");
    await this.ports.fetch(this.session.href, { method: "PATCH", headers, body, credentials: "omit" }).catch(() => void 0);
  }
  end() {
    if (this.over) return;
    this.close();
    this.onclose?.({});
  }
};

// src/rtc/index.ts
function overWebRtc(options, ports) {
  return {
    ...browser,
    open: (url, protocol, opening) => {
      if (!/^https?:/.test(url) || opening === void 0) return browser.open(url, protocol);
      return new RtcSocket(url, protocol, opening, options, ports);
    }
  };
}

// page/sound.ts
var RATE_HZ = 16e3;
async function openSound(context, overTracks, ears) {
  await context.resume();
  await loadWorklet(context);
  const heard = ({ samples, peak }) => ears.said(new Uint8Array(samples.buffer), peak);
  const microphone = await Microphone.open(context, { rateHz: RATE_HZ, heard });
  return overTracks ? tracks(context, microphone, ears) : frames(context, microphone, ears);
}
function frames(context, microphone, ears) {
  const speaker = new Speaker(context, { rateHz: RATE_HZ, ...ears });
  const options = {
    sampleRate: RATE_HZ,
    played: () => speaker.position,
    audio: (frame) => speaker.play(frame),
    clear: () => speaker.clear()
  };
  return {
    microphone,
    options,
    get bufferedMs() {
      return speaker.bufferedMs;
    },
    close: () => closeAll(microphone, speaker)
  };
}
function tracks(context, microphone, ears) {
  const speaker = new TrackSpeaker(context, ears);
  const world = overWebRtc({ microphone: microphone.track, track: (track, epoch) => speaker.add(track, epoch) });
  return { microphone, options: { world }, bufferedMs: null, close: () => closeAll(microphone, speaker) };
}
function closeAll(...parts) {
  for (const part of parts) part.close();
}

// page/trouble.ts
function trouble(place, grants) {
  if (!place.secure) {
    return "Browsers give a microphone only to pages from https://, or from localhost and 127.0.0.1. Open this page so.";
  }
  const barred = place.https ? grants.filter(({ url }) => /^(ws|http):/.test(url) && !isLoopback(url)) : [];
  if (barred.length > 0) {
    return `A page from https:// may not open ${barred[0]?.url ?? ""}: give the edges wss:// and https:// addresses (VOXPLANE_PUBLIC_MEDIA_URL, VOXPLANE_PUBLIC_HTTP_URL).`;
  }
  return null;
}
function microphoneTrouble(error) {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError") return "The microphone was not allowed: allow it for this page in the browser, and try again.";
  if (name === "NotFoundError") return "There is no microphone: plug one in, and try again.";
  if (name === "NotReadableError") return "The microphone is in use by another program.";
  return null;
}
function isLoopback(url) {
  const host = new URL(url).hostname;
  return host === "localhost" || host.endsWith(".localhost") || host === "[::1]" || /^127(\.\d+){3}$/.test(host);
}
function ticketIn(fragment) {
  return new URLSearchParams(fragment.replace(/^#/, "")).get("ticket");
}

// page/view.ts
var LINES_MAX = 200;
var STATES = {
  joining: "Connecting",
  attached: "Connected",
  suspicious: "The edge is silent, a standby is being prepared",
  taking: "Going on at a standby",
  moving: "Being moved to another edge",
  over: "The call is over"
};
function element(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no ${id}`);
  return found;
}
function show(id, text, data = {}) {
  const place = element(id);
  if (place.textContent !== text) place.textContent = text;
  Object.assign(place.dataset, data);
}
function showState(state, text) {
  show("status", text ?? (state === "idle" ? "Ready" : STATES[state]), { state });
}
function showProblem(text) {
  const place = element("problem");
  place.textContent = text;
  place.hidden = text === "";
}
function showLevel(id, peak) {
  element(id).value = peak;
}
function say(text) {
  const log = element("said");
  const line = document.createElement("li");
  const time = document.createElement("time");
  const now = /* @__PURE__ */ new Date();
  time.dateTime = now.toISOString();
  time.textContent = now.toLocaleTimeString();
  line.append(time, text);
  log.append(line);
  while (log.childElementCount > LINES_MAX) log.firstElementChild?.remove();
  log.scrollTop = log.scrollHeight;
}
function gapText(reason) {
  switch (reason) {
    case "closed":
      return "edge lost";
    case "silent":
      return "edge silent";
    case "planned":
      return "planned move";
    default:
      return "edge refused";
  }
}
function noticeText(event, data) {
  const { text, role } = typeof data === "object" && data !== null ? data : {};
  if (typeof text === "string" && text !== "") return `${role === "caller" ? "You" : "Bot"}: ${text}`;
  switch (event) {
    case "call.reconnecting":
      return "The bot is away; waiting for it";
    case "agent.connected":
      return "The bot is connected";
    case "call.reconnected":
      return "Audio flows again";
    default:
      return null;
  }
}

// page/talk.ts
var PROBE_EVERY_MS = 5e3;
var PROBE_SAMPLES = 4;
var NO_CALL = "–";
var talk2 = element("talk");
var hangUp = element("hangup");
var Talk = class {
  constructor(ticket) {
    this.ticket = ticket;
  }
  sound = null;
  caller = null;
  context = new AudioContext({ latencyHint: "interactive" });
  timer;
  region = "";
  live = false;
  /** Rejects with what the microphone or the edges say. */
  async begin() {
    try {
      this.sound = await openSound(this.context, isOverWebRtc(readTicket(this.ticket)), {
        joined: (what) => this.joined(what),
        level: (peak) => {
          showLevel("theirs", peak);
          this.showBuffered();
        },
        said: (samples, peak) => {
          this.caller?.send(samples);
          showLevel("mine", peak);
        }
      });
      this.caller = this.callerWith(this.sound);
      await this.caller.begin();
      this.live = true;
    } catch (error) {
      this.close();
      throw error;
    }
    this.timer = setInterval(() => void this.measure(), PROBE_EVERY_MS);
    void this.measure();
  }
  callerWith({ options }) {
    return new Caller(this.ticket, {
      ...options,
      notice: ({ event, data }) => {
        const text = noticeText(event, data);
        if (text !== null) say(text);
      },
      changed: () => this.changed(),
      gap: ({ audioMs }) => show("gap", element("gap").textContent ?? "", { arrivalMs: String(Math.round(audioMs ?? -1)) }),
      ended: (reason) => this.ended(reason)
    });
  }
  get muted() {
    return this.sound?.microphone.muted ?? false;
  }
  mute(muted) {
    if (this.sound !== null) this.sound.microphone.muted = muted;
  }
  press(digit) {
    this.caller?.dtmf(digit);
    say(`Key ${digit}`);
  }
  async hangUp() {
    await this.caller?.hangup();
  }
  showBuffered() {
    const ms = this.sound?.bufferedMs ?? null;
    show("buffered", ms === null ? "by the browser" : `${Math.round(ms / 10) * 10} ms`);
  }
  changed() {
    if (this.caller === null) return;
    const { state, epoch, grant, grants } = this.caller;
    showState(state);
    show("epoch", String(epoch));
    show("region", grant.region);
    show("standbys", grants.filter((g) => g.epoch > epoch).map((g) => g.region).join(", ") || "none");
    if (state === "attached" && grant.region !== this.region) {
      if (this.region !== "") say(`The call went from ${this.region} to ${grant.region}`);
      this.region = grant.region;
      void this.measure();
    }
  }
  /** What was heard, or rather was not: the silence in the loudspeaker between the old edge's audio and the new one's. */
  joined({ silentMs }) {
    const gap = this.caller?.gaps.at(-1);
    const why = gapText(gap?.reason ?? "");
    show("gap", `${Math.round(silentMs)} ms, ${why}`, { heardMs: silentMs.toFixed(1), reason: gap?.reason ?? "" });
    say(`Gap of ${Math.round(silentMs)} ms (${why})`);
  }
  async measure() {
    const caller = this.caller;
    if (caller === null) return;
    const { region, url } = caller.grant;
    if (url.startsWith("http")) return;
    const [found] = await probeRegions([{ id: region, probes: [{ ws: `${url}/probe` }] }], { samples: PROBE_SAMPLES });
    if (found !== void 0 && !caller.over) show("rtt", `${found.rtt_ms.toFixed(1)} ms`, { ms: String(found.rtt_ms) });
  }
  ended(reason) {
    if (!this.live) return;
    this.live = false;
    this.close();
    if (reason === null && this.caller?.lost) showProblem("No edge of this call answers any more.");
    say(reason === null ? "The call was left" : `The call is over: ${reason}`);
    begun(null);
  }
  close() {
    clearInterval(this.timer);
    this.caller?.close();
    this.sound?.close();
    void this.context.close().catch(() => void 0);
    showLevel("mine", 0);
    showLevel("theirs", 0);
  }
};
var call = null;
function begun(now) {
  call = now;
  hangUp.disabled = now === null;
  talk2.disabled = now === null;
  showMuted();
}
function showMuted() {
  const muted = call?.muted ?? false;
  talk2.textContent = call === null ? "Talk" : muted ? "Unmute" : "Mute";
  if (call === null) talk2.removeAttribute("aria-pressed");
  else talk2.setAttribute("aria-pressed", String(muted));
}
async function begin(ticket) {
  talk2.disabled = true;
  showProblem("");
  showState("joining", "Waiting for the microphone");
  try {
    const next = new Talk(ticket);
    await next.begin();
    begun(next);
    say("Connected");
  } catch (error) {
    showProblem(microphoneTrouble(error) ?? (error instanceof Error ? error.message : String(error)));
    showState("idle", "Not connected");
    talk2.disabled = false;
  }
}
function toggleMute() {
  call?.mute(!call.muted);
  showMuted();
}
function use(ticket) {
  history.replaceState(null, "", location.pathname);
  try {
    const claims = readTicket(ticket);
    const { callId, grants } = claims;
    const why = trouble({ secure: isSecureContext, https: location.protocol === "https:" }, grants);
    if (why !== null) {
      showProblem(why);
      return;
    }
    show("call", callId);
    show("way", isOverWebRtc(claims) ? "WebRTC (Opus)" : "WebSocket (PCM)");
    showProblem("");
    element("paste").hidden = true;
    showState("idle", "Ready: press Talk");
    talk2.disabled = false;
    talk2.onclick = () => call === null ? void begin(ticket) : toggleMute();
    talk2.focus();
  } catch (error) {
    showProblem(error instanceof NotATicket ? error.message : String(error));
    ask();
  }
}
function ask() {
  const form = element("paste");
  form.hidden = false;
  showState("idle", "Which call?");
  form.onsubmit = (event) => {
    event.preventDefault();
    use(element("ticket").value.trim());
  };
}
hangUp.onclick = () => void call?.hangUp();
document.addEventListener("keydown", (event) => {
  if (call === null || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (event.target instanceof HTMLInputElement) return;
  if (event.key === "m" || event.key === "M") toggleMute();
  else if (/^[0-9*#]$/.test(event.key)) call.press(event.key);
});
function look() {
  const given = ticketIn(location.hash);
  if (given !== null) use(given);
  else if (element("call").textContent === NO_CALL) ask();
}
addEventListener("hashchange", () => {
  if (call === null) look();
});
look();
