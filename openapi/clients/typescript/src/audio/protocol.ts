/** What goes between the page and the two processors of the audio thread. */

import type { Position } from "../messages.js";
import type { Joined, PlayoutFrame } from "./playout.js";

export const CAPTURE = "voxplane-capture";
export const PLAYOUT = "voxplane-playout";
export const LISTEN = "voxplane-listen";

export interface RateOptions {
  /** Of the call; the context's own is another. */
  readonly rateHz: number;
}

export type ToPlayout = { readonly kind: "frame"; readonly frame: PlayoutFrame } | { readonly kind: "clear" };

/** Where the playout stood at `atS` of the context's clock. */
export interface Said {
  readonly position: Position;
  readonly bufferedMs: number;
  readonly playing: boolean;
  readonly atS: number;
}

/**
 * Where it stands now: the audio thread speaks every 20 ms or so, and the page is asked in between. It goes on no further than
 * what was buffered. `heldMs`: given to the device, and not heard yet.
 */
export function standsAt({ position, bufferedMs, playing, atS }: Said, nowS: number, heldMs: number): Position {
  const sinceMs = playing ? Math.min(bufferedMs, Math.max(0, (nowS - atS) * 1_000)) : 0;
  return { utterance: position.utterance, offset_ms: Math.max(0, position.offset_ms + sinceMs - heldMs) };
}

/** What has passed since the last word: the loudest sample, and from when until when there was sound, if there was. */
export interface FromListen {
  readonly peak: number;
  readonly sound: { readonly fromS: number; readonly untilS: number } | null;
}

export type FromPlayout =
  | { readonly kind: "at"; readonly said: Said; readonly peak: number }
  | { readonly kind: "joined"; readonly joined: Joined };
