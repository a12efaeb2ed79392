/**
 * When a caller prepares a standby and when it takes it. Pure: times and what was seen come in, actions go out. It decides
 * exactly as `watch.py` of the Python library does; `openapi/clients/watch-histories.json` holds the two together.
 *
 *     attached ──silent 400 ms──► suspicious: prepare ──heard again──► attached, the standby is let go
 *         │                           │ silent 500 ms and the standby has answered: take
 *         │ closed without an end ────┴──────────────────────────────► taking: take at once
 *     taking ──attached──► attached at the higher epoch
 *         └─refused, failed─► the next grant; none left: ask for a ticket; too late: give up
 *     attached ──planned──► moving: take while the owner goes on ──attached──► attached there
 *                              │ refused ──► attached, the owner stays
 *                              └─the new one fails, or the owner does ──► taking
 *
 * Where both are silent before any take was sent, it is the caller's own network: the epoch stays, and the owner is tried again.
 */

export const PREPARE_AFTER_MS = 400;
export const TAKE_AFTER_MS = 500;
export const OWN_NETWORK_AFTER_MS = 1_500;
/** After one try of the owner and before the next; the last holds for all that follow. Each up to a quarter shorter, by chance. */
export const RETRY_AFTER_MS = [1_000, 1_500, 2_000, 3_000] as const;
export const PREPARE_PATIENCE_MS = 1_500;
export const TAKE_PATIENCE_MS = 1_500;
export const GIVE_UP_AFTER_MS = 30_000;

export type WatchState = "attached" | "suspicious" | "taking" | "moving" | "over";
export type TakeReason = "silent" | "closed" | "refused" | "planned";

export type Action =
  | { readonly kind: "prepare"; readonly epoch: number }
  | { readonly kind: "take"; readonly epoch: number; readonly reason: TakeReason }
  /** Close the prepared standby: the owner is heard again. */
  | { readonly kind: "let_go"; readonly epoch: number }
  /** A new socket to the present owner: the caller's own network was away. */
  | { readonly kind: "retry"; readonly epoch: number }
  /** No higher grant is left. */
  | { readonly kind: "ask_ticket" }
  | { readonly kind: "give_up" };

const NOTHING: readonly Action[] = [];

/** The watch of one call. Feed it what happens, and `tick` it every 20 ms or so; carry out what it returns. */
export class Watch {
  state: WatchState = "attached";
  epoch: number;
  /** Why the last owner was left, whatever has become of the takes since. */
  leftFor: TakeReason = "closed";

  /** In the order in which they are tried: the newest ticket's first. */
  private epochs: number[];
  private highestTried: number;
  private heardMs: number;
  private lostMs = 0;
  private sentMs = 0;
  private standby: number | null = null;
  private standbyMs = 0;
  private answered = false;
  private readonly passed = new Set<number>();
  private retries = 0;
  private retryMs = 0;
  private asked = false;

  /** `draw`: a number from 0 to 1, another one each time. */
  constructor(
    epochs: readonly number[],
    epoch: number,
    nowMs: number,
    private readonly draw: () => number = () => 0,
  ) {
    this.epochs = inOrder(epochs);
    this.epoch = this.highestTried = epoch;
    this.heardMs = nowMs;
  }

  /** Whether an edge that says `attached` at `epoch` is the one that was asked for last. */
  accepts(epoch: number): boolean {
    return this.state !== "over" && epoch >= this.highestTried;
  }

  /** Anything from the present owner. */
  heard(nowMs: number): readonly Action[] {
    this.heardMs = nowMs;
    this.retries = 0;
    if (this.state !== "suspicious") return NOTHING;
    this.state = "attached";
    return this.letGo();
  }

  /** The standby has answered a prepare. */
  prepared(epoch: number, nowMs: number): readonly Action[] {
    if (this.state === "suspicious" && epoch === this.standby) this.answered = true;
    return this.tick(nowMs);
  }

  /** The owner's socket has closed, and it did not say that the call ended; `refused`: it has not taken the call. */
  closed(nowMs: number, reason: TakeReason = "closed"): readonly Action[] {
    if (this.state === "taking" || this.state === "over") return NOTHING;
    if (this.state === "moving") {
      // the take is on its way
      this.state = "taking";
      return NOTHING;
    }
    return this.take(reason, nowMs);
  }

  /** The owner asks to be left for `epoch`, whose edge is prepared. Nothing while the owner is in doubt. */
  planned(epoch: number, nowMs: number): readonly Action[] {
    if (this.state !== "attached" || epoch <= this.highestTried || !this.epochs.includes(epoch)) return NOTHING;
    this.state = "moving";
    this.highestTried = epoch;
    this.sentMs = this.lostMs = nowMs;
    return [{ kind: "take", epoch, reason: "planned" }];
  }

  /** An edge has refused: it has not taken the call. Of a planned move the owner still has it. */
  declined(epoch: number, nowMs: number): readonly Action[] {
    if (this.state === "moving" && epoch === this.highestTried) {
      this.state = "attached";
      this.highestTried = this.epoch;
      this.passed.add(epoch);
      return NOTHING;
    }
    return this.failed(epoch, nowMs);
  }

