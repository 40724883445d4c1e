// Light or dark as chosen here before, else as the system says. Runs before the first paint, so
// that a dark page does not flash white.
{
  const root = document.documentElement;
  try {
    const chosen = localStorage.getItem("orderflow-theme");
    if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  } catch {
    // Storage can be forbidden; the system's choice is good then.
  }
  addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
      const next = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
      root.dataset.theme = next;
      try {
        localStorage.setItem("orderflow-theme", next);
      } catch {
        // Not kept for the next visit, which is all.
      }
    });
  });
}
