/** What the caller does with its sockets, step by step, under a virtual clock. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Caller } from "../src/caller.js";
import type { CallerOptions, Frame } from "../src/ears.js";
import { CallLost, CallOver, CallRefused } from "../src/errors.js";
import { A, B, C, FakeWorld, settled, ticket } from "./fakes.js";
import type { FakeSocket } from "./fakes.js";

const TICKET = ticket({ 1: A, 2: B, 3: C });

function attached(epoch: number, stamp = 100): object {
  return { type: "attached", call: "call_1", epoch, region: "x", edge: "y", stamp, resumed: false, lease_ms: 3000 };
}

/** A caller that edge A owns at epoch 1. */
async function attachedCaller(options: CallerOptions = {}): Promise<{ world: FakeWorld; caller: Caller; a: FakeSocket }> {
  const world = new FakeWorld();
  const caller = new Caller(TICKET, { world, ...options });
  const begun = caller.begin();
  const a = world.at(A).opens();
  a.says(attached(1));
  await begun;
  return { world, caller, a };
}

test("attaches at the primary with the ticket and says at which rate it speaks", async () => {
  const { a, caller } = await attachedCaller({ sampleRate: 24_000 });
  assert.equal(a.url, `${A}/v1/media`);
  assert.equal(a.protocol, "voxplane.media.v1");
  assert.deepEqual(a.told[0], {
    type: "attach", ticket: TICKET, epoch: 1, mode: "attach", encoding: "pcm16", sample_rate: 24_000,
  }); // prettier-ignore
  assert.deepEqual([caller.state, caller.epoch, caller.grant.region], ["attached", 1, "a"]);
});

test("audio carries the newest stamp and what was played, in pieces of 200 ms", async () => {
  const { a, caller } = await attachedCaller();
  a.plays(3, 60, { stamp: 2 ** 48 + 5 });
  caller.send(new Uint8Array(32 * 300).fill(7));
  const [first, second] = a.frames;
  assert.equal(a.frames.length, 2);
  assert.equal(first?.byteLength, 20 + 32 * 200);
  assert.equal(second?.byteLength, 20 + 32 * 100);
  const header = new DataView(second?.buffer ?? new ArrayBuffer(0));
  assert.deepEqual(
    [header.getUint8(0), header.getUint8(1), header.getUint16(2), header.getBigUint64(4), header.getUint32(12), header.getUint32(16)],
    [1, 0, 2, 2n ** 48n + 5n, 3, 80],
  );
});

test("silence goes without samples where that was asked for, both ways, and is heard all the same", async () => {
  for (const [encoding, quiet, loud, ms] of [["pcm16", 16, 17, 32], ["mulaw", 0xfe, 0x40, 16]] as const) {
    const heard: Frame[] = [];
    const { a, caller } = await attachedCaller({ encoding, discardSilence: true, audio: (frame) => heard.push(frame) });
    assert.equal(a.told[0]?.["dtx"], true);
    const frame = (value: number) => new Uint8Array(20 * ms).map((_, i) => (encoding === "mulaw" || i % 2 === 0 ? value : 0));
    for (let i = 0; i < 30; i += 1) caller.send(frame(quiet));
    caller.send(frame(loud));
    caller.send(frame(quiet).subarray(2)); // no whole frame: sent as it is
    const headers = a.frames.map((f) => new DataView(f.buffer));
    assert.deepEqual(headers.map((h) => [h.byteLength - 20, h.getUint8(1), h.getUint16(2)]), [
      [0, 2, 1], [0, 2, 21], [20 * ms, 0, 31], [20 * ms - 2, 0, 32],
    ]); // prettier-ignore
    a.plays(1, 60, { flag: 2, ms: 0 });
    a.plays(1, 80, { flag: 0, ms: 0 });
    assert.deepEqual(heard.map((f) => [f.offset_ms, f.samples.byteLength, f.samples[0]]), [[60, 20 * ms, encoding === "mulaw" ? 0xff : 0]]);
    caller.send(frame(loud));
    const header = new DataView(a.frames.at(-1)?.buffer ?? new ArrayBuffer(20));
    assert.deepEqual([header.getUint32(12), header.getUint32(16)], [1, 80]);
  }
  const { a } = await attachedCaller({ audio: () => assert.fail("nobody has asked for it") });
  assert.equal(a.told[0]?.["dtx"], undefined);
  a.plays(1, 60, { flag: 2, ms: 0 });
});

