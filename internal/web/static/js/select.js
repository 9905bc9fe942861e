// The selected task: links marked data-select change ?task= and ?panel= in place, where
// nothing else on the page moves.
import { show } from "./live.js";

/** Goes to a URL of the same page without leaving it. */
function select(href) {
  if (href !== location.href) history.pushState(null, "", href);
  show(href);
}

document.addEventListener("click", (e) => {
  const link = e.target.closest("a[data-select]");
  if (!link || e.ctrlKey || e.metaKey || e.shiftKey || e.button !== 0) return;
  e.preventDefault();
  const url = new URL(link.getAttribute("href"), location.href);
  url.hash = "";
  // A tab is of the task that was chosen last, also while that one is on its way.
  const chosen = new URLSearchParams(location.search).get("task");
  if (link.dataset.panel && chosen) url.searchParams.set("task", chosen);
  select(url.href);
});

// Back again before that is there: as with clicks, the last one counts.
addEventListener("popstate", () => select(location.href));
