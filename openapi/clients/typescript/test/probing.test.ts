/** How round trips are measured, under a virtual clock: each edge echoes after so long. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { chosen, probeRegions } from "../src/probing.js";
import type { Region } from "../src/probing.js";
import { FakeSocket, FakeWorld, settled } from "./fakes.js";

const region = (id: string, ...urls: string[]): Region => ({ id, probes: urls.map((ws) => ({ ws })) });

/** Edges by address: how long an echo takes, or null where nobody is there. */
class Edges extends FakeWorld {
  shown: string[] = [];

  constructor(private readonly rttMs: Record<string, number | null>) {
    super();
  }

  override open(url: string, protocol: string): FakeSocket {
    const socket = super.open(url, protocol);
    const rttMs = this.rttMs[url];
    if (rttMs == null) {
      this.later(1, () => socket.breaks());
      return socket;
    }
    this.later(rttMs, () => socket.opens());
    socket.send = (data) => {
      socket.sent.push(data);
      const [number, nonce] = String(data).split(" ");
      if (nonce !== undefined) this.shown.push(nonce);
      this.later(rttMs, () => socket.says(`${number} n${socket.sent.length}-${url}`));
    };
    return socket;
  }
}

async function measured(world: Edges, regions: Region[], options = {}) {
  const found = probeRegions(regions, { world, ...options });
  await world.passes(3_000);
  return await found;
}

test("nearest first; more samples for the near ones, and every nonce is shown once and at once", async () => {
  const rtts: Record<string, number> = { "ws://a": 10, "ws://b": 50, "ws://c": 90, "ws://d": 120 };
  const world = new Edges(rtts);
  const found = await measured(world, ["d", "a", "c", "b"].map((id) => region(id, `ws://${id}`)));
  assert.deepEqual(found.map((f) => [f.region, f.rtt_ms, f.jitter_ms, f.loss]), [["a", 10, 0, 0], ["b", 50, 0, 0], ["c", 90, 0, 0], ["d", 120, 0, 0]]);
  const sent = (id: string) => world.at(`ws://${id}`).sent.filter((m) => !String(m).startsWith("z")).length;
  assert.equal(sent("a"), 8);
  assert.ok(sent("d") <= 3);
  assert.ok(world.sockets.every((s) => s.closed && s.protocol === "voxplane.probe.v1"));
  assert.match(String(world.at("ws://a").sent.at(-1)), /^z n/, "the edge sees how long its last echo took");
  assert.equal(new Set(world.shown).size, world.shown.length);
});

test("what arrives after the budget is left out, and a region that does not answer as well", async () => {
  const world = new Edges({ "ws://a": 20, "ws://far": 400, "ws://dead": null });
  const found = await measured(world, [region("far", "ws://far"), region("a", "ws://a"), region("dead", "ws://dead")]);
  assert.deepEqual(found.map((f) => f.region), ["a"]);
});

test("the second edge of a region is tried where the first does not let us in", async () => {
  const world = new Edges({ "ws://one": null, "ws://two": 30 });
  assert.deepEqual((await measured(world, [region("r", "ws://one", "ws://two")])).map((f) => f.rtt_ms), [30]);
});

test("where nobody answers it ends, with nothing", async () => {
  assert.deepEqual(await measured(new Edges({}), [region("r", "ws://one")]), []);
  assert.deepEqual(await measured(new Edges({}), []), []);
});

test("a sample that is out for three round trips is lost", async () => {
  const world = new Edges({ "ws://a": 10 });
  const found = probeRegions([region("a", "ws://a")], { world });
  await world.passes(20);
  const socket = world.at("ws://a");
  const send = socket.send.bind(socket);
  socket.send = (data) => {
    if (!String(data).startsWith("3")) send(data);
    else socket.sent.push(data);
  };
  await world.passes(1_000);
  await settled();
  const [latency] = await found;
  assert.equal(latency?.loss, 0.125);
});

test("which regions are measured", () => {
  const all = [region("a", "ws://a"), region("none"), region("b", "ws://b")];
  assert.deepEqual(chosen(all).map((r) => r.id), ["a", "b"]);
  assert.deepEqual(chosen(all, ["b", "none", "x", "b"]).map((r) => r.id), ["b"]);
});
