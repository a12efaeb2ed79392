/**
 * Measures the round trip to regions, in parallel, on the path the audio will take.
 *
 * It decides how many samples whom, and what counts as lost; which regions are worth it is the backend's (`probe_first`,
 * `probe_next`). Every region gets one sample; the nearest few of those that answer get more that overlap. Each echo is answered
 * at once with its nonce, by which the edge measures as well.
 */

import { browser } from "./world.js";
import type { Socket, World } from "./world.js";

export const PROBE_PROTOCOL = "voxplane.probe.v1";
export const BUDGET_MS = 300;
const CONNECT_MS = 2_000;
/** For each of the most promising. */
const SAMPLES = 8;
const SAMPLES_FAR = 3;
const PROMISING = 3;
/** Samples of one region under way at the same time. */
const AT_ONCE = 3;
const SPACING_MS = 12;
const FIRST_MAX = 4;
const REGIONS_MAX = 32;
/** So many edges of a region are tried, where the first does not let us in. */
const EDGES_MAX = 2;
/** A sample counts as lost once it has been out for so many times the region's least round trip. */
const LATE = 3;

/** A region as `GET /v1/regions` lists it. */
export interface Region {
  readonly id: string;
  readonly probes: readonly { readonly ws: string }[];
}

/** As `POST /v1/calls` takes it: least round trip, spread of the samples, share that did not come back. */
export interface Latency {
  readonly region: string;
  readonly rtt_ms: number;
  readonly jitter_ms: number;
  readonly loss: number;
  readonly at: string;
}

/** `first`: measure these alone, four at most, in this order of interest. */
export interface ProbeOptions {
  first?: readonly string[];
  samples?: number;
  budgetMs?: number;
  connectMs?: number;
  world?: World;
}

/**
 * What has come back within the budget after the first socket stood open; nearest first. Regions that did not answer are left out,
 * and no socket outlives the call.
 */
export async function probeRegions(regions: readonly Region[], options: ProbeOptions = {}): Promise<Latency[]> {
  const world = options.world ?? browser;
  const race = new Race(world, Math.max(1, options.samples ?? SAMPLES));
  const runs = chosen(regions, options.first).map((region) => race.run(region));
  if (runs.length > 0) {
    await new Promise<void>((resolve) => {
      const tooLate = world.later(options.connectMs ?? CONNECT_MS, resolve);
      race.opened = () => {
        race.opened = () => undefined;
        tooLate();
        world.later(options.budgetMs ?? BUDGET_MS, resolve);
      };
      void Promise.all(runs).then(() => resolve());
    });
  }
  race.stop();
  return race.measured(new Date().toISOString());
}

/** The regions to measure: those with somewhere to send a probe to, each once. */
export function chosen(regions: readonly Region[], first?: readonly string[]): Region[] {
  const byId = new Map(regions.filter(({ probes }) => probes.length > 0).map((region) => [region.id, region]));
  if (first === undefined) return [...byId.values()].slice(0, REGIONS_MAX);
  return [...new Set(first)].flatMap((id) => byId.get(id) ?? []).slice(0, FIRST_MAX);
}

/** What one region has answered. `outMs`: the samples that are still out, and when each was sent. */
class Samples {
  readonly rttsMs: number[] = [];
  readonly outMs = new Map<string, number>();

  get leastMs(): number {
    return Math.min(...this.rttsMs);
  }

  /** Share that did not come back; what may still come back is neither. */
  loss(nowMs: number): number {
    const late = [...this.outMs.values()].filter((sentMs) => nowMs - sentMs > LATE * this.leastMs).length;
    return late / (this.rttsMs.length + late);
  }
}

/** All regions that are measured together: who is among the nearest is seen from the others. */
class Race {
  opened: () => void = () => undefined;
  private readonly found = new Map<string, Samples>();
  private readonly exchanges = new Set<Exchange>();
  private stopped = false;

  constructor(
    readonly world: World,
    readonly samples: number,
  ) {}

