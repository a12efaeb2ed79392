// Before anything is drawn: dark or light, where the reader has chosen; else as the system has it.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("voxplane.theme"); } catch { /* storage may be forbidden */ }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
