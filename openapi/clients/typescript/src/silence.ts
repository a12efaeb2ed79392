/** Silence that is not sent: what counts as such, and how often it is told of. As in the Python library. */

import type { Encoding } from "./messages.js";

const FRAME_MS = 20;
const PEAK_MAX = 16;
const TOLD_FRAMES = 20;
const MULAW = new Set([0xff, 0x7f, 0xfe, 0x7e, 0xfd, 0x7d]);

export class Silence {
  /** 20 ms of it. */
  readonly samples: Uint8Array;
  private quiet = 0;

  constructor(
    private readonly encoding: Encoding,
    bytesPerMs: number,
  ) {
    this.samples = new Uint8Array(FRAME_MS * bytesPerMs).fill(encoding === "mulaw" ? 0xff : 0);
  }

  /** What becomes of a piece: sent as it is, told of by a header alone, or neither. Pieces of other lengths than 20 ms are sent. */
  of(piece: Uint8Array): "sound" | "told" | "left_out" {
    if (piece.byteLength !== this.samples.byteLength || !this.has(piece)) {
      this.quiet = 0;
      return "sound";
    }
    this.quiet += 1;
    return this.quiet % TOLD_FRAMES === 1 ? "told" : "left_out";
  }

  /** Nobody could hear it: 66 dB below full scale at most. */
  private has(piece: Uint8Array): boolean {
    if (this.encoding === "mulaw") return piece.every((byte) => MULAW.has(byte));
    const samples = new DataView(piece.buffer, piece.byteOffset, piece.byteLength);
    for (let i = 0; i < piece.byteLength; i += 2) {
      if (Math.abs(samples.getInt16(i, true)) > PEAK_MAX) return false;
    }
    return true;
  }
}
