// Parts of pages that are fetched by themselves: a small subset of what htmx's attributes mean, and event streams.
//
//   hx-get="path", hx-post on a form       fetch it, and put the answer where hx-target says
//   hx-target="#id" | "this"               what is replaced; the element itself where it is left out
//   hx-swap="innerHTML" | "outerHTML" | "beforeend"
//   hx-trigger="every 5s" | "load" | "revealed" | "input delay:300ms" | "change"   else: a click, a form's submit
//   hx-push-url                            what was fetched becomes the page's address
//   sse-connect="path"                     `html` events replace elements by their ids; others are told to the element: sse:<name>
//
// An answer that refuses is shown among the notices, and HX-Redirect is followed. Nothing is evaluated.
const $ = (selector, from = document) => from.querySelector(selector);

function fragment(text) {
  const template = document.createElement("template");
  template.innerHTML = text;
  return template.content;
}

const waiting = new Map();

function show(part, old) {
  const key = old.contains(document.activeElement) && document.activeElement.dataset.key;
  old.replaceWith(part);
  if (key) part.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
  start(part);
}

addEventListener("pointerup", () => setTimeout(() => {
  for (const [id, part] of waiting) {
    const old = document.getElementById(id);
    if (old) show(part, old);
  }
  waiting.clear();
}));

function replaceParts(text) {
  // shapes are parsed inside an svg element, which is only their wrapping
  const found = [...fragment(text).children].flatMap((part) => (part.matches("svg:not([id])") ? [...part.children] : [part]));
  for (const part of found) {
    const old = part.id && document.getElementById(part.id);
    if (!old) continue;
    // a button that is being pressed is not taken away: what came is shown when it is let go
    if (old.querySelector(":active")) waiting.set(part.id, part);
    else show(part, old);
  }
}

function told(text) {
  const box = $("#notices");
  if (!box) return;
  box.replaceChildren(...fragment(text).children);
  box.scrollIntoView({ block: "nearest" });
}

async function ask(element, url, options) {
  if (element.ariaBusy === "true") return;
  const given = element.getAttribute("hx-target");
  const target = !given || given === "this" ? element : $(given);
  element.ariaBusy = "true";
  try {
    const answer = await fetch(url, { ...options, headers: { "HX-Request": "true", ...options?.headers }, credentials: "same-origin" });
    const to = answer.headers.get("HX-Redirect");
    if (to) { location.assign(to); return; }
    const text = await answer.text();
    if (!answer.ok) { told(text); return; }
    if (answer.redirected && options?.method === "POST") { location.assign(answer.url); return; }
    swap(target, text, element.getAttribute("hx-swap") ?? "innerHTML");
    if (element.hasAttribute("hx-push-url")) history.pushState(null, "", url);
  } catch {
    told('<div class="notice warn" role="alert"><strong>The server does not answer.</strong> It is tried again.</div>');
  } finally {
    element.ariaBusy = null;
  }
}

function swap(target, text, how) {
  const parts = fragment(text), made = [...parts.children];
  if (how === "outerHTML") target.replaceWith(parts);
  else if (how === "beforeend") target.append(parts);
  else target.replaceChildren(parts);
  made.forEach(start);
}

function fetched(element) {
  const form = element.matches("form") ? element : element.closest("form[method=get]");
  const url = new URL(element.getAttribute("hx-get"), location.href);
  if (form) for (const [name, value] of new FormData(form)) if (value) url.searchParams.set(name, value);
  return url.pathname + url.search;
}

function send(element) {
  const post = element.getAttribute("hx-post");
  if (post) ask(element, post, { method: "POST", body: new URLSearchParams(new FormData(element)) });
  else ask(element, fetched(element));
}

const seconds = (text) => (text.endsWith("ms") ? parseFloat(text) : parseFloat(text) * 1000);

function arm(element) {
  if (element.dataset.armed) return;
  element.dataset.armed = "1";
  const trigger = element.getAttribute("hx-trigger") ?? (element.matches("form") ? "submit" : "click");
  const [name, second] = trigger.split(" ");
  if (name === "every") {
    const timer = setInterval(() => {
      if (!element.isConnected) clearInterval(timer);
      else if (!document.hidden) send(element);
    }, seconds(second));
  } else if (name === "load") send(element);
  else if (name === "revealed") {
    const watch = new IntersectionObserver((seen) => {
      if (seen.some((entry) => entry.isIntersecting)) { watch.disconnect(); send(element); }
    });
    watch.observe(element);
  } else {
    let waiting;
    const delay = /delay:(\S+)/.exec(trigger)?.[1];
    element.addEventListener(name, (event) => {
      if (name === "submit" || element.matches("a, button")) event.preventDefault();
      clearTimeout(waiting);
      waiting = setTimeout(() => send(element), delay ? seconds(delay) : 0);
    });
  }
}

function listen(element) {
  if (element.dataset.armed) return;
  element.dataset.armed = "1";
  const source = new EventSource(element.getAttribute("sse-connect"));
  const state = (word) => { element.dataset.live = word; };
  state("opening");
  source.onopen = () => state("live");
  source.onerror = () => {
    state("away");
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  };
  source.addEventListener("html", (event) => replaceParts(event.data));
  for (const name of (element.getAttribute("sse-events") ?? "").split(" ").filter(Boolean))
    source.addEventListener(name, (event) => element.dispatchEvent(new CustomEvent(`sse:${name}`, { detail: JSON.parse(event.data) })));
  const watch = new MutationObserver(() => {
    if (!element.isConnected) { source.close(); watch.disconnect(); }
  });
  watch.observe(document.body, { childList: true, subtree: true });
  addEventListener("pagehide", () => source.close());
}

function start(root) {
  const all = (selector) => [...(root.matches?.(selector) ? [root] : []), ...root.querySelectorAll(selector)];
  all("[hx-get], [hx-post]").forEach(arm);
  all("[sse-connect]").forEach(listen);
  document.dispatchEvent(new CustomEvent("part", { detail: root }));
}

start(document);
