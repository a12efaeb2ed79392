/**
 * A planned move as the caller makes it: the new edge is prepared and taken while the old one goes on; it is left afterwards.
 * When it may be let go is `Overlap`'s decision. What is heard of the old one until then is heard.
 */

import { moved, ready } from "./messages.js";
import { Overlap } from "./overlap.js";
import type { Link, Links } from "./links.js";
import type { Tickets } from "./tickets.js";
import type { World } from "./world.js";

/** An edge that is told to part, and does not hang up, is left all the same. */
const PART_WITHIN_MS = 2_000;

/** `tell` speaks to the owner; `go` is told that the edge of this epoch is prepared and to be taken. */
export interface MovingPorts {
  prepare(epoch: number): Link;
  tell(message: string): void;
  go(epoch: number): void;
}

interface Left {
  readonly link: Link;
  readonly toEpoch: number;
  readonly overlap: Overlap;
  told: boolean;
}

export class Moving {
  /** The new edge's, from `move` until it is taken. */
  link: Link | null = null;
  private going = false;
  private left: Left | null = null;

  constructor(
    private readonly world: World,
    private readonly tickets: Tickets,
    private readonly links: Links,
    private readonly ports: MovingPorts,
  ) {}

  /** By the owner. A later move replaces an earlier; where what was prepared has been lost since, it is prepared again. */
  asked({ type, epoch }: { type: "move" | "go"; epoch: number }): void {
    if (!this.tickets.has(epoch)) {
      this.answer(epoch, "no_such_epoch");
      return;
    }
    const going = type === "go";
    if (!going || this.link?.epoch !== epoch) {
      this.cancel();
      this.link = this.ports.prepare(epoch);
    }
    this.going = going;
    this.goIfReady();
  }

  answer(epoch: number, code: string): void {
    this.ports.tell(ready(epoch, code));
  }

  prepared(link: Link): void {
    this.answer(link.epoch, "");
    this.goIfReady();
  }

  /** A prepared edge keeps nobody waiting for ever: until `go` that is no answer. */
  failed(link: Link): void {
    const going = this.going;
    this.link = null;
    this.going = false;
    if (going || !link.prepared) this.answer(link.epoch, link.refused || "closed");
  }

  /** Hands the link over to whoever takes it. */
  taken(): Link | null {
    const link = this.link;
    this.link = null;
    this.going = false;
    return link;
  }

  cancel(): void {
    this.links.drop(this.taken());
  }

  /** `link` was the owner until now; the new one is attached. */
  leave(link: Link, toEpoch: number, nowMs: number): void {
    this.letGo();
    this.left = { link, toEpoch, overlap: new Overlap(nowMs), told: false };
  }

  isLeft(link: Link): boolean {
    return this.left?.link === link;
  }

  oldSpoke(nowMs: number): boolean {
    return this.left?.overlap.oldSpoke(nowMs) ?? false;
  }

  newSpoke(): void {
    this.left?.overlap.newSpoke();
  }

  backendUp(): void {
    this.left?.overlap.backendUp();
  }

  /** The edge that is left hangs up once it is told where the call is; what it has begun to play is heard before. */
  tick(nowMs: number): void {
    const left = this.left;
    if (left === null || left.told || !left.overlap.over(nowMs)) return;
    left.told = true;
    left.link.tell(moved(left.toEpoch));
    this.world.later(PART_WITHIN_MS, () => {
      this.links.drop(left.link);
      if (this.left === left) this.left = null;
    });
  }

  letGo(): void {
    const left = this.left;
    this.left = null;
    if (left !== null) this.links.drop(left.link);
  }

  private goIfReady(): void {
    if (this.going && this.link !== null && this.link.prepared) this.ports.go(this.link.epoch);
  }
}
