/** A world under a virtual clock, with edges that do nothing by themselves: a test says what they answer. */

import { HEADER_BYTES } from "../src/messages.js";
import type { Socket, World } from "../src/world.js";

export class FakeSocket implements Socket {
  binaryType: BinaryType = "blob";
  bufferedAmount = 0;
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;
  onerror: ((event: Event) => void) | null = null;
  readonly sent: (string | Uint8Array<ArrayBuffer>)[] = [];
  closed = false;

  constructor(
    readonly url: string,
    readonly protocol: string,
  ) {}

  send(data: string | Uint8Array<ArrayBuffer>): void {
    this.sent.push(data);
  }

  close(): void {
    this.closed = true;
  }

  /** The text messages, read. */
  get told(): Record<string, unknown>[] {
    return this.sent.filter((m) => typeof m === "string").map((m) => JSON.parse(m as string) as Record<string, unknown>);
  }

  get frames(): Uint8Array<ArrayBuffer>[] {
    return this.sent.filter((m): m is Uint8Array<ArrayBuffer> => typeof m !== "string");
  }

  /** The edge accepts the connection. */
  opens(): this {
    this.onopen?.({} as Event);
    return this;
  }

  says(message: object | string): void {
    const data = typeof message === "string" ? message : JSON.stringify(message);
    this.onmessage?.({ data } as MessageEvent);
  }

  plays(utterance: number, offsetMs: number, { stamp = 1, flag = 0, ms = 20 } = {}): void {
    const data = new ArrayBuffer(HEADER_BYTES + ms * 32);
    const header = new DataView(data);
    header.setUint8(0, 1);
    header.setUint8(1, flag);
    header.setBigUint64(4, BigInt(stamp));
    header.setUint32(12, utterance);
    header.setUint32(16, offsetMs);
    this.onmessage?.({ data } as MessageEvent);
  }

  breaks(): void {
    this.onclose?.({} as CloseEvent);
  }
}

export class FakeWorld implements World {
  nowMs = 1_000;
  readonly sockets: FakeSocket[] = [];
  private timers: { atMs: number; work: () => void }[] = [];

  open(url: string, protocol: string): FakeSocket {
    if (url.startsWith("ws://forbidden")) throw new DOMException("no", "SecurityError");
    const socket = new FakeSocket(url, protocol);
    this.sockets.push(socket);
    return socket;
  }

  now(): number {
    return this.nowMs;
  }

  later(ms: number, work: () => void): () => void {
    const timer = { atMs: this.nowMs + ms, work };
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((t) => t !== timer);
    };
  }

  draw(): number {
    return 0;
  }

  get waiting(): number {
    return this.timers.length;
  }

  /** The newest socket to that edge. */
  at(url: string): FakeSocket {
    const found = this.sockets.filter((s) => s.url.startsWith(url)).at(-1);
    if (found === undefined) throw new Error(`nobody has opened ${url}: ${this.sockets.map((s) => s.url).join()}`);
    return found;
  }

  /** Lets so much time pass, a timer at a time; `meanwhile` is done every 20 ms. */
  async passes(ms: number, meanwhile: () => void = () => undefined): Promise<void> {
    const endMs = this.nowMs + ms;
    while (this.nowMs < endMs) {
      const stepMs = Math.min(endMs, this.nowMs + 20);
      for (;;) {
        const next = this.timers.filter((t) => t.atMs <= stepMs).sort((a, b) => a.atMs - b.atMs)[0];
        if (next === undefined) break;
        this.timers.splice(this.timers.indexOf(next), 1);
        this.nowMs = Math.max(this.nowMs, next.atMs);
        next.work();
        await settled();
      }
      this.nowMs = stepMs;
      meanwhile();
      await settled();
    }
  }
}

export async function settled(): Promise<void> {
  for (let i = 0; i < 10; i += 1) await Promise.resolve();
}

export const A = "ws://a.example:1";
export const B = "ws://b.example:2";
export const C = "ws://c.example:3";

/** Unsigned: a caller verifies nothing. */
export function ticket(grants: Record<number, string>, callId = "call_1"): string {
  const g = Object.entries(grants).map(([e, url]) => ({ e: Number(e), edge: "x", i: "y", region: url.slice(5, 6), url }));
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "EdDSA" })}.${part({ sub: callId, g, attach_by: 2, exp: 3 })}.c2ln`;
}
