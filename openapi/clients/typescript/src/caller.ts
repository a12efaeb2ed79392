/**
 * A caller that looks after itself: it hears silence or a closed socket, prepares a standby, takes it, goes on.
 *
 * It decides nothing about when (that is `Watch`), nor how a message is written (`Standing`): it holds the sockets, carries out
 * what the watch says, and echoes the newest clock stamp in everything it sends.
 */

import { CallLost, CallOver, CallRefused, WrongWorld } from "./errors.js";
import type { CallState, CallerOptions, Frame } from "./ears.js";
import { Hearing } from "./hearing.js";
import type { Gap } from "./hearing.js";
import { Links } from "./links.js";
import type { Link } from "./links.js";
import { NOWHERE, readAudio, readMessage } from "./messages.js";
import type { Audio, Encoding, FromEdge, Mode, Position } from "./messages.js";
import { Moving } from "./moving.js";
import { OnTrack } from "./on_track.js";
import { Signal } from "./signal.js";
import { Silence } from "./silence.js";
import { Standing } from "./standing.js";
import type { Grant } from "./ticket.js";
import { Tickets } from "./tickets.js";
import { Voice } from "./voice.js";
import { Watch } from "./watch.js";
import type { Action, TakeReason } from "./watch.js";
import { browser } from "./world.js";
import type { World } from "./world.js";

const TICK_MS = 20;
const HANGUP_WITHIN_MS = 5_000;
/** A primary that is silent after the first attach is given up for its standby. */
const PRIMARY_WITHIN_MS = 3_000;
const BEGIN_WITHIN_MS = 10_000;
const BACKEND_UP = new Set(["agent.connected", "call.reconnected"]);

export class Caller {
  readonly callId: string;
  /** What each failover and move has cost. */
  readonly gaps: readonly Gap[];
  endReason: string | null = null;
  /** The edges are not there any more. */
  lost = false;

  private readonly world: World;
  private readonly encoding: Encoding;
  private readonly sampleRate: number;
  private readonly bytesPerMs: number;
  private readonly tickets: Tickets;
  private readonly links: Links;
  private readonly watch: Watch;
  private readonly moving: Moving;
  private readonly standing: Standing;
  private readonly silence: Silence | null;
  private readonly voice: Voice;
  private readonly hearing = new Hearing();
  private readonly standbys = new Map<number, Link>();
  /** Attaches or resumes at the present epoch. */
  private joining: Link | null = null;
  private received: Position = NOWHERE;
  private readonly onTrack: OnTrack;
  private beganMs: number | null = null;
  /** What the agent says comes on a track. */
  private overTrack = false;
  private watching = false;
  private served = false;
  private finished = false;
  private refusal: CallRefused | null = null;
  private said = "";
  private readonly begun: Signal;
  private readonly ending: Signal;

  /** Throws `NotATicket`, `WrongWorld`. Nothing is opened before `begin`. */
  constructor(
    ticket: string,
    private readonly options: CallerOptions = {},
  ) {
    const world = (this.world = options.world ?? browser);
    this.encoding = options.encoding ?? "pcm16";
    this.sampleRate = options.sampleRate ?? 16_000;
    this.bytesPerMs = (this.sampleRate / 1_000) * (this.encoding === "pcm16" ? 2 : 1);
    this.begun = new Signal(world);
    this.ending = new Signal(world);
    this.tickets = new Tickets(ticket, options.renew);
    this.callId = this.tickets.callId;
    if (world === browser && this.tickets.first.url.startsWith("http")) throw new WrongWorld();
    this.gaps = this.hearing.gaps;
    this.onTrack = new OnTrack(world);
    this.standing = new Standing(options.played ?? (() => (this.overTrack ? this.onTrack.position : this.received)));
    this.silence = options.discardSilence ? new Silence(this.encoding, this.bytesPerMs) : null;
    this.voice = new Voice(world, this.standing, this.bytesPerMs, this.silence);
    this.links = new Links(world, { heard: (l, m) => this.heard(l, m), closed: (l) => this.closed(l) });
    this.watch = new Watch(this.tickets.epochs, this.tickets.first.epoch, 0, world.draw);
    this.moving = new Moving(world, this.tickets, this.links, {
      prepare: (epoch) => this.link(epoch, "prepare"),
      tell: (message) => this.voice.tell(message),
      go: (epoch) => this.carryOut(this.watch.planned(epoch, world.now())),
    });
  }

