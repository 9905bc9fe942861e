// A page that previews an action is shown as a dialog over the page that led to it. Its
// form is the same: what it answers goes into #live, or, refused, into the dialog again.
import { again } from "./live.js";

const dialog = document.getElementById("dialog");
const body = document.getElementById("dialog-body");
let asked = null; // the request that it waits for
let inside = false; // that one is of the open dialog
let down = null; // what the button of the mouse was pressed on

/** Opens a page of ours as a dialog, or shows another choice in it: what was typed, and the focus, stay. */
export function open(href) {
  return htmx.ajax("GET", href, { source: body, target: body, select: "#sheet", swap: "morph:innerHTML" });
}

document.addEventListener("pointerdown", (e) => (down = e.target));
document.addEventListener("click", (e) => {
  if (e.target.closest("[data-dismiss]")) {
    document.getElementById("message").replaceChildren();
    return;
  }
  // The second click of a double click was not meant for what the first one has put there.
  if (e.detail > 1 && e.target.closest("form[data-inplace] button, dialog .primary")) e.preventDefault();
  // Not who selects text, and lets go beside the dialog.
  if ((e.target === dialog && down === dialog && e.detail < 2) || e.target.closest("dialog [data-back]")) {
    e.preventDefault();
    dialog.close();
    return;
  }
  const link = e.target.closest("a[data-dialog]");
  if (!link || e.ctrlKey || e.metaKey || e.shiftKey || e.button !== 0) return;
  e.preventDefault();
  open(link.href);
});

document.addEventListener("htmx:beforeRequest", (e) => {
  if (e.detail.target !== body) return;
  asked = e.detail.xhr;
  inside = dialog.open;
});
document.addEventListener("htmx:afterSwap", (e) => {
  if (e.detail.target === body) {
    if (!dialog.open) dialog.showModal();
    // Once the focus is somewhere in it, it stays there: htmx would set it again a moment later.
    if (body.contains(document.activeElement)) body.querySelector("[autofocus]")?.removeAttribute("autofocus");
  }
});
dialog.addEventListener("close", () => {
  if (dialog.open) return; // this comes a moment later
  body.replaceChildren();
  mark();
  // What has opened it may be gone by now: one goes on from the top of what is there.
  if (!document.querySelector(":focus")) document.querySelector("main").focus({ preventScroll: true });
});

// A form that acts, in the dialog or in its place on the page. The answer is the page that
// one came from, with a message.
document.addEventListener("submit", (e) => {
  const form = e.target;
  if (e.defaultPrevented || e.submitter?.hasAttribute("data-full")) return;
  if (form.matches("dialog form[data-preview]")) {
    e.preventDefault();
    preview(form);
    return;
  }
  if (form.method !== "post" || !form.matches("dialog form, form[data-inplace]")) return;
  e.preventDefault();
  if (form.dataset.sent) return; // a double click is one action
  form.dataset.sent = "1";
  const values = new FormData(form, e.submitter); // a field may be there several times
  values.set("back", here());
  htmx
    .ajax("POST", form.getAttribute("action"), {
      // No select here: it would win over what a refusal selects below. That of #message does.
      // From #live it would wait for a refresh that is out, and be forgotten by who goes to
      // another task meanwhile.
      source: "#message", target: "#live", swap: "morph:outerHTML", selectOOB: "#message:innerHTML", values,
    })
    .finally(() => {
      delete form.dataset.sent;
      again();
    });
});

// This page, as the server names it: without the base path, and what was said before.
function here() {
  const url = new URL(location.href);
  url.searchParams.delete("did");
  return "/" + url.pathname.slice(document.documentElement.dataset.base.length) + url.search;
}

// Another choice shows at once what it would do. Until then nothing is done: it would be
// what was chosen before.
function preview(form) {
  body.querySelector(".primary").disabled = true;
  open(`${form.action}?${new URLSearchParams(new FormData(form))}`);
}
document.addEventListener("change", (e) => {
  const form = e.target.form;
  if (!form?.matches("[data-preview]")) return;
  if (e.target.name === "from" && !form.matches(":has([value=from]:checked, [value=only]:checked)")) form.elements.scope.value = "from";
  if (dialog.open) preview(form);
  else form.requestSubmit();
});

// What an action would change is marked on the page behind it.
function mark() {
  const seqs = new Set((dialog.open ? body.querySelector("[data-planned]")?.dataset.planned ?? "" : "").split(" "));
  for (const row of document.querySelectorAll("[data-seq]")) row.classList.toggle("planned", seqs.has(row.dataset.seq));
  dispatchEvent(new Event("flower:planned"));
}
document.addEventListener("htmx:afterSettle", mark);

// What was said once is not said again after a reload.
if (new URLSearchParams(location.search).has("did")) {
  const url = new URL(location.href);
  url.searchParams.delete("did");
  history.replaceState(history.state, "", url);
}

document.addEventListener("htmx:beforeSwap", (e) => {
  const { xhr, requestConfig } = e.detail;
  if (requestConfig?.verb !== "post") {
    // Since then something else was asked for, or the dialog was closed.
    if (e.detail.target === body && (xhr !== asked || (inside && !dialog.open))) e.detail.shouldSwap = false;
    return;
  }
  if (xhr.status === 409 || xhr.status === 422 || xhr.status === 207) {
    e.detail.target = body;
    e.detail.selectOverride = "#sheet";
    e.detail.swapOverride = "innerHTML";
  } else if (xhr.status < 300) {
    dialog.close();
  }
});

// What came to nothing is said where one looks: over the button that was pressed in the
// dialog, else above the page. What was typed stays.
document.addEventListener("htmx:afterRequest", (e) => {
  const { xhr, successful, target, requestConfig } = e.detail;
  if (target !== body && requestConfig.verb !== "post") return; // a refresh of the page says nothing about it
  body.querySelector(".bad")?.remove();
  if (successful) return;
  const page = new DOMParser().parseFromString(xhr.responseText, "text/html");
  const said = [...page.querySelectorAll("main :is(h1, h1 + p)")].map((n) => n.textContent).join(": ");
  const note = document.createElement("p");
  note.role = "alert";
  note.className = "message bad";
  note.textContent = said || /"detail":"(.*?)",/.exec(xhr.responseText)?.[1] || "Flower cannot be reached: try again";
  if (dialog.open) body.querySelector(".buttons").before(note);
  else document.getElementById("message").replaceChildren(note);
});
