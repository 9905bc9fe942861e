// The selected task: links marked data-select change ?task= and ?panel= in place, where
// nothing else on the page moves.
import { live, tick } from "./live.js";

/** Goes to a URL of the same page without leaving it. */
export function select(href) {
  if (href !== location.href) history.pushState(null, "", href);
  return htmx.ajax("GET", href, { source: live(), target: "#live", select: "#live", swap: "morph:outerHTML" });
}

document.addEventListener("click", (e) => {
  const link = e.target.closest("a[data-select]");
  if (!link || e.ctrlKey || e.metaKey || e.shiftKey || e.button !== 0) return;
  e.preventDefault();
  select(new URL(link.getAttribute("href"), location.href).href.replace(/#.*/, ""));
});

addEventListener("popstate", () => tick());
