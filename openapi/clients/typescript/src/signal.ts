/** Something that happens once, and can be waited for. */

import type { World } from "./world.js";

export class Signal {
  done = false;
  private readonly waiting = new Set<() => void>();

  constructor(private readonly world: World) {}

  set(): void {
    this.done = true;
    for (const go of this.waiting) go();
    this.waiting.clear();
  }

  within(ms: number): Promise<void> {
    if (this.done) return Promise.resolve();
    return new Promise((resolve) => {
      const forget = this.world.later(ms, resolve);
      this.waiting.add(() => {
        forget();
        resolve();
      });
    });
  }
}
