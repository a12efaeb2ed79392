/**
 * Up to where the agent has come over a track, whose frames a page does not see.
 *
 * A tick says where the edge stood, every 100 ms; what has gone on since is told by the clock, and of an edge that has fallen silent by
 * the packets that came behind its last tick. Good to a packet or two; where packets cannot be counted, to half the time between ticks.
 */

import type { Link } from "./links.js";
import { NOWHERE } from "./messages.js";
import type { Position } from "./messages.js";
import type { World } from "./world.js";

const PACKET_MS = 20;
/** What a tick names is sent behind it, and the packet before that is on its way. */
const BEHIND_MS = PACKET_MS;
const TICKS_APART_MS = 100;
/** An edge that says nothing for so long has fallen silent: all that it has sent has come. */
const LATE_MS = 3 * TICKS_APART_MS;

export class OnTrack {
  private at = NOWHERE;
  private atMs = 0;
  private goesOn = false;
  /** Packets that had come at the tick, and those that have come by now. */
  private before: number | null = null;
  private after: number | null = null;
  private asked = 0;
  private looked = false;

  constructor(private readonly world: World) {}

  /** `link` has said where it stands: it goes on from there. */
  tick(link: Link, at: Position): void {
    this.stopped(at);
    this.goesOn = true;
    this.atMs = this.world.now();
    const { asked } = this;
    void link.packets().then((count) => {
      if (asked === this.asked) this.before = count;
    });
  }

  /** Nothing was sent beyond `at`. */
  stopped(at: Position): void {
    this.at = at;
    this.goesOn = this.looked = false;
    this.before = this.after = null;
    this.asked += 1;
  }

  /** Nothing is being played: it has ended somewhere behind the last tick. */
  paused(): void {
    if (this.goesOn) this.stopped(this.position);
  }

  /** To be called while nothing comes. */
  look(link: Link): void {
    if (!this.goesOn || this.looked || this.before === null || this.world.now() - this.atMs < LATE_MS) return;
    this.looked = true;
    const { asked } = this;
    void link.packets().then((count) => {
      if (asked === this.asked) this.after = count;
    });
  }

  get position(): Position {
    if (!this.goesOn) return this.at;
    const { utterance, offset_ms } = this.at;
    return { utterance, offset_ms: Math.max(0, offset_ms + this.since() - BEHIND_MS) };
  }

  private since(): number {
    if (this.before !== null && this.after !== null) {
      return Math.min(TICKS_APART_MS, Math.max(0, this.after - this.before) * PACKET_MS);
    }
    const ms = this.world.now() - this.atMs;
    return ms <= TICKS_APART_MS ? ms : TICKS_APART_MS / 2 + BEHIND_MS;
  }
}
