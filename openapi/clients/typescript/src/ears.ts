/** What a caller is given to begin with, and what it tells. */

import type { Gap } from "./hearing.js";
import type { Audio, Encoding, FromEdge, Position, SampleRate } from "./messages.js";
import type { Renew } from "./tickets.js";
import type { WatchState } from "./watch.js";
import type { World } from "./world.js";

/** Audio from the agent, `offset_ms` from the start of its `utterance`. `filler`: to be played, and not the agent's. */
export interface Frame extends Audio {
  readonly epoch: number;
  readonly atMs: number;
}

/** An event of the call that the caller may want to show. */
export type Notice = Omit<Extract<FromEdge, { type: "notice" }>, "type">;

export interface CallerEars {
  audio?(frame: Frame): void;
  /** What is buffered and not played is void. `at`: where the edge had sent to. */
  clear?(at: Position): void;
  notice?(notice: Notice): void;
  /** The state, the epoch or the grants are others. */
  changed?(): void;
  /** The agent is heard again after a failover or a move. */
  gap?(gap: Gap): void;
  /** Once. `endReason` null: the edges are not there any more, or the caller has left. */
  ended?(endReason: string | null): void;
}

export interface CallerOptions extends CallerEars {
  encoding?: Encoding;
  sampleRate?: SampleRate;
  /** Over a socket, frames of 20 ms that are silent are not sent, either way; what is heard is the same. */
  discardSilence?: boolean;
  /** Up to where the agent has been heard. Without it, what has arrived counts as heard. */
  played?: () => Position;
  /** Asked once every grant has been used. */
  renew?: Renew;
  world?: World;
}

export type CallState = "joining" | WatchState;
