// Runs before the first paint, so that the other theme does not flash up. "auto" follows the system.
const chosen = localStorage.getItem("theme");
document.documentElement.dataset.theme = chosen === "light" || chosen === "dark" ? chosen : "auto";
