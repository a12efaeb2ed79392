/**
 * What is heard of the agent: frames come as the network brings them, samples go out without a break. Pure: it is asked for
 * samples, and its only clock is how many it has given.
 *
 * 1. It begins once enough is buffered (`targetMs`), or what is there has waited as long: a short word is not kept for ever.
 * 2. It runs dry in the middle of an utterance: the network is worse than thought, so more is buffered the next time.
 * 3. A clear ends the sound within 2 ms; the position stays where the ear was.
 * 4. More than a second is never kept: the oldest goes, and with it what the caller would have heard too late.
 */

import type { Position } from "../messages.js";

const TARGET_MS = 40;
const TARGET_MAX_MS = 200;
const TARGET_STEP_MS = 20;
/** So long without running dry, and one step less will do. */
const CALM_MS = 10_000;
const KEPT_MAX_MS = 1_000;
const FADE_MS = 2;

export interface PlayoutFrame {
  readonly samples: Int16Array;
  readonly utterance: number;
  readonly offset_ms: number;
  readonly epoch: number;
  readonly filler: boolean;
}

/** The agent was heard under another epoch than before; `silentMs`: with so much silence, or filler, between. */
export interface Joined {
  readonly fromEpoch: number;
  readonly toEpoch: number;
  readonly silentMs: number;
}

export class Playout {
  /** Loudest sample since it was last asked. */
  private peak = 0;
  private targetMs = TARGET_MS;
  private readonly queue: PlayoutFrame[] = [];
  private buffered = 0;
  /** Of the first frame in the queue. */
  private index = 0;
  playing = false;
  private waited = 0;
  private calm = 0;
  private silent = 0;
  private last = 0;
  private ran: PlayoutFrame | null = null;
  private heard: Position = { utterance: 0, offset_ms: 0 };
  private epoch: number | null = null;
  private readonly perMs: number;

  constructor(
    rateHz: number,
    private readonly joined: (what: Joined) => void = () => undefined,
  ) {
    this.perMs = rateHz / 1_000;
  }

  /** Up to where the agent's audio was given out. */
  get position(): Position {
    return this.heard;
  }

  get bufferedMs(): number {
    return this.buffered / this.perMs;
  }

  takePeak(): number {
    const peak = this.peak;
    this.peak = 0;
    return peak;
  }

  push(frame: PlayoutFrame): void {
    if (frame.samples.length === 0) return;
    if (this.ran !== null && follows(this.ran, frame, this.perMs)) {
      this.targetMs = Math.min(TARGET_MAX_MS, this.targetMs + TARGET_STEP_MS);
      this.calm = 0;
    }
    this.ran = null;
    this.queue.push(frame);
    this.buffered += frame.samples.length;
    while (this.bufferedMs > KEPT_MAX_MS && this.queue.length > 1) this.forgetFirst();
  }

  clear(): void {
    this.queue.length = 0;
    this.buffered = 0;
    this.index = 0;
    this.playing = false;
    this.waited = 0;
    this.ran = null;
  }

  /** Fills `out`: with silence where there is nothing. */
  read(out: Float32Array): void {
    for (let i = 0; i < out.length; i += 1) {
      const sample = this.next();
      out[i] = sample;
      this.peak = Math.max(this.peak, Math.abs(sample));
    }
  }

  private next(): number {
    if (!this.playing && this.ready()) this.playing = true;
    const frame = this.playing ? this.queue[0] : undefined;
    if (frame === undefined) return this.silence();
    if (!frame.filler && this.index === 0) this.join(frame.epoch);
    const sample = (frame.samples[this.index] ?? 0) / 32_768;
    this.index += 1;
    this.buffered -= 1;
    this.last = sample;
    if (frame.filler) this.silent += 1;
    else this.play(frame);
    if (this.index >= frame.samples.length) this.shift(frame);
    return sample;
  }

  private play(frame: PlayoutFrame): void {
    this.silent = 0;
    this.heard = { utterance: frame.utterance, offset_ms: frame.offset_ms + this.index / this.perMs };
    this.calm += 1;
    if (this.calm < CALM_MS * this.perMs) return;
    this.calm = 0;
    this.targetMs = Math.max(TARGET_MS, this.targetMs - TARGET_STEP_MS);
  }

  private join(epoch: number): void {
    if (this.epoch !== null && this.epoch !== epoch) {
      this.joined({ fromEpoch: this.epoch, toEpoch: epoch, silentMs: this.silent / this.perMs });
    }
    this.epoch = epoch;
  }

  private ready(): boolean {
    if (this.queue.length === 0) return false;
    this.waited += 1;
    return this.bufferedMs >= this.targetMs || this.waited >= this.targetMs * this.perMs;
  }

  /** The last sample fades away: a step to nothing would click. */
  private silence(): number {
    this.silent += 1;
    const step = 1 / (FADE_MS * this.perMs);
    this.last = Math.abs(this.last) <= step ? 0 : this.last - Math.sign(this.last) * step;
    return this.last;
  }

  private shift(frame: PlayoutFrame): void {
    this.queue.shift();
    this.index = 0;
    if (this.queue.length > 0) return;
    this.playing = false;
    this.waited = 0;
    this.ran = frame;
  }

  private forgetFirst(): void {
    const first = this.queue.shift();
    if (first === undefined) return;
    this.buffered -= first.samples.length - this.index;
    this.index = 0;
  }
}

/** Whether it goes on where the other ended: then there was a hole in the middle of an utterance. */
function follows(before: PlayoutFrame, frame: PlayoutFrame, perMs: number): boolean {
  if (frame.filler || before.filler || frame.utterance !== before.utterance || frame.epoch !== before.epoch) return false;
  const endMs = before.offset_ms + before.samples.length / perMs;
  return Math.abs(frame.offset_ms - endMs) < 5;
}
