/** A stream of samples in frames of 20 ms of PCM16. Pure. */

export const FRAME_MS = 20;

/** `peak`: the loudest sample of the frame, from 0 to 1. */
export interface MicrophoneFrame {
  readonly samples: Int16Array<ArrayBuffer>;
  readonly peak: number;
}

export class Framer {
  private frame: Int16Array<ArrayBuffer>;
  private filled = 0;
  private peak = 0;

  constructor(rateHz: number) {
    this.frame = new Int16Array((rateHz * FRAME_MS) / 1_000);
  }

  /** The frame that this sample completes, if it does. */
  push(sample: number): MicrophoneFrame | null {
    const clipped = Math.max(-1, Math.min(1, sample));
    this.frame[this.filled] = Math.round(clipped * 32_767);
    this.filled += 1;
    this.peak = Math.max(this.peak, Math.abs(clipped));
    if (this.filled < this.frame.length) return null;
    const complete = { samples: this.frame, peak: this.peak };
    this.frame = new Int16Array(this.frame.length);
    this.filled = 0;
    this.peak = 0;
    return complete;
  }
}