  async run(region: Region): Promise<void> {
    const into = new Samples();
    this.found.set(region.id, into);
    for (const { ws } of region.probes.slice(0, EDGES_MAX)) {
      if (this.stopped) return;
      const exchange = new Exchange(this, into);
      this.exchanges.add(exchange);
      await exchange.run(ws);
      if (into.rttsMs.length > 0) return;
      into.outMs.clear();
    }
  }

  stop(): void {
    this.stopped = true;
    for (const exchange of this.exchanges) exchange.stop();
  }

  /** Among the `PROMISING` least of those that have answered so far. */
  isPromising(mine: Samples): boolean {
    const nearer = [...this.found.values()].filter((s) => s !== mine && s.leastMs < mine.leastMs);
    return nearer.length < PROMISING;
  }

  measured(at: string): Latency[] {
    const nowMs = this.world.now();
    const answered = [...this.found].filter(([, { rttsMs }]) => rttsMs.length > 0);
    const latencies = answered.map(([region, samples]) => ({
      region,
      rtt_ms: rounded(samples.leastMs, 2),
      jitter_ms: rounded(Math.max(...samples.rttsMs) - samples.leastMs, 2),
      loss: rounded(samples.loss(nowMs), 3),
      at,
    }));
    return latencies.sort((a, b) => a.rtt_ms - b.rtt_ms);
  }
}

/** One socket of one region. Each echo that comes back sends the next sample on its way. */
class Exchange {
  private socket: Socket | null = null;
  private sent = 0;
  private wanted = 1;
  private readonly waiting = new Set<() => void>();
  private done: () => void = () => undefined;

  constructor(
    private readonly race: Race,
    private readonly into: Samples,
  ) {}

  /** Until it has enough, the socket is gone, or it is stopped. */
  run(url: string): Promise<void> {
    return new Promise((resolve) => {
      this.done = resolve;
      try {
        this.socket = this.race.world.open(url, PROBE_PROTOCOL);
      } catch {
        resolve();
        return;
      }
      this.socket.onopen = () => {
        this.race.opened();
        this.send("");
      };
      this.socket.onmessage = ({ data }) => this.echoed(String(data));
      this.socket.onclose = this.socket.onerror = () => this.stop();
    });
  }

  stop(): void {
    for (const forget of this.waiting) forget();
    this.waiting.clear();
    const socket = this.socket;
    this.socket = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close();
    }
    this.done();
  }

  private echoed(echo: string): void {
    const { race, into } = this;
    const [number = "", nonce = ""] = echo.split(" ");
    const sentMs = into.outMs.get(number);
    if (sentMs === undefined) return;
    into.outMs.delete(number);
    into.rttsMs.push(race.world.now() - sentMs);
    const near = race.isPromising(into);
    this.wanted = Math.max(this.wanted, near ? race.samples : Math.min(SAMPLES_FAR, race.samples));
    if (this.sent < this.wanted) this.send(nonce);
    // this side has enough; the other has not seen how long it took
    else if (nonce !== "") this.socket?.send(`z ${nonce}`);
    const beside = near ? Math.min(AT_ONCE - into.outMs.size, this.wanted - this.sent) : 0;
    for (let i = 0; i < beside; i += 1) this.sendLater((i + 1) * SPACING_MS);
    if (into.outMs.size === 0) this.stop();
  }

  private send(nonce: string): void {
    const number = String(this.sent++);
    this.into.outMs.set(number, this.race.world.now());
    this.socket?.send(nonce === "" ? number : `${number} ${nonce}`);
  }

  /** It is counted as out from the beginning, so that nobody leaves before it. */
  private sendLater(afterMs: number): void {
    const number = String(this.sent++);
    this.into.outMs.set(number, this.race.world.now() + afterMs);
    const forget = this.race.world.later(afterMs, () => {
      this.waiting.delete(forget);
      this.into.outMs.set(number, this.race.world.now());
      this.socket?.send(number);
    });
    this.waiting.add(forget);
  }
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