test("says that it is alive where it says nothing else", async () => {
  const { world, a } = await attachedCaller({ played: () => ({ utterance: 2, offset_ms: 1234.7 }) });
  await world.passes(1_000, () => a.says({ type: "tick", stamp: Math.round(world.nowMs) }));
  const alive = a.told.filter((m) => m["type"] === "alive");
  assert.ok(alive.length >= 2);
  assert.deepEqual(alive.at(-1)?.["played"], { utterance: 2, offset_ms: 1234 });
  assert.ok((alive.at(-1)?.["stamp"] as number) > 1_800);
});

test("400 ms of silence prepare a standby, and it is taken at 500 with all that a successor needs", async () => {
  const frames: Frame[] = [];
  const { world, a, caller } = await attachedCaller({ audio: (frame) => frames.push(frame) });
  a.plays(2, 1_480);
  a.says({ type: "acked", epoch: 1, n: 10 });
  a.says({ type: "snapshot", epoch: 1, n: 10, sealed: "snap.x" });
  await world.passes(380);
  assert.equal(world.sockets.length, 1);
  await world.passes(40);
  const b = world.at(B).opens();
  const resume = { epoch: 1, n: 10, played: { utterance: 2, offset_ms: 1_500 }, snapshot: "snap.x" };
  assert.deepEqual([b.told[0]?.["mode"], b.told[0]?.["epoch"], b.told[0]?.["resume"]], ["prepare", 2, resume]);
  b.says({ type: "prepared", call: "call_1", epoch: 2, stamp: 9, source: "snapshot" });
  assert.equal(b.told.length, 1, "not before 500 ms");
  await world.passes(100);
  assert.deepEqual(b.told[1], { type: "take", resume, reason: "silent" });
  assert.ok(a.closed);
  b.says(attached(2, 500));
  b.plays(3, 0);
  assert.deepEqual([caller.state, caller.epoch, caller.grant.region], ["attached", 2, "b"]);
  assert.equal(frames.at(-1)?.epoch, 2);
  assert.deepEqual(caller.gaps.map((g) => [g.fromEpoch, g.toEpoch, g.reason, g.audioMs]), [[1, 2, "silent", 520]]);
});

test("an owner that is heard again keeps the call, and the standby is let go", async () => {
  const { world, a, caller } = await attachedCaller();
  await world.passes(420);
  const b = world.at(B).opens();
  a.says({ type: "tick", stamp: 5 });
  assert.ok(b.closed);
  b.says({ type: "prepared", call: "call_1", epoch: 2, stamp: 9, source: "none" });
  await world.passes(300, () => a.says({ type: "tick", stamp: 6 }));
  assert.deepEqual([caller.state, caller.epoch, caller.gaps.length], ["attached", 1, 0]);
});

test("a closed socket takes at once, and a refused take goes on to the next", async () => {
  const { world, a, caller } = await attachedCaller();
  a.breaks();
  const b = world.at(B).opens();
  assert.deepEqual([b.told[0]?.["mode"], b.told[0]?.["reason"]], ["take", undefined]);
  b.says({ type: "refused", code: "full", detail: "", fix: "" });
  world.at(C).opens().says(attached(3));
  assert.deepEqual([caller.epoch, caller.gaps.length], [3, 1]);
});

test("both silent is the own network: it resumes at the owner and the epoch stays", async () => {
  const { world, a, caller } = await attachedCaller();
  await world.passes(1_520);
  const again = world.at(A);
  assert.notEqual(again, a);
  again.opens();
  assert.deepEqual([again.told[0]?.["mode"], again.told[0]?.["epoch"]], ["resume", 1]);
  again.says(attached(1, 700));
  assert.deepEqual([caller.state, caller.epoch], ["attached", 1]);
  assert.ok(a.closed);
});

test("an owner that refuses a resume has lost the call: the standby is taken", async () => {
  const { world, caller } = await attachedCaller();
  await world.passes(1_520);
  world.at(A).opens().says({ type: "refused", code: "not_held", detail: "", fix: "" });
  await world.passes(40);
  const b = world.at(B).opens();
  assert.deepEqual([b.told[0]?.["mode"], b.told[0]?.["epoch"]], ["take", 2], "it is not waited for any longer");
  b.says(attached(2));
  assert.equal(caller.epoch, 2);
});

