/** What a successor needs to know of this caller: the newest stamp, what is durable, what was played, the snapshot. */

import { clamped } from "./messages.js";
import type { Encoding, FromEdge, Mode, Position } from "./messages.js";
import type { TakeReason } from "./watch.js";

export class Standing {
  stamp = 0;
  private acked = { epoch: 0, n: 0 };
  private snapshot: string | null = null;

  /** `played`: up to where the agent has been heard, asked whenever a message tells it. */
  constructor(private readonly played: () => Position) {}

  get position(): Position {
    return clamped(this.played());
  }

  heard(message: FromEdge): void {
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
  attach(
    ticket: string,
    epoch: number,
    mode: Mode,
    { encoding, sampleRate, reason, dtx = false }: { encoding: Encoding; sampleRate: number; reason: TakeReason; dtx?: boolean },
  ): string {
    return JSON.stringify({
      type: "attach",
      ticket,
      epoch,
      mode,
      encoding,
      sample_rate: sampleRate,
      ...(dtx ? { dtx } : {}),
      ...(mode === "attach" ? {} : { resume: this.resume() }),
      ...(mode === "take" && reason !== "closed" ? { reason } : {}),
    });
  }

  take(reason: TakeReason): string {
    return JSON.stringify({ type: "take", resume: this.resume(), reason });
  }

  alive(): string {
    return JSON.stringify({ type: "alive", stamp: this.stamp, played: this.position });
  }

  dtmf(digit: string): string {
    return JSON.stringify({ type: "dtmf", digit, stamp: this.stamp });
  }

  private resume(): object {
    const { epoch, n } = this.acked;
    return { epoch, n, played: this.position, ...(this.snapshot === null ? {} : { snapshot: this.snapshot }) };
  }
}
