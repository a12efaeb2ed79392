/** The page at `/talk`: one call, with the microphone and the loudspeaker of whoever opens it. */

import type { Joined } from "../src/audio/index.js";
import { Caller } from "../src/caller.js";
import { probeRegions } from "../src/probing.js";
import { NotATicket, isOverWebRtc, readTicket } from "../src/ticket.js";
import { openSound } from "./sound.js";
import type { Sound } from "./sound.js";
import { microphoneTrouble, ticketIn, trouble } from "./trouble.js";
import { element, gapText, noticeText, say, show, showLevel, showProblem, showState } from "./view.js";

const PROBE_EVERY_MS = 5_000;
const PROBE_SAMPLES = 4;

const NO_CALL = "–";

const talk = element<HTMLButtonElement>("talk");
const hangUp = element<HTMLButtonElement>("hangup");

/** One call, from the press of a button until it is over. */
class Talk {
  private sound: Sound | null = null;
  private caller: Caller | null = null;
  private readonly context = new AudioContext({ latencyHint: "interactive" });
  private timer: ReturnType<typeof setInterval> | undefined;
  private region = "";
  private live = false;

  constructor(private readonly ticket: string) {}

  /** Rejects with what the microphone or the edges say. */
  async begin(): Promise<void> {
    try {
      this.sound = await openSound(this.context, isOverWebRtc(readTicket(this.ticket)), {
        joined: (what) => this.joined(what),
        level: (peak) => {
          showLevel("theirs", peak);
          this.showBuffered();
        },
        said: (samples, peak) => {
          this.caller?.send(samples);
          showLevel("mine", peak);
        },
      });
      this.caller = this.callerWith(this.sound);
      await this.caller.begin();
      this.live = true;
    } catch (error) {
      this.close();
      throw error;
    }
    this.timer = setInterval(() => void this.measure(), PROBE_EVERY_MS);
    void this.measure();
  }

  private callerWith({ options }: Sound): Caller {
    return new Caller(this.ticket, {
      ...options,
      notice: ({ event, data }) => {
        const text = noticeText(event, data);
        if (text !== null) say(text);
      },
      changed: () => this.changed(),
      gap: ({ audioMs }) => show("gap", element("gap").textContent ?? "", { arrivalMs: String(Math.round(audioMs ?? -1)) }),
      ended: (reason) => this.ended(reason),
    });
  }

  get muted(): boolean {
    return this.sound?.microphone.muted ?? false;
  }

  mute(muted: boolean): void {
    if (this.sound !== null) this.sound.microphone.muted = muted;
  }

  press(digit: string): void {
    this.caller?.dtmf(digit);
    say(`Key ${digit}`);
  }

  async hangUp(): Promise<void> {
    await this.caller?.hangup();
  }

  private showBuffered(): void {
    const ms = this.sound?.bufferedMs ?? null;
    show("buffered", ms === null ? "by the browser" : `${Math.round(ms / 10) * 10} ms`);
  }

  private changed(): void {
    if (this.caller === null) return;
    const { state, epoch, grant, grants } = this.caller;
    showState(state);
    show("epoch", String(epoch));
    show("region", grant.region);
    show("standbys", grants.filter((g) => g.epoch > epoch).map((g) => g.region).join(", ") || "none");
    if (state === "attached" && grant.region !== this.region) {
      if (this.region !== "") say(`The call went from ${this.region} to ${grant.region}`);
      this.region = grant.region;
      void this.measure();
    }
  }

  /** What was heard, or rather was not: the silence in the loudspeaker between the old edge's audio and the new one's. */
  private joined({ silentMs }: Joined): void {
    const gap = this.caller?.gaps.at(-1);
    const why = gapText(gap?.reason ?? "");
    show("gap", `${Math.round(silentMs)} ms, ${why}`, { heardMs: silentMs.toFixed(1), reason: gap?.reason ?? "" });
    say(`Gap of ${Math.round(silentMs)} ms (${why})`);
  }