test("a primary that is full is left for the edge that it names", async () => {
  const world = new FakeWorld();
  const caller = new Caller(TICKET, { world });
  const begun = caller.begin();
  world.at(A).opens().says({ type: "refused", code: "full", next_url: `${B}/v1/media`, next_epoch: 2 });
  const b = world.at(B).opens();
  assert.deepEqual([b.told[0]?.["mode"], b.told[0]?.["reason"]], ["take", "refused"]);
  b.says(attached(2));
  await begun;
  assert.equal(caller.epoch, 2);
});

test("a bad ticket is bad everywhere", async () => {
  const world = new FakeWorld();
  const begun = new Caller(TICKET, { world }).begin();
  world.at(A).opens().says({ type: "refused", code: "forged", detail: "changed", fix: "use it as issued" });
  await assert.rejects(begun, (error: unknown) => error instanceof CallRefused && error.code === "forged");
  assert.ok(world.sockets.every((s) => s.closed));
  assert.throws(() => new Caller("no.ticket.here", { world }), { code: "not_a_ticket" });
});

test("where nobody answers the call is lost, and nothing is left open", async () => {
  const world = new FakeWorld();
  const begun = assert.rejects(new Caller(ticket({ 1: "ws://forbidden:1", 2: B }), { world }).begin(), CallLost);
  await world.passes(12_000);
  await begun;
  assert.ok(world.sockets.every((s) => s.closed));
  await world.passes(5_000);
  assert.equal(world.waiting, 0, "no timer goes on");
});

test("a planned move: prepared, taken at the go, the old edge heard until the new one speaks", async () => {
  const heard: number[] = [];
  const { world, a, caller } = await attachedCaller({ audio: (frame) => heard.push(frame.epoch) });
  a.says({ type: "ticket", ticket: ticket({ 4: B, 5: C }) });
  a.says({ type: "move", epoch: 4, within_ms: 30_000 });
  const b = world.at(B).opens();
  b.says({ type: "prepared", call: "call_1", epoch: 4, stamp: 9, source: "snapshot" });
  assert.deepEqual(a.told.at(-1), { type: "ready", epoch: 4 });
  a.says({ type: "go", epoch: 4 });
  assert.deepEqual([b.told.at(-1)?.["type"], b.told.at(-1)?.["reason"], a.closed], ["take", "planned", false]);
  b.says(attached(4));
  await world.passes(60);
  a.plays(1, 0);
  caller.send(new Uint8Array(640));
  assert.equal(b.frames.length, 1, "from now on the new edge is spoken to");
  await world.passes(20);
  b.plays(2, 0);
  a.plays(1, 20);
  assert.equal(caller.gaps[0]?.audioMs, 20, "from the last that was heard of the old one");
  assert.deepEqual(heard, [1, 4], "the old one is not heard beside the new one");
  await world.passes(100, () => b.says({ type: "tick", stamp: 3 }));
  assert.equal(a.told.at(-1)?.["type"], "ready", "what was said last is still on its way");
  await world.passes(40, () => b.says({ type: "tick", stamp: 3 }));
  assert.deepEqual(a.told.at(-1), { type: "moved", epoch: 4 });
  a.breaks();
  assert.deepEqual([caller.epoch, caller.state, caller.gaps[0]?.reason], [4, "attached", "planned"]);
});

test("a move that is refused leaves the call where it is", async () => {
  const { world, a, caller } = await attachedCaller();
  a.says({ type: "move", epoch: 2, within_ms: 30_000 });
  const b = world.at(B).opens();
  b.says({ type: "prepared", call: "call_1", epoch: 2, stamp: 9, source: "snapshot" });
  a.says({ type: "go", epoch: 2 });
  b.says({ type: "refused", code: "full", detail: "", fix: "" });
  assert.deepEqual(a.told.at(-1), { type: "ready", epoch: 2, code: "full" });
  assert.deepEqual([caller.state, caller.epoch, caller.gaps.length, a.closed], ["attached", 1, 0, false]);
  a.says({ type: "move", epoch: 9, within_ms: 1 });
  assert.deepEqual(a.told.at(-1), { type: "ready", epoch: 9, code: "no_such_epoch" });
});

