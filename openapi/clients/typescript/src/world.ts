/** What the client needs of the world around it: connections, a clock, chance. A test gives it another one. */

/** The part of `WebSocket` that is used. A connection of another kind looks the same. */
export interface Socket {
  binaryType: BinaryType;
  readonly bufferedAmount: number;
  /** Audio goes on a track beside it, both ways, and nothing binary here. */
  readonly onTrack?: boolean;
  /** Of the track, how many packets have come; null where nobody knows. */
  packets?(): Promise<number | null>;
  onopen: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  onerror: ((event: Event) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(): void;
}

/** Whose connection it is: what an edge must know before there is one, where it must. */
export interface Opening {
  readonly ticket: string;
  readonly epoch: number;
}

export interface World {
  /** Throws where the address is none that a page may open. */
  open(url: string, protocol: string, opening?: Opening): Socket;
  /** Milliseconds by a clock that nobody sets. */
  now(): number;
  /** Does the work once, after so long; what it gives back takes it back. */
  later(ms: number, work: () => void): () => void;
  /** From 0 to 1. */
  draw(): number;
}

export const browser: World = {
  open: (url, protocol) => new WebSocket(url, protocol),
  now: () => performance.now(),
  later: (ms, work) => {
    const timer = setTimeout(work, ms);
    return () => clearTimeout(timer);
  },
  draw: Math.random,
};
