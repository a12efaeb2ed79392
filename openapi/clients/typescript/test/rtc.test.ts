/** A call over WebRTC: what is posted where, what a refusal becomes, and that ticks stand in for the frames. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Splice } from "../src/audio/splice.js";
import { Caller } from "../src/caller.js";
import { RtcSocket, overWebRtc } from "../src/rtc/index.js";
import type { RtcPorts } from "../src/rtc/index.js";
import { FakeSocket, FakeWorld, settled, ticket } from "./fakes.js";

const A = "http://a.example:1";
const B = "https://b.example:2";
const TICKET = ticket({ 1: A, 2: B });
const MICROPHONE = { kind: "audio" } as MediaStreamTrack;

class FakePeer {
  connectionState = "new";
  localDescription = { type: "offer", sdp: "v=0 offer" };
  remote = "";
  closed = false;
  ontrack: ((event: { track: object }) => void) | null = null;
  onicecandidate: ((event: { candidate: object | null }) => void) | null = null;
  onconnectionstatechange: (() => void) | null = null;
  readonly channel = { label: "", readyState: "connecting", bufferedAmount: 0, sent: [] as string[], send: (text: string) => void this.channel.sent.push(text) };

  createDataChannel(label: string): object {
    this.channel.label = label;
    return this.channel;
  }
  addTransceiver(): void {}
  async setLocalDescription(): Promise<void> {}
  async setRemoteDescription({ sdp }: { sdp: string }): Promise<void> {
    this.remote = sdp;
  }
  close(): void {
    this.closed = true;
  }
}

interface Asked {
  url: string;
  init: RequestInit;
}

function edge(answer: (asked: Asked) => Response): { peers: FakePeer[]; asked: Asked[]; ports: RtcPorts } {
  const peers: FakePeer[] = [];
  const asked: Asked[] = [];
  const ports: RtcPorts = {
    peer: () => {
      peers.push(new FakePeer());
      return peers.at(-1) as unknown as RTCPeerConnection;
    },
    fetch: async (url, init) => {
      asked.push({ url, init });
      return answer({ url, init });
    },
  };
  return { peers, asked, ports };
}

function socket(ports: RtcPorts, track = (): void => undefined): { rtc: RtcSocket; said: string[]; ends: number[] } {
  const rtc = new RtcSocket(`${A}/v1/webrtc`, "voxplane.media.v1", { ticket: TICKET, epoch: 1 }, { microphone: MICROPHONE, track }, ports);
  const said: string[] = [];
  const ends: number[] = [];
  rtc.onmessage = ({ data }) => said.push(String(data));
  rtc.onclose = () => ends.push(1);
  return { rtc, said, ends };
}

test("an offer goes out with the ticket, and candidates follow it to where the answer says", async () => {
  const location = "/v1/webrtc/secret";
  const { peers, asked, ports } = edge(({ init }) =>
    init.method === "POST" ? new Response("v=0 answer", { status: 201, headers: { Location: location } }) : new Response(null, { status: 204 }),
  );
  const { rtc } = socket(ports);
  const [peer] = peers as [FakePeer];
  const found = (port: number) => ({ candidate: `candidate:1 1 udp 1 10.0.0.1 ${port} typ host`, sdpMid: "0", usernameFragment: "uf" });
  peer.onicecandidate?.({ candidate: found(1) });
  await settled();
  await settled();
  assert.equal(peer.channel.label, "voxplane.media.v1");
  assert.deepEqual([asked[0]?.url, asked[0]?.init.body], [`${A}/v1/webrtc`, "v=0 offer"]);
  assert.equal((asked[0]?.init.headers as Record<string, string>)["Authorization"], `Bearer ${TICKET}`);
  assert.equal(peer.remote, "v=0 answer");
  peer.onicecandidate?.({ candidate: found(2) });
  peer.onicecandidate?.({ candidate: null });
  await settled();
  assert.deepEqual(asked.slice(1).map(({ url, init }) => [url, init.method]), [[`${A}${location}`, "PATCH"], [`${A}${location}`, "PATCH"]]);
  assert.match(String(asked[1]?.init.body), /^a=ice-ufrag:uf\r\nm=audio .*\r\na=mid:0\r\na=candidate:1 1 udp 1 10.0.0.1 1 typ host\r\n$/);
  rtc.send("lost: it is not open");
  peer.channel.readyState = "open";
  rtc.send("said");
  assert.deepEqual(peer.channel.sent, ["said"]);
  rtc.close();
  assert.ok(peer.closed, "and no DELETE: that would hang up");
  assert.equal(asked.length, 3);
});

test("what an edge refuses an offer with is its refusal, and one that is not there has closed", async () => {
  const problem = (status: number, code: string) => edge(() => new Response(JSON.stringify({ code, detail: "d", fix: "f" }), { status }));
  for (const [status, code, goesOn] of [[403, "expired", false], [403, "wrong_edge", true], [503, "full", true], [501, "no_webrtc", true]] as const) {
    const { ports, peers } = problem(status, code);
    const { said, ends } = socket(ports);
    await settled();
    const { next_url, ...refused } = JSON.parse(said[0] ?? "") as Record<string, unknown>;
    assert.deepEqual(refused, { type: "refused", code, detail: "d", fix: "f" });
    assert.deepEqual([next_url !== null, ends.length, peers[0]?.closed], [goesOn, 1, true], code);
  }
  const page = edge(() => new Response("<html>", { status: 502 }));
  const { said } = socket(page.ports);
  await settled();
  assert.match(said[0] ?? "", /http_502/);
  const nobody = edge(() => {
    throw new TypeError("Failed to fetch");
  });
  const lost = socket(nobody.ports);
  await settled();
  assert.deepEqual([lost.said, lost.ends], [[], [1]]);
});

test("a caller of sockets alone says what a ticket for WebRTC needs", () => {
  assert.throws(() => new Caller(TICKET), { code: "wrong_world" });
  const { ports, peers } = edge(() => new Response(null, { status: 500 }));
  new Caller(TICKET, { world: overWebRtc({ microphone: MICROPHONE, track: () => undefined }, ports) }).close();
  assert.equal(peers.length, 0, "nothing is opened before it begins");
});

class TrackWorld extends FakeWorld {
  /** What has come on a track, where it is counted. */
  packets: number | null = null;

  override open(url: string, protocol: string): FakeSocket {
    return Object.assign(super.open(url, protocol), { onTrack: true, packets: async () => this.packets });
  }
}