test("the newest ticket is tried first", async () => {
  const { world, a } = await attachedCaller();
  a.says({ type: "ticket", ticket: ticket({ 4: C }) });
  a.says({ type: "ticket", ticket: ticket({ 6: B }, "call_2") });
  a.breaks();
  assert.equal(world.at(C).opens().told[0]?.["epoch"], 4);
});

test("with no grant left another ticket is asked for, until the call is said to be over", async () => {
  const asked: string[] = [];
  const answers = [null, ticket({ 4: B })];
  const { world, a, caller } = await attachedCaller({
    renew: async (callId) => {
      asked.push(callId);
      const answer = answers.shift();
      if (answer === undefined) throw new CallOver();
      return answer;
    },
  });
  a.breaks();
  world.at(B).breaks();
  world.at(C).breaks();
  await settled();
  assert.deepEqual(asked, ["call_1"]);
  await world.passes(320);
  assert.equal(asked.length, 2);
  assert.equal(world.at(B).opens().told[0]?.["epoch"], 4);
  world.at(B).breaks();
  await settled();
  assert.deepEqual([caller.over, caller.lost], [true, true]);
});

test("hangs up, and tells an edge that takes the call over meanwhile", async () => {
  const ended: (string | null)[] = [];
  const { world, a, caller } = await attachedCaller({ ended: (reason) => ended.push(reason) });
  a.breaks();
  const hungUp = caller.hangup();
  const b = world.at(B).opens();
  b.says(attached(2));
  assert.deepEqual(b.told.at(-1), { type: "hangup" });
  b.says({ type: "ended", end_reason: "caller_hung_up" });
  await hungUp;
  assert.deepEqual([ended, caller.endReason, caller.lost], [["caller_hung_up"], "caller_hung_up", false]);
});

test("the button that is held is told to an edge that takes the call over", async () => {
  const { world, a, caller } = await attachedCaller();
  caller.talk(true);
  assert.deepEqual(a.told.at(-1), { type: "talk", on: true });
  a.breaks();
  const b = world.at(B).opens();
  b.says(attached(2));
  assert.deepEqual(b.told.at(-1), { type: "talk", on: true });
  caller.talk(false);
  b.breaks();
  const c = world.at(C).opens();
  c.says(attached(3));
  assert.equal(c.told.length, 1);
});

test("what is filler is played, closes no gap and is not what was heard of the agent", async () => {
  const frames: Frame[] = [];
  const { world, a, caller } = await attachedCaller({ audio: (frame) => frames.push(frame) });
  a.plays(1, 0);
  a.breaks();
  const b = world.at(B).opens();
  b.says(attached(2));
  b.plays(0, 0, { flag: 1 });
  assert.deepEqual([frames.at(-1)?.filler, caller.gaps[0]?.audioMs], [true, null]);
  caller.send(new Uint8Array(640));
  assert.equal(new DataView(b.frames[0]?.buffer ?? new ArrayBuffer(20)).getUint32(12), 1);
});

test("clear and notices are told; nonsense is nothing", async () => {
  const told: unknown[] = [];
  const { a } = await attachedCaller({ clear: (at) => told.push(at), notice: (n) => told.push(n.event) });
  a.says({ type: "clear", stamp: 3, at: { utterance: 2, offset_ms: 40 } });
  a.says({ type: "notice", event: "call.reconnecting", at_ms: 1, data: { reason: "agent_lost" } });
  for (const nonsense of ["", "[]", "null", "{", '{"type":"tick"}', '{"type":"move","epoch":"x"}', '{"type":"new"}']) a.says(nonsense);
  a.onmessage?.({ data: new ArrayBuffer(20) } as MessageEvent);
  assert.deepEqual(told, [{ utterance: 2, offset_ms: 40 }, "call.reconnecting"]);
});

test("audio that the network does not take is not piled up", async () => {
  const { a, caller } = await attachedCaller();
  a.bufferedAmount = 33_000;
  caller.send(new Uint8Array(640));
  assert.equal(a.frames.length, 0);
});

test("a tab whose timers sleep still sees the silence, by its microphone", async () => {
  const { world, caller } = await attachedCaller();
  world.later = () => () => undefined; // no timer comes any more
  world.nowMs += 420;
  caller.send(new Uint8Array(640));
  assert.equal(world.at(B).url, `${B}/v1/media`);
});
