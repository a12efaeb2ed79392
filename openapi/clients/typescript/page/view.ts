/** What the page shows. It decides words, and nothing of the call. */

import type { CallState } from "../src/ears.js";

const LINES_MAX = 200;

const STATES: Record<CallState, string> = {
  joining: "Connecting",
  attached: "Connected",
  suspicious: "The edge is silent, a standby is being prepared",
  taking: "Going on at a standby",
  moving: "Being moved to another edge",
  over: "The call is over",
};

export function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no ${id}`);
  return found as T;
}

export function show(id: string, text: string, data: Record<string, string> = {}): void {
  const place = element(id);
  if (place.textContent !== text) place.textContent = text;
  Object.assign(place.dataset, data);
}

export function showState(state: CallState | "idle", text?: string): void {
  show("status", text ?? (state === "idle" ? "Ready" : STATES[state]), { state });
}

export function showProblem(text: string): void {
  const place = element("problem");
  place.textContent = text;
  place.hidden = text === "";
}

export function showLevel(id: "mine" | "theirs", peak: number): void {
  element<HTMLMeterElement>(id).value = peak;
}

/** A line of what happened, the newest last. */
export function say(text: string): void {
  const log = element("said");
  const line = document.createElement("li");
  const time = document.createElement("time");
  const now = new Date();
  time.dateTime = now.toISOString();
  time.textContent = now.toLocaleTimeString();
  line.append(time, text);
  log.append(line);
  while (log.childElementCount > LINES_MAX) log.firstElementChild?.remove();
  log.scrollTop = log.scrollHeight;
}

/** Why the agent was not heard for a moment. */
export function gapText(reason: string): string {
  switch (reason) {
    case "closed":
      return "edge lost";
    case "silent":
      return "edge silent";
    case "planned":
      return "planned move";
    default:
      return "edge refused";
  }
}

/** A notice in words; null where there is nothing to say. */
export function noticeText(event: string, data: unknown): string | null {
  const { text, role } = (typeof data === "object" && data !== null ? data : {}) as Record<string, unknown>;
  if (typeof text === "string" && text !== "") return `${role === "caller" ? "You" : "Bot"}: ${text}`;
  switch (event) {
    case "call.reconnecting":
      return "The bot is away; waiting for it";
    case "agent.connected":
      return "The bot is connected";
    case "call.reconnected":
      return "Audio flows again";
    default:
      return null;
  }
}