  private async measure(): Promise<void> {
    const caller = this.caller;
    if (caller === null) return;
    const { region, url } = caller.grant;
    // of a call over WebRTC the grant names the other listener, which has no echo
    if (url.startsWith("http")) return;
    const [found] = await probeRegions([{ id: region, probes: [{ ws: `${url}/probe` }] }], { samples: PROBE_SAMPLES });
    if (found !== undefined && !caller.over) show("rtt", `${found.rtt_ms.toFixed(1)} ms`, { ms: String(found.rtt_ms) });
  }

  private ended(reason: string | null): void {
    if (!this.live) return; // it never began: whoever wanted it hears why
    this.live = false;
    this.close();
    if (reason === null && this.caller?.lost) showProblem("No edge of this call answers any more.");
    say(reason === null ? "The call was left" : `The call is over: ${reason}`);
    begun(null);
  }

  private close(): void {
    clearInterval(this.timer);
    this.caller?.close();
    this.sound?.close();
    void this.context.close().catch(() => undefined);
    showLevel("mine", 0);
    showLevel("theirs", 0);
  }
}

let call: Talk | null = null;

/** The buttons as they are with this call, or without one. */
function begun(now: Talk | null): void {
  call = now;
  hangUp.disabled = now === null;
  talk.disabled = now === null;
  showMuted();
}

function showMuted(): void {
  const muted = call?.muted ?? false;
  talk.textContent = call === null ? "Talk" : muted ? "Unmute" : "Mute";
  if (call === null) talk.removeAttribute("aria-pressed");
  else talk.setAttribute("aria-pressed", String(muted));
}

async function begin(ticket: string): Promise<void> {
  talk.disabled = true;
  showProblem("");
  showState("joining", "Waiting for the microphone");
  try {
    const next = new Talk(ticket);
    await next.begin();
    begun(next);
    say("Connected");
  } catch (error) {
    showProblem(microphoneTrouble(error) ?? (error instanceof Error ? error.message : String(error)));
    showState("idle", "Not connected");
    talk.disabled = false;
  }
}

function toggleMute(): void {
  call?.mute(!call.muted);
  showMuted();
}

/** The ticket is a key to the call: it does not stay in the address, nor in the browser's history. */
function use(ticket: string): void {
  history.replaceState(null, "", location.pathname);
  try {
    const claims = readTicket(ticket);
    const { callId, grants } = claims;
    const why = trouble({ secure: isSecureContext, https: location.protocol === "https:" }, grants);
    if (why !== null) {
      showProblem(why);
      return;
    }
    show("call", callId);
    show("way", isOverWebRtc(claims) ? "WebRTC (Opus)" : "WebSocket (PCM)");
    showProblem("");
    element("paste").hidden = true;
    showState("idle", "Ready: press Talk");
    talk.disabled = false;
    talk.onclick = () => (call === null ? void begin(ticket) : toggleMute());
    talk.focus();
  } catch (error) {
    showProblem(error instanceof NotATicket ? error.message : String(error));
    ask();
  }
}

function ask(): void {
  const form = element<HTMLFormElement>("paste");
  form.hidden = false;
  showState("idle", "Which call?");
  form.onsubmit = (event) => {
    event.preventDefault();
    use(element<HTMLInputElement>("ticket").value.trim());
  };
}

hangUp.onclick = () => void call?.hangUp();
document.addEventListener("keydown", (event) => {
  if (call === null || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (event.target instanceof HTMLInputElement) return;
  if (event.key === "m" || event.key === "M") toggleMute();
  else if (/^[0-9*#]$/.test(event.key)) call.press(event.key);
});

function look(): void {
  const given = ticketIn(location.hash);
  if (given !== null) use(given);
  else if (element("call").textContent === NO_CALL) ask();
}

// another address pasted into the same tab loads nothing anew
addEventListener("hashchange", () => {
  if (call === null) look();
});
look();
