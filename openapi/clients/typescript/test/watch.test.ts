/** The watch decides as the Python library's does, for every recorded history; and what no history may do. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Watch } from "../src/watch.js";
import type { Action, TakeReason } from "../src/watch.js";

type Step = [what: string, atMs: number, argument: number | number[] | string | null, actions: string[], state: string, epoch: number];
interface Recorded {
  draws: number[];
  epochs: number[];
  histories: { name: string; steps: Step[] }[];
}

// the tests run where they were built, one folder below
const file = new URL("../../../watch-histories.json", import.meta.url);
const recorded = JSON.parse(readFileSync(file, "utf8")) as Recorded;

function text(action: Action): string {
  return [action.kind, "epoch" in action ? action.epoch : "", "reason" in action ? action.reason : ""].join(" ").trim();
}

function play(watch: Watch, [what, atMs, argument]: Step): readonly Action[] {
  const epoch = argument as number;
  switch (what) {
    case "tick":
      return watch.tick(atMs);
    case "heard":
      return watch.heard(atMs);
    case "closed":
      return watch.closed(atMs, (argument as TakeReason | null) ?? "closed");
    case "prepared":
      return watch.prepared(epoch, atMs);
    case "attached":
      return watch.attached(epoch, atMs);
    case "failed":
      return watch.failed(epoch, atMs);
    case "declined":
      return watch.declined(epoch, atMs);
    case "planned":
      return watch.planned(epoch, atMs);
    case "granted":
      return watch.granted(argument as number[], atMs);
    case "not_granted":
      return watch.notGranted(atMs);
    default:
      throw new Error(`a step that is not known: ${what}`);
  }
}

for (const { name, steps } of recorded.histories) {
  test(`as in Python: ${name}`, () => {
    let drawn = 0;
    const draw = () => recorded.draws[drawn++ % recorded.draws.length] ?? 0;
    const watch = new Watch(recorded.epochs, 1, 0, draw);
    for (const step of steps) {
      const actions = play(watch, step).map(text);
      assert.deepEqual([actions, watch.state, watch.epoch], step.slice(3), JSON.stringify(step));
    }
  });
}

test("the owner is tried again at growing intervals that chance shortens", () => {
  const retries = (draw: number) => {
    const watch = new Watch([1], 1, 0, () => draw);
    const at: number[] = [];
    for (let now = 0; now < 12_000; now += 20) if (watch.tick(now).some((a) => a.kind === "retry")) at.push(now);
    return at;
  };
  assert.deepEqual(retries(0), [1_500, 2_500, 4_000, 6_000, 9_000]);
  assert.deepEqual(retries(1), [1_500, 2_260, 3_400, 4_900, 7_160, 9_420, 11_680]);
});

test("no epoch is taken twice, and none below one that was taken", () => {
  let seed = 1;
  const chance = (below: number) => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 8) % below;
  };
  for (let history = 0; history < 500; history += 1) {
    const watch = new Watch([1, 2, 3], 1, 0);
    const taken: number[] = [];
    let now = 0;
    let pending = 2;
    let highest = 3;
    for (let step = 0; step < 80; step += 1) {
      now += chance(900);
      const what = ["tick", "heard", "closed", "prepared", "failed", "attached", "granted", "not_granted"][chance(8)] ?? "";
      const argument = what === "granted" ? [(highest += 2) - 1, highest] : what === "closed" ? null : pending;
      for (const action of play(watch, [what, now, argument, [], "", 0])) {
        if (action.kind === "prepare" || action.kind === "take") pending = action.epoch;
        if (action.kind !== "take") continue;
        assert.ok(action.epoch > Math.max(1, ...taken), `history ${history}: ${taken.join()} then ${action.epoch}`);
        taken.push(action.epoch);
      }
    }
  }
});
