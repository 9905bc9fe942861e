// Lists with boxes to tick: the whole page at once, ranges with Shift, how many, and the
// actions as dialogs. Without scripts the boxes and buttons are a form like any other.
import { onChange, tick } from "./live.js";
import { open } from "./dialog.js";

const picks = () => document.getElementById("picks");
const boxes = () => [...(picks()?.querySelectorAll('td input[name="flow"]') ?? [])];
let last = null; // the box that was clicked last, where a range begins

function count() {
  const form = picks();
  if (!form) return;
  const list = boxes();
  const ticked = list.filter((b) => b.checked).length;
  const all = form.querySelector("[data-pick-all]");
  all.hidden = false;
  all.checked = ticked > 0 && ticked === list.length;
  all.indeterminate = ticked > 0 && ticked < list.length;
  const match = form.querySelector("[data-pick-match]");
  if (ticked === 0) match.checked = false;
  const said = match.checked ? "All that match" : `${ticked} selected`;
  const node = form.querySelector("[data-picked]");
  if (node.textContent !== said) node.textContent = said;
}

document.addEventListener("click", (e) => {
  const box = e.target.closest?.('#picks input[type="checkbox"]');
  if (!box) return;
  const list = boxes();
  if (box.matches("[data-pick-all]")) for (const b of list) b.checked = box.checked;
  else if (box.name === "flow") {
    const from = list.indexOf(last), to = list.indexOf(box);
    if (e.shiftKey && from >= 0) for (const b of list.slice(Math.min(from, to), Math.max(from, to) + 1)) b.checked = box.checked;
    last = box;
  }
  count();
});

/** The form's fields: those of the filter only where it is meant. */
function fields(form, button) {
  const data = new FormData(form, button);
  if (data.get("all")) {
    data.delete("flow");
    return data;
  }
  const chosen = new FormData();
  for (const id of data.getAll("flow")) chosen.append("flow", id);
  if (data.get("back")) chosen.append("back", data.get("back"));
  return chosen;
}

document.addEventListener("submit", (e) => {
  const form = e.target;
  if (!form.matches("[data-picks]") || !e.submitter?.matches("[data-bulk]")) return;
  e.preventDefault();
  open(`${e.submitter.formAction}?${new URLSearchParams(fields(form, e.submitter))}`);
});

document.addEventListener("click", async (e) => {
  const button = e.target.closest("[data-copy-picked]");
  if (button) button.dataset.copy = boxes().filter((b) => b.checked).map((b) => b.value).join("\n");
}, true);

document.addEventListener("keydown", (e) => {
  if (e.key !== "Escape" || document.querySelector("dialog[open]") || !boxes().some((b) => b.checked)) return;
  untick(() => true);
});

function untick(which) {
  for (const b of boxes()) if (which(b.value)) b.checked = false;
  count();
}

// What an action was carried out on is ticked no more; what was left alone still is.
document.addEventListener("htmx:afterRequest", (e) => {
  const { requestConfig, xhr } = e.detail;
  if (requestConfig?.verb !== "post" || !/\/bulk\/\w+$/.test(requestConfig.path)) return;
  if (xhr.status === 207) {
    const left = new Set([...document.querySelectorAll("#dialog [data-refused]")].map((b) => b.value));
    untick((id) => !left.has(id));
    tick();
  } else if (xhr.status < 300) untick(() => true);
});

// A field of a filter that has no button of its own acts when it is changed.
document.addEventListener("change", (e) => {
  if (e.target.matches("form[data-filter] select")) e.target.form.requestSubmit();
});

// A URL has only what is chosen.
document.addEventListener("submit", (e) => {
  if (e.target.matches("form[data-filter]")) for (const f of e.target.elements) if (f.name && !f.value) f.disabled = true;
});
// Back again, a filter shows what the list is of, and not what was chosen when one left.
addEventListener("pageshow", (e) => {
  document.querySelectorAll("form[data-filter] [disabled]").forEach((f) => (f.disabled = false));
  if (e.persisted) document.querySelectorAll("form[data-filter]").forEach((f) => f.reset());
});

onChange(count);
