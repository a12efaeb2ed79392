// Before anything is drawn: dark or light, where the reader has chosen; else as the system has it. And that scripts run, since what
// they alone can do is not shown without them.
(() => {
  document.documentElement.dataset.script = "runs";
  let chosen = null;
  try { chosen = localStorage.getItem("voxplane.theme"); } catch { /* storage may be forbidden */ }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
