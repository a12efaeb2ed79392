/** What can be wrong with where this page runs, and what to do about it. Pure. */

import type { Grant } from "../src/ticket.js";

export interface Place {
  readonly secure: boolean;
  readonly https: boolean;
}

/** Why no call can be made from here; null where one can. */
export function trouble(place: Place, grants: readonly Grant[]): string | null {
  if (!place.secure) {
    return "Browsers give a microphone only to pages from https://, or from localhost and 127.0.0.1. Open this page so.";
  }
  const barred = place.https ? grants.filter(({ url }) => /^(ws|http):/.test(url) && !isLoopback(url)) : [];
  if (barred.length > 0) {
    return `A page from https:// may not open ${barred[0]?.url ?? ""}: give the edges wss:// and https:// addresses (VOXPLANE_PUBLIC_MEDIA_URL, VOXPLANE_PUBLIC_HTTP_URL).`;
  }
  return null;
}

/** What a microphone's error means. */
export function microphoneTrouble(error: unknown): string | null {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError") return "The microphone was not allowed: allow it for this page in the browser, and try again.";
  if (name === "NotFoundError") return "There is no microphone: plug one in, and try again.";
  if (name === "NotReadableError") return "The microphone is in use by another program.";
  return null;
}

function isLoopback(url: string): boolean {
  const host = new URL(url).hostname;
  return host === "localhost" || host.endsWith(".localhost") || host === "[::1]" || /^127(\.\d+){3}$/.test(host);
}

/** The ticket in `#ticket=…`. It is never in the query: that is sent to the server, and stands in its logs. */
export function ticketIn(fragment: string): string | null {
  return new URLSearchParams(fragment.replace(/^#/, "")).get("ticket");
}
