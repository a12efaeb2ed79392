/**
 * One sample rate to another by a windowed sinc, a block at a time. Pure. What lies above the lower rate's half is taken out, so
 * that a microphone's hiss does not fold into the voice. It delays by `delayMs`, and changes no length: n seconds stay n seconds.
 */

/** Zero crossings of the sinc on each side: 60 dB at the price of a millisecond at 16 kHz. */
const ZEROS = 12;
/** A little below the half, for the slope of the filter. */
const PASS = 0.92;
const STEPS = 512;

export class Resampler {
  readonly delayMs: number;
  private readonly step: number;
  private readonly cut: number;
  private readonly half: number;
  private held: Float32Array;
  private filled: number;
  private at: number;

  constructor(
    readonly fromHz: number,
    readonly toHz: number,
  ) {
    this.step = fromHz / toHz;
    this.cut = PASS * Math.min(1, toHz / fromHz);
    this.half = Math.ceil(ZEROS / this.cut);
    this.delayMs = (this.half / fromHz) * 1_000;
    this.held = new Float32Array(2 * this.half + 1_024);
    // silence came before the first sample
    this.filled = this.half;
    this.at = this.half;
  }

  /** Gives each sample that can be told by now, in order. */
  push(input: Float32Array, give: (sample: number) => void): void {
    if (this.filled + input.length > this.held.length) this.held = grown(this.held, this.filled + input.length);
    this.held.set(input, this.filled);
    this.filled += input.length;
    for (; this.at + this.half < this.filled; this.at += this.step) give(this.sampleAt(this.at));
    const past = Math.min(this.filled, Math.floor(this.at) - this.half);
    if (past > 0) {
      this.held.copyWithin(0, past, this.filled);
      this.filled -= past;
      this.at -= past;
    }
  }

  private sampleAt(at: number): number {
    const first = Math.max(0, Math.ceil(at - this.half));
    const last = Math.min(this.filled - 1, Math.floor(at + this.half));
    let sum = 0;
    for (let i = first; i <= last; i += 1) sum += (this.held[i] ?? 0) * kernel((at - i) * this.cut);
    return sum * this.cut;
  }
}

/** sinc under a Blackman window, by zero crossings from its middle; read from a table. */
function kernel(x: number): number {
  const place = Math.abs(x) * STEPS;
  const index = Math.floor(place);
  const low = TABLE[index] ?? 0;
  return low + ((TABLE[index + 1] ?? 0) - low) * (place - index);
}

const TABLE = Float32Array.from({ length: ZEROS * STEPS + 1 }, (_, i) => {
  const x = i / STEPS;
  const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
  const turn = (Math.PI * x) / ZEROS;
  return sinc * (0.42 + 0.5 * Math.cos(turn) + 0.08 * Math.cos(2 * turn));
});

function grown(held: Float32Array, atLeast: number): Float32Array {
  const more = new Float32Array(2 * atLeast);
  more.set(held);
  return more;
}