async function onTrack(world: TrackWorld): Promise<{ caller: Caller; a: FakeSocket; played: (said?: Record<string, unknown>) => unknown }> {
  const caller = new Caller(TICKET, { world, discardSilence: true });
  const begun = caller.begin();
  const a = world.at(A).opens();
  assert.equal(a.told[0]?.["dtx"], undefined, "that is the track's own");
  a.says({ type: "attached", epoch: 1, stamp: 1, region: "a" });
  await begun;
  return { caller, a, played: (said = a.told.at(-1)) => said?.["played"] };
}

/** What the edge that takes the call over is told, 500 ms after the owner was heard last. */
async function takenBy(world: TrackWorld): Promise<unknown> {
  await world.passes(420);
  const b = world.at(B).opens();
  b.says({ type: "prepared", epoch: 2, stamp: 1 });
  await world.passes(100);
  return (b.told.at(-1)?.["resume"] as Record<string, unknown>)["played"];
}

test("of an edge that has died, what came behind its last tick was heard", async () => {
  for (const [more, offset_ms] of [[0, 380], [1, 400], [4, 460], [30, 480], [null, 450]] as const) {
    const world = new TrackWorld();
    const { caller, a } = await onTrack(world);
    world.packets = more === null ? null : 70;
    a.says({ type: "tick", stamp: 7, at: { utterance: 2, offset_ms: 400 } });
    await settled();
    if (more !== null) world.packets = 70 + more;
    assert.deepEqual(await takenBy(world), { utterance: 2, offset_ms }, `${more} packets`);
    caller.close();
  }
});

test("between ticks the clock says where the agent is, and a clear says where it stopped", async () => {
  const world = new TrackWorld();
  const { caller, a, played } = await onTrack(world);
  a.says({ type: "tick", stamp: 7, at: { utterance: 2, offset_ms: 400 } });
  await world.passes(60);
  a.says({ type: "tick", stamp: 8 });
  assert.deepEqual(played(), { utterance: 2, offset_ms: 440 }, "it has ended there");
  a.says({ type: "tick", stamp: 9, at: { utterance: 3, offset_ms: 0 } });
  assert.deepEqual(played(), { utterance: 3, offset_ms: 0 });
  a.says({ type: "clear", stamp: 10, at: { utterance: 3, offset_ms: 60 } });
  world.packets = 99;
  assert.deepEqual(await takenBy(world), { utterance: 3, offset_ms: 60 }, "silence comes in packets as well");
  caller.close();
});

test("ticks beside the track are answered, say what was heard, and close the gap", async () => {
  const world = new TrackWorld();
  const gaps: (number | null)[] = [];
  const caller = new Caller(TICKET, { world, gap: ({ audioMs }) => gaps.push(audioMs) });
  const begun = caller.begin();
  const a = world.at(A).opens();
  assert.equal(a.url, `${A}/v1/webrtc`);
  a.says({ type: "attached", epoch: 1, stamp: 1, region: "a" });
  await begun;
  a.says({ type: "tick", stamp: 7, at: { utterance: 2, offset_ms: 400 } });
  assert.deepEqual(a.told.at(-1), { type: "alive", stamp: 7, played: { utterance: 2, offset_ms: 380 } }, "it goes out behind its tick");
  caller.send(new Uint8Array(640));
  assert.equal(a.frames.length, 0, "what the microphone says is on the track");
  a.says({ type: "tick", stamp: 8, at: { utterance: 0, offset_ms: 0 } });
  assert.deepEqual(a.told.at(-1)?.["played"], { utterance: 2, offset_ms: 380 }, "filler is nothing of the agent's");
  await world.passes(420);
  const b = world.at(B).opens();
  b.says({ type: "prepared", epoch: 2, stamp: 1 });
  await world.passes(100);
  assert.equal((b.told.at(-1)?.["resume"] as Record<string, unknown>)["played"] !== undefined, true);
  b.says({ type: "attached", epoch: 2, stamp: 2, region: "b" });
  b.says({ type: "tick", stamp: 3, at: { utterance: 3, offset_ms: 100 } });
  assert.deepEqual([caller.epoch, gaps], [2, [520]]);
  caller.close();
});

test("the seam is heard between the last sound of one edge and the first of a newer one", () => {
  const splice = new Splice();
  assert.equal(splice.sound(1, 0, 0.02), null);
  assert.equal(splice.sound(1, 0.02, 1.5), null);
  const joined = splice.sound(2, 2.25, 2.27);
  assert.deepEqual([joined?.fromEpoch, joined?.toEpoch, Math.round(joined?.silentMs ?? 0)], [1, 2, 750]);
  assert.equal(splice.sound(1, 2.3, 2.4), null, "an older edge that speaks on joins nothing");
  assert.equal(splice.sound(2, 2.4, 2.5), null);
});
