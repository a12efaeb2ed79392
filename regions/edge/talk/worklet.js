// Generated from openapi/clients/typescript (make typescript-page); do not edit. Sources: 116434085dedfbaa94f9429bbc97e12eba09969ef7aa14aaeab4bca2829dda55

// src/audio/framer.ts
var FRAME_MS = 20;
var Framer = class {
  frame;
  filled = 0;
  peak = 0;
  constructor(rateHz) {
    this.frame = new Int16Array(rateHz * FRAME_MS / 1e3);
  }
  /** The frame that this sample completes, if it does. */
  push(sample) {
    const clipped = Math.max(-1, Math.min(1, sample));
    this.frame[this.filled] = Math.round(clipped * 32767);
    this.filled += 1;
    this.peak = Math.max(this.peak, Math.abs(clipped));
    if (this.filled < this.frame.length) return null;
    const complete = { samples: this.frame, peak: this.peak };
    this.frame = new Int16Array(this.frame.length);
    this.filled = 0;
    this.peak = 0;
    return complete;
  }
};

// src/audio/playout.ts
var TARGET_MS = 40;
var TARGET_MAX_MS = 200;
var TARGET_STEP_MS = 20;
var CALM_MS = 1e4;
var KEPT_MAX_MS = 1e3;
var FADE_MS = 2;
var Playout = class {
  constructor(rateHz, joined = () => void 0) {
    this.joined = joined;
    this.perMs = rateHz / 1e3;
  }
  /** Loudest sample since it was last asked. */
  peak = 0;
  targetMs = TARGET_MS;
  queue = [];
  buffered = 0;
  /** Of the first frame in the queue. */
  index = 0;
  playing = false;
  waited = 0;
  calm = 0;
  silent = 0;
  last = 0;
  ran = null;
  heard = { utterance: 0, offset_ms: 0 };
  epoch = null;
  perMs;
  /** Up to where the agent's audio was given out. */
  get position() {
    return this.heard;
  }
  get bufferedMs() {
    return this.buffered / this.perMs;
  }
  takePeak() {
    const peak = this.peak;
    this.peak = 0;
    return peak;
  }
  push(frame) {
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
  clear() {
    this.queue.length = 0;
    this.buffered = 0;
    this.index = 0;
    this.playing = false;
    this.waited = 0;
    this.ran = null;
  }
  /** Fills `out`: with silence where there is nothing. */
  read(out) {
    for (let i = 0; i < out.length; i += 1) {
      const sample = this.next();
      out[i] = sample;
      this.peak = Math.max(this.peak, Math.abs(sample));
    }
  }
  next() {
    if (!this.playing && this.ready()) this.playing = true;
    const frame = this.playing ? this.queue[0] : void 0;
    if (frame === void 0) return this.silence();
    if (!frame.filler && this.index === 0) this.join(frame.epoch);
    const sample = (frame.samples[this.index] ?? 0) / 32768;
    this.index += 1;
    this.buffered -= 1;
    this.last = sample;
    if (frame.filler) this.silent += 1;
    else this.play(frame);
    if (this.index >= frame.samples.length) this.shift(frame);
    return sample;
  }
  play(frame) {
    this.silent = 0;
    this.heard = { utterance: frame.utterance, offset_ms: frame.offset_ms + this.index / this.perMs };
    this.calm += 1;
    if (this.calm < CALM_MS * this.perMs) return;
    this.calm = 0;
    this.targetMs = Math.max(TARGET_MS, this.targetMs - TARGET_STEP_MS);
  }
  join(epoch) {
    if (this.epoch !== null && this.epoch !== epoch) {
      this.joined({ fromEpoch: this.epoch, toEpoch: epoch, silentMs: this.silent / this.perMs });
    }
    this.epoch = epoch;
  }
  ready() {
    if (this.queue.length === 0) return false;
    this.waited += 1;
    return this.bufferedMs >= this.targetMs || this.waited >= this.targetMs * this.perMs;
  }
  /** The last sample fades away: a step to nothing would click. */
  silence() {
    this.silent += 1;
    const step = 1 / (FADE_MS * this.perMs);
    this.last = Math.abs(this.last) <= step ? 0 : this.last - Math.sign(this.last) * step;
    return this.last;
  }
  shift(frame) {
    this.queue.shift();
    this.index = 0;
    if (this.queue.length > 0) return;
    this.playing = false;
    this.waited = 0;
    this.ran = frame;
  }
  forgetFirst() {
    const first = this.queue.shift();
    if (first === void 0) return;
    this.buffered -= first.samples.length - this.index;
    this.index = 0;
  }
};
function follows(before, frame, perMs) {
  if (frame.filler || before.filler || frame.utterance !== before.utterance || frame.epoch !== before.epoch) return false;
  const endMs = before.offset_ms + before.samples.length / perMs;
  return Math.abs(frame.offset_ms - endMs) < 5;
}

// src/audio/protocol.ts
var CAPTURE = "voxplane-capture";
var PLAYOUT = "voxplane-playout";
var LISTEN = "voxplane-listen";

// src/audio/resampler.ts
var ZEROS = 12;
var PASS = 0.92;
var STEPS = 512;
var Resampler = class {
  constructor(fromHz, toHz) {
    this.fromHz = fromHz;
    this.toHz = toHz;
    this.step = fromHz / toHz;
    this.cut = PASS * Math.min(1, toHz / fromHz);
    this.half = Math.ceil(ZEROS / this.cut);
    this.delayMs = this.half / fromHz * 1e3;
    this.held = new Float32Array(2 * this.half + 1024);
    this.filled = this.half;
    this.at = this.half;
  }
  delayMs;
  step;
  cut;
  half;
  held;
  filled;
  at;
  /** Gives each sample that can be told by now, in order. */
  push(input, give) {
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
  sampleAt(at) {
    const first = Math.max(0, Math.ceil(at - this.half));
    const last = Math.min(this.filled - 1, Math.floor(at + this.half));
    let sum = 0;
    for (let i = first; i <= last; i += 1) sum += (this.held[i] ?? 0) * kernel((at - i) * this.cut);
    return sum * this.cut;
  }
};
function kernel(x) {
  const place = Math.abs(x) * STEPS;
  const index = Math.floor(place);
  const low = TABLE[index] ?? 0;
  return low + ((TABLE[index + 1] ?? 0) - low) * (place - index);
}
var TABLE = Float32Array.from({ length: ZEROS * STEPS + 1 }, (_, i) => {
  const x = i / STEPS;
  const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
  const turn = Math.PI * x / ZEROS;
  return sinc * (0.42 + 0.5 * Math.cos(turn) + 0.08 * Math.cos(2 * turn));
});
function grown(held, atLeast) {
  const more = new Float32Array(2 * atLeast);
  more.set(held);
  return more;
}

// src/audio/worklet.ts
var TELL_EVERY = 8;
var SOUND = 0.01;
var Capture = class extends AudioWorkletProcessor {
  resampler;
  framer;
  constructor({ processorOptions }) {
    super();
    this.resampler = new Resampler(sampleRate, processorOptions.rateHz);
    this.framer = new Framer(processorOptions.rateHz);
  }
  process([input]) {
    const channel = input?.[0];
    if (channel !== void 0) {
      this.resampler.push(channel, (sample) => {
        const frame = this.framer.push(sample);
        if (frame !== null) this.port.postMessage(frame, [frame.samples.buffer]);
      });
    }
    return true;
  }
};
var Play = class extends AudioWorkletProcessor {
  playout;
  resampler;
  /** At the call's rate: about a millisecond at a time, so that the position is exact. */
  block;
  ready = [];
  blocks = 0;
  constructor({ processorOptions: { rateHz } }) {
    super();
    this.playout = new Playout(rateHz, (joined) => this.tell({ kind: "joined", joined }));
    this.resampler = new Resampler(rateHz, sampleRate);
    this.block = new Float32Array(Math.round(rateHz / 1e3));
    this.port.onmessage = ({ data }) => {
      if (data.kind === "frame") this.playout.push(data.frame);
      else this.playout.clear();
    };
  }
  process(_inputs, [output]) {
    const channel = output?.[0];
    if (channel === void 0) return true;
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
  tell(message) {
    this.port.postMessage(message);
  }
};
var Listen = class extends AudioWorkletProcessor {
  peak = 0;
  sound = null;
  blocks = 0;
  process([input], [output]) {
    const heard = input?.[0];
    output?.forEach((channel, i) => {
      const from = input?.[i] ?? heard;
      if (from !== void 0) channel.set(from);
    });
    const peak = heard?.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0) ?? 0;
    this.peak = Math.max(this.peak, peak);
    if (peak >= SOUND) {
      const untilS = currentTime + (heard?.length ?? 0) / sampleRate;
      this.sound = { fromS: this.sound?.fromS ?? currentTime, untilS };
    }
    this.blocks += 1;
    if (this.blocks % TELL_EVERY === 0) {
      const said = { peak: this.peak, sound: this.sound };
      this.port.postMessage(said);
      this.peak = 0;
      this.sound = null;
    }
    return true;
  }
};
registerProcessor(CAPTURE, Capture);
registerProcessor(LISTEN, Listen);
registerProcessor(PLAYOUT, Play);
