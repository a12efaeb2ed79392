// The map's own part: an arc that flashes where calls have just moved. Where less motion is wanted it stands still for a while.
{
  const root = document.getElementById("map-live");
  const layer = document.getElementById("flashes");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const SHOWN_MS = 6000, AT_ONCE_MAX = 40;
  const NS = "http://www.w3.org/2000/svg";

  const place = (region) => {
    const spot = document.querySelector(`[data-region="${CSS.escape(region)}"]`);
    return spot && [Number(spot.dataset.x), Number(spot.dataset.y)];
  };

  function curve([x1, y1], [x2, y2]) {
    if (x1 === x2 && y1 === y2) return `M${x1 - 9} ${y1}a9 9 0 1 1 18 0a9 9 0 1 1 -18 0`;
    const rise = Math.min(0.32 * Math.hypot(x2 - x1, y2 - y1), 110);
    return `M${x1} ${y1}Q${(x1 + x2) / 2} ${(y1 + y2) / 2 - rise} ${x2} ${y2}`;
  }

  root?.addEventListener("sse:moved", (event) => {
    for (const { kind, start, end, calls } of event.detail) {
      const from = place(start), to = place(end);
      if (!from || !to || layer.children.length >= AT_ONCE_MAX) continue;
      const path = document.createElementNS(NS, "path");
      path.setAttribute("d", curve(from, to));
      path.setAttribute("pathLength", "100");
      path.setAttribute("class", `flash ${kind}${still.matches ? " still" : ""}`);
      path.setAttribute("stroke-width", String(2.5 + Math.log2(calls + 1) / 2));
      layer.append(path);
      setTimeout(() => path.remove(), SHOWN_MS);
    }
    root.dataset.moved = String(Number(root.dataset.moved ?? 0) + event.detail.length);
  });

  const mark = document.getElementById("live-mark");
  const words = { live: "Live", opening: "Connecting", away: "Away: trying again" };
  new MutationObserver(() => {
    mark.textContent = words[root.dataset.live] ?? "";
    mark.dataset.state = root.dataset.live;
  }).observe(root, { attributes: true, attributeFilter: ["data-live"] });
}
