// What every page can do without being asked: keys, the menu, dark and light, copying, a question before what cannot be undone,
// times in the reader's own zone, links that carry a secret behind the #.
{
  const $ = (selector, from = document) => from.querySelector(selector);
  const root = document.documentElement;

  // ------------------------------------------------------------------------------------------------ dark and light
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const themeSwitch = $("[data-theme-switch]");
  themeSwitch?.setAttribute("aria-pressed", String(dark()));
  themeSwitch?.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    themeSwitch.setAttribute("aria-pressed", String(dark()));
    try { localStorage.setItem("voxplane.theme", root.dataset.theme); } catch { /* it holds for this page */ }
  });

  // ----------------------------------------------------------------------------------------------------- the menu
  const menu = $("[data-menu]");
  menu?.addEventListener("click", () => {
    const open = menu.getAttribute("aria-expanded") !== "true";
    menu.setAttribute("aria-expanded", String(open));
    document.body.classList.toggle("menu-open", open);
  });

  // --------------------------------------------------------------------------------------------------------- keys
  let waitsForJump = 0;
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "Escape" && typing) { typing.blur(); return; }
    if (typing || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    if (Date.now() < waitsForJump) {
      waitsForJump = 0;
      const link = [...document.querySelectorAll("[data-jump]")].find((a) => a.dataset.jump === event.key);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    if (event.key === "g") waitsForJump = Date.now() + 1200;
    else if (event.key === "?") { event.preventDefault(); $("#help")?.showModal(); }
    else if (event.key === "/") {
      const field = $("[data-search]");
      if (field) { event.preventDefault(); field.focus(); field.select?.(); }
    }
  });

  // ------------------------------------------------------------------------------ a question, and only then the form
  document.addEventListener("submit", (event) => {
    const form = event.target, dialog = $("#ask");
    if (!form.dataset?.ask || !dialog || form.dataset.asked) { busy(form); return; }
    event.preventDefault();
    $("#ask-text").textContent = form.dataset.ask;
    // the button that does it says what the one that was pressed said
    $("[data-do]", dialog).textContent = event.submitter?.textContent.trim() || "Do it";
    dialog.returnValue = "no";
    dialog.showModal();
    dialog.addEventListener("close", () => {
      if (dialog.returnValue !== "yes") return;
      // the part of the page that it stood in may have been replaced meanwhile
      const now = form.isConnected ? form : [...document.forms].find((f) => f.action === form.action);
      if (!now) return;
      now.dataset.asked = "1";
      now.requestSubmit(form.isConnected ? event.submitter : undefined);
    }, { once: true });
  });
  function busy(form) {
    if (form.method !== "post") return;
    // after the browser has read the form: a disabled button would not be sent with it
    setTimeout(() => form.querySelectorAll("button").forEach((b) => { b.disabled = true; b.ariaBusy = "true"; }));
  }
  addEventListener("pageshow", () => document.querySelectorAll("button[aria-busy]").forEach((b) => { b.disabled = false; b.ariaBusy = null; }));

  // ------------------------------------------------------------------------------------------------------ copying
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copy)?.textContent ?? "";
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
      button.textContent = "Press Ctrl+C";
    }
  });

  // -------------------------------------------------------------------------------------------------------- times
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
  document.addEventListener("pointerover", (event) => {
    const time = event.target.closest?.("time[datetime]");
    if (time && !time.title) time.title = local.format(new Date(time.dateTime));
  });

  // ---------------------------------------------------------------------------------------- a secret behind the #
  const field = $("[data-hash]");
  if (field && location.hash.length > 1) {
    field.value = location.hash.slice(1);
    history.replaceState(null, "", location.pathname);
    field.closest("label").hidden = true;
    const form = field.form;
    if (form.hasAttribute("data-from-hash")) form.requestSubmit();
    else form.querySelector("input[type=password]")?.focus();
  }
}