  /** Attaches. Rejects with `CallRefused` or `CallLost` where no edge takes the call. */
  async begin(): Promise<void> {
    if (this.beganMs !== null) throw new Error("a caller begins once");
    this.beganMs = this.world.now();
    this.joining = this.link(this.watch.epoch, "attach");
    this.keep();
    await this.begun.within(BEGIN_WITHIN_MS);
    if (this.served) return;
    this.close();
    throw this.refusal ?? new CallLost();
  }

  get state(): CallState {
    return this.served || this.over ? this.watch.state : "joining";
  }

  get over(): boolean {
    return this.watch.state === "over";
  }

  get epoch(): number {
    return this.watch.epoch;
  }

  /** Where the call is now. */
  get grant(): Grant {
    return this.tickets.of(this.watch.epoch).grant;
  }

  /** Where it is, and where it may go. */
  get grants(): readonly Grant[] {
    return this.tickets.all;
  }

  /** Audio to the agent, in pieces of any length, paced by you. Dropped while nobody takes it, as a network would. A call over
   * WebRTC has its audio on the track: then this is the clock alone. */
  send(samples: Uint8Array): void {
    this.tick();
    if (this.watch.state !== "taking") this.voice.audio(samples);
  }

  /** One of `0-9 * # A B C D`. */
  dtmf(digit: string): void {
    if (!/^[0-9*#A-D]$/.test(digit)) throw new RangeError("a digit is one of 0-9 * # A B C D");
    this.voice.dtmf(digit);
  }

  /** The button of a call whose `turns.mode` is `push_to_talk`; an edge that takes the call over is told again. */
  talk(on: boolean): void {
    this.voice.talk(on);
  }

  /** Ends the call and waits until the edge has said so; one that takes the call over meanwhile is told as well. */
  async hangup(): Promise<void> {
    this.voice.hangup();
    await this.ending.within(HANGUP_WITHIN_MS);
    this.close();
  }

  /** Leaves without a word: the call goes on for a while, and ends by itself. */
  close(): void {
    this.finish();
    this.links.close();
  }

  // ------------------------------------------------------------------------------------------------ the watch

  /**
   * The clock of the watch, and the keep-alive. A timer calls it, and so does `send`: in a tab that is hidden timers run once a
   * second, while the microphone's frames go on.
   */
  private tick(): void {
    if (this.over || this.beganMs === null) return;
    const nowMs = this.world.now();
    if (this.voice.owner?.onTrack) this.onTrack.look(this.voice.owner);
    if (!this.watching) {
      if (nowMs - this.beganMs > PRIMARY_WITHIN_MS) this.primaryFailed();
      return;
    }
    this.carryOut(this.watch.tick(nowMs));
    this.moving.tick(nowMs);
    if (this.watch.state !== "taking") this.voice.keepAlive(nowMs);
  }

  private keep(): void {
    if (this.over) return;
    this.world.later(TICK_MS, () => this.keep());
    this.tick();
  }

  /** The first attach came to nothing: the first standby is as good a place to begin. */
  private primaryFailed(): void {
    const joining = this.joining;
    this.joining = null;
    this.links.drop(joining);
    this.watching = true;
    this.carryOut(this.watch.closed(this.world.now(), joining?.refused ? "refused" : "closed"));
  }

  private carryOut(actions: readonly Action[]): void {
    for (const action of actions) {
      switch (action.kind) {
        case "prepare":
          this.standbys.set(action.epoch, this.link(action.epoch, "prepare"));
          break;
        case "take":
          this.take(action.epoch, action.reason);
          break;
        case "let_go":
          this.links.drop(this.withdrawn(action.epoch));
          break;
        case "retry":
          this.links.drop(this.joining);
          this.joining = this.link(action.epoch, "resume");
          break;
        case "ask_ticket":
          void this.askTicket();
          break;
        case "give_up":
          this.lose();
          break;
      }
    }
    this.tellChange();
  }

  private take(epoch: number, reason: TakeReason): void {
    this.hearing.lost(this.watch.epoch, reason, this.world.now());
    const planned = reason === "planned" ? this.moving.taken() : null;
    if (planned !== null) {
      // the owner goes on until this one is attached
      this.standbys.set(epoch, planned);
      planned.tell(this.standing.take(reason));
      return;
    }
    this.moving.cancel();
    this.moving.letGo();
    const prepared = this.withdrawn(epoch);
    for (const link of [this.voice.owner, this.joining, ...this.standbys.values()]) this.links.drop(link);
    this.voice.owner = this.joining = null;
    this.standbys.clear();
    if (prepared?.prepared) {
      this.standbys.set(epoch, prepared);
      prepared.tell(this.standing.take(reason));
      return;
    }
    this.links.drop(prepared);
    this.standbys.set(epoch, this.link(epoch, "take", this.watch.leftFor));
  }

  private withdrawn(epoch: number): Link | undefined {
    const link = this.standbys.get(epoch);
    this.standbys.delete(epoch);
    return link;
  }

  private async askTicket(): Promise<void> {
    // every edge of the only ticket has said no
    if (this.refusal !== null && !this.served && !this.tickets.renewable) this.begun.set();
    let epochs: number[];
    try {
      epochs = await this.tickets.renew();
    } catch (error) {
      if (!(error instanceof CallOver)) throw error;
      this.lose();
      return;
    }
    if (this.over) return;
    if (epochs.length > 0) {
      this.carryOut(this.watch.granted(epochs, this.world.now()));
      return;
    }
    this.world.later(this.tickets.pauseMs(this.world.draw()), () => {
      if (!this.over) this.carryOut(this.watch.notGranted(this.world.now()));
    });
  }

  // ---------------------------------------------------------------------------------------------- the sockets

  private link(epoch: number, mode: Mode, reason: TakeReason = "closed"): Link {
    const { grant, ticket } = this.tickets.of(epoch);
    const { encoding, sampleRate } = this;
    const dtx = this.silence !== null && !grant.url.startsWith("http");
    return this.links.open(grant.url, ticket, epoch, mode, () =>
      this.standing.attach(ticket, epoch, mode, { encoding, sampleRate, reason, dtx }),
    );
  }

  /** A socket has closed or never opened, or its edge has refused. */
  private closed(link: Link): void {
    if (this.over) return;
    const nowMs = this.world.now();
    if (link === this.joining && !this.watching) {
      this.primaryFailed();
    } else if (link === this.joining) {
      this.joining = null;
      if (this.voice.owner === null) this.carryOut(this.watch.closed(nowMs));
    } else if (link === this.voice.owner) {
      this.voice.owner = null;
      if (this.joining === null) this.carryOut(this.watch.closed(nowMs));
    } else if (this.standbys.get(link.epoch) === link) {
      this.standbys.delete(link.epoch);
      this.standbyFailed(link, nowMs);
    } else if (link === this.moving.link) {
      this.moving.failed(link);
    } else if (this.moving.isLeft(link)) {
      this.moving.letGo();
    }
  }

  private standbyFailed(link: Link, nowMs: number): void {
    const wasMoving = this.watch.state === "moving";
    const { watch, moving } = this;
    this.carryOut(link.refused === "" ? watch.failed(link.epoch, nowMs) : watch.declined(link.epoch, nowMs));
    if (wasMoving && this.watch.state === "attached") {
      this.hearing.stayed();
      moving.answer(link.epoch, link.refused);
    }
  }

  private heard(link: Link, raw: string | ArrayBuffer): void {
    if (typeof raw !== "string") {
      const audio = readAudio(raw, this.silence?.samples);
      if (audio !== null) this.audio(link, audio);
      return;
    }
    const message = readMessage(raw);
    if (message === null) return;
    switch (message.type) {
      case "refused":
        this.wasRefused(link, message);
        return;
      case "prepared":
        link.prepared = true;
        if (link === this.moving.link) this.moving.prepared(link);
        else this.carryOut(this.watch.prepared(link.epoch, this.world.now()));
        return;
      case "attached":
        this.nowOwnedBy(link);
    }
    if (link === this.voice.owner) this.heardOwner(link, message);
    else if (message.type === "tick" && said(message.at) && this.moving.isLeft(link)) this.leftSpoke(link);
  }

  private heardOwner(link: Link, message: FromEdge): void {
    this.carryOut(this.watch.heard(this.world.now()));
    this.standing.heard(message);
    switch (message.type) {
      case "tick":
        if (link.onTrack) this.besideTrack(link, message.at);
        break;
      case "clear":
        if (link.onTrack && said(message.at)) this.onTrack.stopped(message.at);
        this.options.clear?.(message.at);
        break;
      case "notice":
        if (BACKEND_UP.has(message.event)) this.moving.backendUp();
        this.options.notice?.({ event: message.event, at_ms: message.at_ms, data: message.data });
        break;
      case "ticket":
        this.carryOut(this.watch.granted(this.tickets.add(message.ticket), this.world.now()));
        break;
      case "move":
      case "go":
        this.moving.asked(message);
        break;
      case "ended":
        this.endReason = message.end_reason;
        this.links.drop(link);
        this.close();
        break;
    }
  }

  /**
   * A full or restarted primary names the next, and a standby's refusal leaves the others; a bad ticket is bad everywhere. An
   * owner that refuses a resume has answered: it is not the caller's own network. That the call has ended is believed.
   */
  private wasRefused(link: Link, refused: Extract<FromEdge, { type: "refused" }>): void {
    this.refusal = new CallRefused(refused.code, refused.detail, refused.fix);
    link.refused = refused.code;
    this.links.drop(link);
    if (refused.code === "ended" && this.begun.done) {
      this.close();
      return;
    }
    if (link.mode === "attach" && !this.begun.done && refused.next_url === null) {
      this.begun.set();
      return;
    }
    if (link === this.joining && link.mode === "resume" && this.watch.state === "suspicious") {
      this.links.drop(this.voice.owner);
      this.voice.owner = null;
    }
    this.closed(link);
  }

  private nowOwnedBy(link: Link): void {
    const nowMs = this.world.now();
    if (!this.watch.accepts(link.epoch)) {
      this.links.drop(link);
      return;
    }
    this.standbys.delete(link.epoch);
    if (link === this.joining) this.joining = null;
    const old = this.voice.owner;
    this.voice.owner = link;
    if (old !== null && old !== link) {
      if (this.watch.state === "moving") this.moving.leave(old, link.epoch, nowMs);
      else this.links.drop(old);
    }
    this.watching = this.served = true;
    this.carryOut(this.watch.attached(link.epoch, nowMs));
    this.hearing.attached(link.epoch, nowMs);
    this.begun.set();
    this.voice.again();
  }

  private audio(link: Link, audio: Audio): void {
    const nowMs = this.world.now();
    const frame: Frame = { ...audio, epoch: link.epoch, atMs: nowMs };
    if (link !== this.voice.owner) {
      if (this.moving.isLeft(link) && !audio.filler && this.moving.oldSpoke(nowMs)) this.spoken(frame);
      return;
    }
    this.carryOut(this.watch.heard(nowMs));
    this.standing.stamp = audio.stamp;
    if (audio.filler) {
      this.options.audio?.(frame);
      return;
    }
    this.moving.newSpoke();
    const lengthMs = audio.samples.byteLength / this.bytesPerMs;
    this.received = { utterance: audio.utterance, offset_ms: audio.offset_ms + lengthMs };
    this.spoken(frame);
  }

  /** A tick beside the audio of a track: what it was that was sent, and to be answered. */
  private besideTrack(link: Link, at: Position | null): void {
    this.overTrack = true;
    if (said(at)) this.onTrack.tick(link, at);
    else this.onTrack.paused();
    this.voice.answer();
    if (!said(at)) return;
    this.moving.newSpoke();
    const gap = this.hearing.audio(link.epoch, this.world.now());
    if (gap !== null) this.options.gap?.(gap);
  }

  private leftSpoke(link: Link): void {
    const nowMs = this.world.now();
    if (this.moving.oldSpoke(nowMs)) this.hearing.audio(link.epoch, nowMs);
  }

  private spoken(frame: Frame): void {
    const gap = this.hearing.audio(frame.epoch, frame.atMs);
    this.options.audio?.(frame);
    if (gap !== null) this.options.gap?.(gap);
  }

  private tellChange(): void {
    const now = `${this.state} ${this.epoch} ${this.grants.length}`;
    if (now === this.said) return;
    this.said = now;
    this.options.changed?.();
  }

  private lose(): void {
    this.lost = true;
    this.close();
  }

  private finish(): void {
    if (this.finished) return;
    this.finished = true;
    this.watch.over();
    this.begun.set();
    this.ending.set();
    this.tellChange();
    this.options.ended?.(this.endReason);
  }
}

/** Whether that is a place in what the agent has said. */
function said(at: Position | null): at is Position {
  return at !== null && at.utterance > 0;
}
