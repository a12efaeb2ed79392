/** One socket to one edge, from the moment it is wanted until it is gone; and all of a caller's. */

import { MEDIA_PATH, SUBPROTOCOL, WEBRTC_PATH } from "./messages.js";
import type { Mode } from "./messages.js";
import type { Socket, World } from "./world.js";

export const OPEN_WITHIN_MS = 1_500;

export interface LinkEars {
  heard(link: Link, message: string | ArrayBuffer): void;
  /** Told once that it is over. */
  closed(link: Link): void;
}

/** `mode`: what is asked of the edge in the first message. Neither ear hears anything after `drop`. */
export class Link {
  prepared = false;
  /** The code with which the edge has refused. */
  refused = "";
  private socket: Socket | null = null;
  private open = false;
  private over = false;
  private readonly stopWaiting: () => void;

  constructor(
    world: World,
    url: string,
    ticket: string,
    readonly epoch: number,
    readonly mode: Mode,
    private readonly first: () => string,
    private readonly ears: LinkEars,
  ) {
    this.stopWaiting = world.later(OPEN_WITHIN_MS, () => {
      if (!this.open) this.end();
    });
    try {
      const path = url.startsWith("http") ? WEBRTC_PATH : MEDIA_PATH;
      this.socket = world.open(url + path, SUBPROTOCOL, { ticket, epoch });
    } catch {
      // told later, as of a socket that does not open: nobody knows this link yet
      world.later(0, () => this.end());
      return;
    }
    this.listen(this.socket);
  }

  /** Bytes that wait to be sent. */
  get unsent(): number {
    return this.socket?.bufferedAmount ?? 0;
  }

  /** Its audio goes on a track. */
  get onTrack(): boolean {
    return this.socket?.onTrack ?? false;
  }

  /** Of audio that came on its track; null where there is none, or nobody knows. */
  async packets(): Promise<number | null> {
    return (await this.socket?.packets?.().catch(() => null)) ?? null;
  }

  get gone(): boolean {
    return this.over;
  }

  /** A socket that is not open swallows it: its end is told apart. */
  tell(message: string | Uint8Array<ArrayBuffer>): void {
    if (this.open && !this.over) this.socket?.send(message);
  }

  /** Gone at once, and nobody is told. */
  drop(): void {
    if (this.over) return;
    this.over = true;
    this.stopWaiting();
    const socket = this.socket;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close();
  }

  private listen(socket: Socket): void {
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.open = true;
      this.stopWaiting();
      this.tell(this.first());
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string" || data instanceof ArrayBuffer) this.ears.heard(this, data);
    };
    socket.onclose = socket.onerror = () => this.end();
  }

  private end(): void {
    if (this.over) return;
    this.drop();
    this.ears.closed(this);
  }
}

/** The sockets of one caller: none of them outlives `close`. */
export class Links {
  private readonly links = new Set<Link>();

  constructor(
    private readonly world: World,
    private readonly ears: LinkEars,
  ) {}

  open(url: string, ticket: string, epoch: number, mode: Mode, first: () => string): Link {
    const link = new Link(this.world, url, ticket, epoch, mode, first, {
      heard: this.ears.heard,
      closed: (gone) => {
        this.links.delete(gone);
        this.ears.closed(gone);
      },
    });
    this.links.add(link);
    return link;
  }

  drop(link: Link | null | undefined): void {
    if (link == null) return;
    link.drop();
    this.links.delete(link);
  }

  close(): void {
    for (const link of [...this.links]) this.drop(link);
  }
}
