/** What the caller says to the edge that owns the call: audio, keys, that it is alive. Where there is no owner it is lost. */

import type { Link } from "./links.js";
import { PIECE_MS_MAX, hangup, talk, writeAudio } from "./messages.js";
import type { Silence } from "./silence.js";
import type { Standing } from "./standing.js";
import type { World } from "./world.js";

const NO_SAMPLES = new Uint8Array();
const ALIVE_EVERY_MS = 400;
/** Audio that waits so long for the network is too old to be sent. */
const UNSENT_MS_MAX = 1_000;

export class Voice {
  owner: Link | null = null;
  private talking = false;
  private hangingUp = false;
  private sequence = 0;
  private sentMs = 0;

  constructor(
    private readonly world: World,
    private readonly standing: Standing,
    private readonly bytesPerMs: number,
    private readonly silence: Silence | null = null,
  ) {}

  tell(message: string | Uint8Array<ArrayBuffer>): void {
    if (this.owner === null) return;
    this.sentMs = this.world.now();
    this.owner.tell(message);
  }

  /** In as many messages as it takes; in none where the owner hears a track. */
  audio(samples: Uint8Array): void {
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
  answer(): void {
    this.tell(this.standing.alive());
  }

  dtmf(digit: string): void {
    this.tell(this.standing.dtmf(digit));
  }

  talk(on: boolean): void {
    this.talking = on;
    this.tell(talk(on));
  }

  hangup(): void {
    this.hangingUp = true;
    this.tell(hangup());
  }

  /** What the caller wants still holds: a new owner is told. */
  again(): void {
    if (this.talking) this.tell(talk(true));
    if (this.hangingUp) this.tell(hangup());
  }

  /** Once nothing else was said for a while. */
  keepAlive(nowMs: number): void {
    if (nowMs - this.sentMs > ALIVE_EVERY_MS) this.tell(this.standing.alive());
  }
}
