/** Resampling, framing and playout, without a sound card. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Framer } from "../src/audio/framer.js";
import { Playout } from "../src/audio/playout.js";
import type { Joined, PlayoutFrame } from "../src/audio/playout.js";
import { standsAt } from "../src/audio/protocol.js";
import { Resampler } from "../src/audio/resampler.js";

function tone(hz: number, rateHz: number, seconds = 1): Float32Array {
  return Float32Array.from({ length: rateHz * seconds }, (_, i) => Math.sin((2 * Math.PI * hz * i) / rateHz));
}

/** In blocks, as the audio thread gives them. */
function resampled(input: Float32Array, fromHz: number, toHz: number, block = 128): Float32Array {
  const resampler = new Resampler(fromHz, toHz);
  const out: number[] = [];
  for (let i = 0; i < input.length; i += block) resampler.push(input.subarray(i, i + block), (s) => out.push(s));
  return Float32Array.from(out);
}

function rms(samples: Float32Array): number {
  return Math.sqrt(samples.reduce((sum, s) => sum + s * s, 0) / samples.length);
}

function crossings(samples: Float32Array): number {
  return samples.slice(1).filter((s, i) => s >= 0 !== (samples[i] ?? 0) >= 0).length;
}

for (const [fromHz, toHz] of [[48_000, 16_000], [44_100, 16_000], [16_000, 48_000], [16_000, 44_100], [16_000, 16_000]] as const) {
  test(`${fromHz} to ${toHz} Hz keeps a tone, its length and its loudness`, () => {
    const out = resampled(tone(440, fromHz), fromHz, toHz);
    assert.ok(Math.abs(out.length - toHz) < toHz / 200, `${out.length} samples`);
    const middle = out.subarray(toHz / 10, toHz - toHz / 10);
    assert.ok(Math.abs(rms(middle) - Math.SQRT1_2) < 0.01, `rms ${rms(middle)}`);
    assert.ok(Math.abs(crossings(middle) - 2 * 440 * 0.8) <= 2, `${crossings(middle)} crossings`);
  });
}

test("what the lower rate cannot hold is taken out and does not fold back", () => {
  for (const hz of [10_000, 15_000, 20_000]) {
    const out = resampled(tone(hz, 48_000), 48_000, 16_000).subarray(200, 15_000);
    assert.ok(rms(out) < 0.002, `${hz} Hz leaves ${rms(out)}`);
  }
});

test("the size of the blocks changes nothing", () => {
  const input = tone(300, 48_000, 0.1);
  assert.deepEqual(resampled(input, 48_000, 16_000, 128), resampled(input, 48_000, 16_000, 4_800));
});

test("frames of 20 ms, clipped, with their peak", () => {
  const framer = new Framer(16_000);
  const frames = [...tone(100, 16_000, 0.05)].map((s) => framer.push(2 * s)).filter((f) => f !== null);
  assert.deepEqual(frames.map((f) => f.samples.length), [320, 320]);
  assert.deepEqual([frames[0]?.peak, Math.max(...(frames[0]?.samples ?? []))], [1, 32_767]);
});

// ------------------------------------------------------------------------------------------------------ playout

const RATE = 16_000;

function frame(offsetMs: number, more: Partial<PlayoutFrame> = {}): PlayoutFrame {
  return { samples: new Int16Array(320).fill(16_384), utterance: 1, offset_ms: offsetMs, epoch: 1, filler: false, ...more };
}

function read(playout: Playout, ms: number): Float32Array {
  const out = new Float32Array(ms * 16);
  playout.read(out);
  return out;
}

test("begins with 40 ms, plays them sample for sample, and knows the position to the sample", () => {
  const playout = new Playout(RATE);
  playout.push(frame(100));
  assert.equal(rms(read(playout, 10)), 0);
  playout.push(frame(120));
  assert.deepEqual([...new Set(read(playout, 30))], [0.5]);
  assert.deepEqual(playout.position, { utterance: 1, offset_ms: 130 });
  assert.equal(playout.bufferedMs, 10);
});

test("between two words of the audio thread the position goes on, no further than what was buffered", () => {
  const said = { position: { utterance: 3, offset_ms: 500 }, bufferedMs: 30, playing: true, atS: 10 };
  assert.deepEqual(standsAt(said, 10.015625, 0), { utterance: 3, offset_ms: 515.625 });
  assert.equal(standsAt(said, 10.5, 0).offset_ms, 530);
  assert.equal(standsAt(said, 10.5, 40).offset_ms, 490, "what the device holds was not heard");
  assert.equal(standsAt({ ...said, playing: false }, 10.5, 0).offset_ms, 500);
  assert.equal(standsAt({ ...said, position: { utterance: 4, offset_ms: 10 } }, 9, 40).offset_ms, 0);
});

test("a word that is shorter waits 40 ms and is played", () => {
  const playout = new Playout(RATE);
  playout.push(frame(0));
  const out = read(playout, 80);
  assert.equal(out.findIndex((s) => s > 0), 40 * 16 - 1);
  assert.deepEqual(playout.position, { utterance: 1, offset_ms: 20 });
});

test("a clear ends the sound within 2 ms, and the position stays", () => {
  const playout = new Playout(RATE);
  for (let i = 0; i < 10; i += 1) playout.push(frame(i * 20));
  read(playout, 50);
  playout.clear();
  const out = read(playout, 20);
  assert.equal(rms(out.subarray(2 * 16)), 0);
  assert.ok((out[0] ?? 1) < 0.5 && (out[0] ?? 0) > 0, "it fades and does not click");
  assert.deepEqual([playout.position, playout.bufferedMs], [{ utterance: 1, offset_ms: 50 }, 0]);
});

test("running dry in an utterance buffers more the next time, between utterances it does not", () => {
  const waits = (second: Partial<PlayoutFrame>) => {
    const playout = new Playout(RATE);
    playout.push(frame(0));
    read(playout, 100);
    playout.push(frame(20, second));
    return read(playout, 100).findIndex((s) => s > 0) + 1;
  };
  assert.equal(waits({}), 60 * 16);
  assert.equal(waits({ utterance: 2, offset_ms: 0 }), 40 * 16);
});

test("never keeps more than a second: the oldest goes", () => {
  const playout = new Playout(RATE);
  for (let i = 0; i < 100; i += 1) playout.push(frame(i * 20));
  assert.equal(playout.bufferedMs, 1_000);
  read(playout, 20);
  assert.equal(playout.position.offset_ms, 1_020);
});

test("the silence between two owners is measured as it is heard; filler is part of it", () => {
  const joined: Joined[] = [];
  const playout = new Playout(RATE, (what) => joined.push(what));
  playout.push(frame(0));
  playout.push(frame(20));
  read(playout, 40);
  read(playout, 300);
  playout.push(frame(0, { filler: true, utterance: 0 }));
  playout.push(frame(0, { filler: true, utterance: 0 }));
  read(playout, 40);
  assert.deepEqual(playout.position, { utterance: 1, offset_ms: 40 }, "filler is nobody's");
  playout.push(frame(0, { epoch: 2, utterance: 2 }));
  playout.push(frame(20, { epoch: 2, utterance: 2 }));
  read(playout, 40);
  assert.deepEqual(joined, [{ fromEpoch: 1, toEpoch: 2, silentMs: 340 }]);
});
