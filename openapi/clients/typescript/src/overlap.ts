/** Two edges at once during a planned move: the one that is left, and its successor. Pure: `nowMs` is a parameter. */

/** What the caller said last is still on its way through the old edge. */
export const LINGER_MIN_MS = 200;
/** Below the old edge's lease of 3 s, which nothing renews any more. */
export const LINGER_MAX_MS = 2_500;
export const QUIET_MS = 60;

export class Overlap {
  private oldMs: number;
  private backend = false;
  private spoken = false;

  constructor(private readonly beganMs: number) {
    this.oldMs = beganMs;
  }

  /** Whether this frame of the old edge is heard: the new one has not begun. */
  oldSpoke(nowMs: number): boolean {
    this.oldMs = nowMs;
    return !this.spoken;
  }

  newSpoke(): void {
    this.spoken = true;
  }

  backendUp(): void {
    this.backend = true;
  }

  /** Whether the old edge may be let go: the new one speaks, or has its backend while the old one is quiet; or its lease ends. */
  over(nowMs: number): boolean {
    const lastedMs = nowMs - this.beganMs;
    if (lastedMs >= LINGER_MAX_MS) return true;
    const quiet = nowMs - this.oldMs >= QUIET_MS;
    return lastedMs >= LINGER_MIN_MS && (this.spoken || (this.backend && quiet));
  }
}
