/**
 * `voxplane.media.v1` as a caller speaks it: control is JSON text, audio binary with a header of 20 bytes in network byte order.
 * What an edge sends is never trusted to be well formed: it is read to something, or to null. See docs/reference/media.md.
 */

export const SUBPROTOCOL = "voxplane.media.v1";
export const MEDIA_PATH = "/v1/media";
export const WEBRTC_PATH = "/v1/webrtc";
export const HEADER_BYTES = 20;
/** The longest audio that one binary message may carry. */
export const PIECE_MS_MAX = 200;
const AUDIO = 1;
const FLAG_FILLER = 0x01;
const FLAG_SILENCE = 0x02;
const OFFSET_MAX = 0xffff_ffff;

export type Encoding = "pcm16" | "mulaw";
export type SampleRate = 8_000 | 16_000 | 24_000 | 48_000;
export type Mode = "attach" | "prepare" | "take" | "resume";

/** Agent utterance (0: none) and milliseconds from its start. */
export interface Position {
  readonly utterance: number;
  readonly offset_ms: number;
}

export const NOWHERE: Position = { utterance: 0, offset_ms: 0 };

export type FromEdge =
  | { type: "prepared"; epoch: number; stamp: number }
  | { type: "attached"; epoch: number; stamp: number; region: string; resumed: boolean }
  /** `at`: over WebRTC, what of the agent's audio was sent last on the track. */
  | { type: "tick"; stamp: number; at: Position | null }
  | { type: "clear"; stamp: number; at: Position }
  | { type: "snapshot"; epoch: number; n: number; sealed: string }
  | { type: "acked"; epoch: number; n: number }
  | { type: "notice"; event: string; at_ms: number; data: unknown }
  | { type: "ticket"; ticket: string }
  | { type: "move"; epoch: number; within_ms: number }
  | { type: "go"; epoch: number }
  | { type: "ended"; end_reason: string }
  | { type: "refused"; code: string; detail: string; fix: string; next_url: string | null; next_epoch: number | null };

/** Audio from an edge. `filler`: nothing of the agent's is in it; it is played all the same. */
export interface Audio {
  readonly stamp: number;
  readonly utterance: number;
  readonly offset_ms: number;
  readonly samples: Uint8Array;
  readonly filler: boolean;
}

type Raw = Record<string, unknown>;

/** A message of this protocol, or null. Unknown fields are left out. */
export function readMessage(text: string): FromEdge | null {
  let raw: Raw;
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed !== "object" || parsed === null) return null;
    raw = parsed as Raw;
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
      return whole(stamp) ? { type, stamp, at: raw["at"] === undefined ? null : position(raw["at"]) } : null;
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

function refusal(code: string, raw: Raw): FromEdge {
  const { next_url, next_epoch } = raw;
  return {
    type: "refused",
    code,
    detail: text_(raw["detail"]),
    fix: text_(raw["fix"]),
    next_url: typeof next_url === "string" ? next_url : null,
    next_epoch: whole(next_epoch) ? next_epoch : null,
  };
}

/**
 * Null for what is not audio, and for a stamp that a number cannot hold (an edge's stays below 2^49). `silence`: what stands for a
 * frame that says that it is silent; none where that was not asked for.
 */
export function readAudio(message: ArrayBuffer, silence: Uint8Array | null = null): Audio | null {
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
    filler: (header.getUint8(1) & FLAG_FILLER) !== 0,
  };
}

/** Without samples it says that it is 20 ms of silence. */
export function writeAudio(
  samples: Uint8Array,
  { sequence, stamp, played }: { sequence: number; stamp: number; played: Position },
): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(HEADER_BYTES + samples.byteLength);
  const header = new DataView(message.buffer);
  header.setUint8(0, AUDIO);
  header.setUint8(1, samples.byteLength === 0 ? FLAG_SILENCE : 0);
  header.setUint16(2, sequence & 0xffff);
  header.setBigUint64(4, BigInt(stamp));
  header.setUint32(12, played.utterance);
  header.setUint32(16, played.offset_ms);
  message.set(samples, HEADER_BYTES);
  return message;
}

/** `code`: why the edge of `epoch` cannot be had; empty where it is prepared. */
export function ready(epoch: number, code: string): string {
  return JSON.stringify({ type: "ready", epoch, ...(code === "" ? {} : { code }) });
}

export function moved(epoch: number): string {
  return JSON.stringify({ type: "moved", epoch });
}

/** The button of a call whose turns are `push_to_talk`. */
export function talk(on: boolean): string {
  return JSON.stringify({ type: "talk", on });
}

export function hangup(): string {
  return JSON.stringify({ type: "hangup" });
}

/** A position as the wire takes it: whole numbers within 32 bits. */
export function clamped({ utterance, offset_ms }: Position): Position {
  return { utterance: within32(utterance), offset_ms: within32(offset_ms) };
}

function within32(value: number): number {
  return Number.isFinite(value) ? Math.min(OFFSET_MAX, Math.max(0, Math.floor(value))) : 0;
}

function whole(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function position(raw: unknown): Position {
  if (typeof raw !== "object" || raw === null) return NOWHERE;
  const { utterance, offset_ms } = raw as Raw;
  return { utterance: number_(utterance), offset_ms: number_(offset_ms) };
}

function number_(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

function text_(value: unknown): string {
  return typeof value === "string" ? value : "";
}
