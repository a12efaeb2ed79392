/** The seam between the tracks of two edges, as it is heard. Pure: times are those of one audio clock, in seconds. */

import type { Joined } from "./playout.js";

export class Splice {
  /** The newest owner that has been heard; null before any. */
  epoch: number | null = null;
  private untilS = 0;

  /** There was sound in the track of `epoch`. What it joins, where it is the first of a newer owner. */
  sound(epoch: number, fromS: number, untilS: number): Joined | null {
    const before = this.epoch;
    if (before !== null && epoch < before) return null;
    const silentMs = Math.max(0, (fromS - this.untilS) * 1_000);
    this.epoch = epoch;
    this.untilS = untilS;
    return before === null || before === epoch ? null : { fromEpoch: before, toEpoch: epoch, silentMs };
  }
}
