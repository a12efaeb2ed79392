/** The tickets of one call: what they grant, and how a new one is asked for. */

import { CallOver } from "./errors.js";
import { NotATicket, readTicket } from "./ticket.js";
import type { Grant } from "./ticket.js";

/** After each time that no ticket was had; the last holds for all that follow. Each up to a half shorter, by chance. */
const PAUSES_MS = [300, 500, 1_000, 2_000] as const;

/**
 * Asks for another ticket of the call with the one at hand, as `POST /v1/calls/{id}/ticket` does. Null, or an error, where none
 * is to be had now; `CallOver` where none ever will.
 */
export type Renew = (callId: string, ticket: string) => Promise<string | null>;

/** Throws `NotATicket`. Each grant is used with the ticket that has it; a newer ticket's epochs lie above all others. */
export class Tickets {
  readonly callId: string;
  readonly first: Grant;
  private readonly grants = new Map<number, { grant: Grant; ticket: string }>();
  private refused = 0;

  constructor(
    private newest: string,
    private readonly asks: Renew | undefined,
  ) {
    const { callId, grants } = readTicket(newest);
    const [first] = grants;
    if (first === undefined) throw new NotATicket();
    this.callId = callId;
    this.first = first;
    for (const grant of grants) this.grants.set(grant.epoch, { grant, ticket: newest });
  }

  /** Whether there is somebody to ask for another. */
  get renewable(): boolean {
    return this.asks !== undefined;
  }

  get epochs(): number[] {
    return [...this.grants.keys()];
  }

  get all(): Grant[] {
    return [...this.grants.values()].map(({ grant }) => grant);
  }

  has(epoch: number): boolean {
    return this.grants.has(epoch);
  }

  of(epoch: number): { grant: Grant; ticket: string } {
    const found = this.grants.get(epoch);
    if (found === undefined) throw new RangeError(`no ticket of this call grants epoch ${epoch}`);
    return found;
  }

  /** The epochs that are new with it; none where it is no ticket of this call. */
  add(ticket: string): number[] {
    try {
      const { callId, grants } = readTicket(ticket);
      const highest = Math.max(...this.grants.keys());
      const fresh = grants.filter(({ epoch }) => epoch > highest);
      if (callId !== this.callId || fresh.length === 0) return [];
      this.newest = ticket;
      this.refused = 0;
      for (const grant of fresh) this.grants.set(grant.epoch, { grant, ticket });
      return fresh.map(({ epoch }) => epoch);
    } catch {
      return [];
    }
  }

  /** Until it is asked for again. `draw`: from 0 to 1. */
  pauseMs(draw: number): number {
    const pauseMs = PAUSES_MS[Math.min(this.refused, PAUSES_MS.length - 1)] ?? 0;
    this.refused += 1;
    return pauseMs * (1 - draw / 2);
  }

  /** The epochs of a new ticket; none where nobody gives one now. Throws `CallOver`. */
  async renew(): Promise<number[]> {
    try {
      const ticket = (await this.asks?.(this.callId, this.newest)) ?? null;
      return ticket === null ? [] : this.add(ticket);
    } catch (error) {
      if (error instanceof CallOver) throw error;
      return [];
    }
  }
}
