/** The gaps that failovers and moves left in what was heard of the agent. Times are the caller's own clock, in milliseconds. */

/**
 * One failover or planned move. `audioMs`: from the arrival of the old owner's last frame to that of the new one's first; null
 * until it is known. A `reason` of `planned` is a move.
 */
export interface Gap {
  readonly fromEpoch: number;
  readonly reason: string;
  readonly lostAtMs: number;
  readonly lastFrameAtMs: number | null;
  readonly toEpoch: number | null;
  readonly attachedAtMs: number | null;
  readonly firstFrameAtMs: number | null;
  readonly audioMs: number | null;
}

type Open = { -readonly [K in keyof Gap]: Gap[K] };

export class Hearing {
  readonly gaps: Gap[] = [];
  private newest: Open | null = null;
  private lastFrameAtMs: number | null = null;

  /** The owner is given up; several tries to find the next one are one gap. */
  lost(fromEpoch: number, reason: string, nowMs: number): void {
    if (this.newest !== null && this.newest.attachedAtMs === null) return;
    this.newest = {
      fromEpoch,
      reason,
      lostAtMs: nowMs,
      lastFrameAtMs: this.lastFrameAtMs,
      toEpoch: null,
      attachedAtMs: null,
      firstFrameAtMs: null,
      audioMs: null,
    };
    this.gaps.push(this.newest);
  }

  /** The new edge has refused, and the owner goes on: there is no gap. */
  stayed(): void {
    if (this.newest === null || this.newest.attachedAtMs !== null) return;
    this.gaps.pop();
    this.newest = (this.gaps.at(-1) as Open | undefined) ?? null;
  }

  attached(epoch: number, nowMs: number): void {
    if (this.newest === null || this.newest.attachedAtMs !== null) return;
    this.newest.toEpoch = epoch;
    this.newest.attachedAtMs = nowMs;
  }

  /** The agent was heard; the gap that has been closed by it, if one was. */
  audio(epoch: number, nowMs: number): Gap | null {
    this.lastFrameAtMs = nowMs;
    const gap = this.newest;
    if (gap === null || gap.firstFrameAtMs !== null) return null;
    if (gap.fromEpoch === epoch) gap.lastFrameAtMs = nowMs;
    if (gap.toEpoch !== epoch) return null;
    gap.firstFrameAtMs = nowMs;
    gap.audioMs = gap.lastFrameAtMs === null ? null : nowMs - gap.lastFrameAtMs;
    return gap;
  }
}
