/** The audio thread: the microphone's samples in frames of 20 ms, and what is heard of the agent. Loaded by `addModule`. */

import { Framer } from "./framer.js";
import { Playout } from "./playout.js";
import { CAPTURE, LISTEN, PLAYOUT } from "./protocol.js";
import type { FromListen, FromPlayout, RateOptions, ToPlayout } from "./protocol.js";
import { Resampler } from "./resampler.js";

/** Blocks of 128 samples between two words about the position: 21 ms at 48 kHz. */
const TELL_EVERY = 8;
/** Of a sample, from 0 to 1: what is below is taken for silence (-40 dB). */
const SOUND = 0.01;

class Capture extends AudioWorkletProcessor {
  private readonly resampler: Resampler;
  private readonly framer: Framer;

  constructor({ processorOptions }: { processorOptions: RateOptions }) {
    super();
    this.resampler = new Resampler(sampleRate, processorOptions.rateHz);
    this.framer = new Framer(processorOptions.rateHz);
  }

  process([input]: Float32Array[][]): boolean {
    const channel = input?.[0];
    if (channel !== undefined) {
      this.resampler.push(channel, (sample) => {
        const frame = this.framer.push(sample);
        if (frame !== null) this.port.postMessage(frame, [frame.samples.buffer]);
      });
    }
    return true;
  }
}

class Play extends AudioWorkletProcessor {
  private readonly playout: Playout;
  private readonly resampler: Resampler;
  /** At the call's rate: about a millisecond at a time, so that the position is exact. */
  private readonly block: Float32Array;
  private ready: number[] = [];
  private blocks = 0;

  constructor({ processorOptions: { rateHz } }: { processorOptions: RateOptions }) {
    super();
    this.playout = new Playout(rateHz, (joined) => this.tell({ kind: "joined", joined }));
    this.resampler = new Resampler(rateHz, sampleRate);
    this.block = new Float32Array(Math.round(rateHz / 1_000));
    this.port.onmessage = ({ data }: MessageEvent<ToPlayout>) => {
      if (data.kind === "frame") this.playout.push(data.frame);
      else this.playout.clear();
    };
  }

  process(_inputs: Float32Array[][], [output]: Float32Array[][]): boolean {
    const channel = output?.[0];
    if (channel === undefined) return true;
    while (this.ready.length < channel.length) {
      this.playout.read(this.block);
      this.resampler.push(this.block, (sample) => this.ready.push(sample));
    }
    channel.set(this.ready.splice(0, channel.length));
    this.blocks += 1;
    if (this.blocks % TELL_EVERY === 0) {
      const { position, bufferedMs, playing } = this.playout;
      const atS = currentTime + channel.length / sampleRate;
      this.tell({ kind: "at", said: { position, bufferedMs, playing, atS }, peak: this.playout.takePeak() });
    }
    return true;
  }

  private tell(message: FromPlayout): void {
    this.port.postMessage(message);
  }
}

/** Passes a track on, and says when there was sound in it. */
class Listen extends AudioWorkletProcessor {
  private peak = 0;
  private sound: { fromS: number; untilS: number } | null = null;
  private blocks = 0;

  process([input]: Float32Array[][], [output]: Float32Array[][]): boolean {
    const heard = input?.[0];
    output?.forEach((channel, i) => {
      const from = input?.[i] ?? heard;
      if (from !== undefined) channel.set(from);
    });
    const peak = heard?.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0) ?? 0;
    this.peak = Math.max(this.peak, peak);
    if (peak >= SOUND) {
      const untilS = currentTime + (heard?.length ?? 0) / sampleRate;
      this.sound = { fromS: this.sound?.fromS ?? currentTime, untilS };
    }
    this.blocks += 1;
    if (this.blocks % TELL_EVERY === 0) {
      const said: FromListen = { peak: this.peak, sound: this.sound };
      this.port.postMessage(said);
      this.peak = 0;
      this.sound = null;
    }
    return true;
  }
}

registerProcessor(CAPTURE, Capture);
registerProcessor(LISTEN, Listen);
registerProcessor(PLAYOUT, Play);