  /** An edge has said `attached`. */
  attached(epoch: number, nowMs: number): readonly Action[] {
    if (!this.accepts(epoch)) return NOTHING;
    this.state = "attached";
    this.epoch = this.highestTried = epoch;
    this.heardMs = nowMs;
    this.retries = 0;
    this.asked = false;
    return this.letGo();
  }

  /** A standby refused, or its socket did not open, or closed. */
  failed(epoch: number, nowMs: number): readonly Action[] {
    if (this.state === "suspicious" && epoch === this.standby) return this.prepareNext(nowMs);
    if ((this.state === "taking" || this.state === "moving") && epoch === this.highestTried) {
      this.state = "taking";
      return this.takeNext("refused", nowMs);
    }
    return NOTHING;
  }

  /** A new ticket has come. */
  granted(epochs: readonly number[], nowMs: number): readonly Action[] {
    this.asked = false;
    const fresh = epochs.filter((epoch) => !this.epochs.includes(epoch));
    this.epochs = [...inOrder(fresh), ...this.epochs];
    return this.state === "taking" ? this.takeNext("refused", nowMs) : NOTHING;
  }

  /** The ticket could not be renewed now; it is asked for again until it is too late. */
  notGranted(nowMs: number): readonly Action[] {
    this.asked = false;
    const late = this.tick(nowMs);
    return late.length > 0 || this.state !== "taking" ? late : this.takeNext("refused", nowMs);
  }

  over(): void {
    this.state = "over";
  }

  tick(nowMs: number): readonly Action[] {
    const silentMs = nowMs - this.heardMs;
    if (this.state === "attached" && silentMs >= PREPARE_AFTER_MS) {
      this.state = "suspicious";
      return this.prepareNext(nowMs);
    }
    if (this.state === "suspicious") return this.suspect(silentMs, nowMs);
    if (this.state === "moving" && nowMs - this.sentMs >= TAKE_PATIENCE_MS) this.state = "taking";
    if (this.state === "taking") {
      if (nowMs - this.lostMs >= GIVE_UP_AFTER_MS) return this.giveUp();
      if (!this.asked && nowMs - this.sentMs >= TAKE_PATIENCE_MS) return this.takeNext("refused", nowMs);
    }
    return NOTHING;
  }

  /** 1. A standby has answered: take it. 2. Too late. 3. Own network: another round. 4. The standby keeps us waiting. */
  private suspect(silentMs: number, nowMs: number): readonly Action[] {
    if (silentMs >= TAKE_AFTER_MS && this.answered) return this.take("silent", nowMs);
    if (silentMs >= GIVE_UP_AFTER_MS) return this.giveUp();
    if (silentMs >= OWN_NETWORK_AFTER_MS && (this.retries === 0 || nowMs >= this.retryMs)) {
      const pauseMs = RETRY_AFTER_MS[Math.min(this.retries, RETRY_AFTER_MS.length - 1)] ?? 0;
      this.retryMs = nowMs + pauseMs * (1 - this.draw() / 4);
      this.retries += 1;
      const retry: Action = { kind: "retry", epoch: this.epoch };
      if (this.standby !== null) return [retry];
      this.passed.clear();
      return [retry, ...this.prepareNext(nowMs)];
    }
    if (this.standby !== null && !this.answered && nowMs - this.standbyMs > PREPARE_PATIENCE_MS) {
      return [{ kind: "let_go", epoch: this.standby }, ...this.prepareNext(nowMs)];
    }
    return NOTHING;
  }

  private giveUp(): readonly Action[] {
    this.state = "over";
    return [{ kind: "give_up" }];
  }

  private prepareNext(nowMs: number): readonly Action[] {
    if (this.standby !== null) this.passed.add(this.standby);
    this.standby = this.next();
    this.answered = false;
    this.standbyMs = nowMs;
    return this.standby === null ? NOTHING : [{ kind: "prepare", epoch: this.standby }];
  }

  private take(reason: TakeReason, nowMs: number): readonly Action[] {
    const ready = this.answered ? this.standby : null;
    this.state = "taking";
    this.leftFor = reason;
    this.lostMs = nowMs;
    this.standby = null;
    this.answered = false;
    if (ready === null) return this.takeNext(reason, nowMs);
    this.sentMs = nowMs;
    this.highestTried = ready;
    return [{ kind: "take", epoch: ready, reason }];
  }

  private takeNext(reason: TakeReason, nowMs: number): readonly Action[] {
    this.sentMs = nowMs;
    const following = this.next() ?? this.next({ passed: true });
    if (following === null) {
      if (this.asked) return NOTHING;
      this.asked = true;
      return [{ kind: "ask_ticket" }];
    }
    this.highestTried = following;
    return [{ kind: "take", epoch: following, reason }];
  }

  /** The next grant above everything tried; with `passed`, one that failed to prepare is better than none. */
  private next({ passed = false } = {}): number | null {
    return this.epochs.find((e) => e > this.highestTried && (passed || !this.passed.has(e))) ?? null;
  }

  private letGo(): readonly Action[] {
    const standby = this.standby;
    this.standby = null;
    this.answered = false;
    this.passed.clear();
    return standby === null ? NOTHING : [{ kind: "let_go", epoch: standby }];
  }
}

function inOrder(epochs: readonly number[]): number[] {
  return [...new Set(epochs)].sort((a, b) => a - b);
}
