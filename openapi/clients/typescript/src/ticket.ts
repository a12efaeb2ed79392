/** What a ticket grants, read without its signature: that is the edges' business. */

/** One epoch on one edge. `url`: its media listener, `ws(s)://host:port`; of a call over WebRTC its HTTP listener, `http(s)://`. */
export interface Grant {
  readonly epoch: number;
  readonly region: string;
  readonly url: string;
}

/** `grants`: in order of epoch, one at least. Times are Unix seconds; 0 where the ticket does not say. */
export interface TicketClaims {
  readonly callId: string;
  readonly grants: readonly Grant[];
  readonly attachBy: number;
  readonly expires: number;
}

export const TICKET_CHARS_MAX = 16 * 1024;

export class NotATicket extends Error {
  readonly code = "not_a_ticket";
  constructor() {
    super("this is not a ticket: use the `ticket` of a created call");
    this.name = "NotATicket";
  }
}

/** Throws `NotATicket`. */
export function readTicket(ticket: string): TicketClaims {
  try {
    if (ticket.length > TICKET_CHARS_MAX) throw new NotATicket();
    const claims = JSON.parse(fromBase64Url(ticket.split(".")[1] ?? "")) as Record<string, unknown>;
    const grants = (claims["g"] as unknown[]).map(readGrant).sort((a, b) => a.epoch - b.epoch);
    const callId = claims["sub"];
    if (grants.length === 0 || typeof callId !== "string") throw new NotATicket();
    return { callId, grants, attachBy: seconds(claims["attach_by"]), expires: seconds(claims["exp"]) };
  } catch {
    throw new NotATicket();
  }
}

/** Whether the call is one over WebRTC: its edges are reached by offers. */
export function isOverWebRtc({ grants }: TicketClaims): boolean {
  return grants.every(({ url }) => url.startsWith("http"));
}

function readGrant(raw: unknown): Grant {
  const { e: epoch, region, url } = raw as Record<string, unknown>;
  const usable = typeof url === "string" && /^(ws|http)s?:\/\/[^/?#@\s]+$/.test(url);
  if (!Number.isSafeInteger(epoch) || typeof region !== "string" || !usable) throw new NotATicket();
  return { epoch: epoch as number, region, url };
}

function seconds(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

function fromBase64Url(text: string): string {
  const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(binary, (c) => c.charCodeAt(0)));
}
