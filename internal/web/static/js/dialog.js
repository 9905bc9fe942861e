// A page that previews an action is shown as a dialog over the page that led to it. Its
// form is the same: what it answers goes into #live, or, refused, into the dialog again.
import { live } from "./live.js";

const dialog = document.getElementById("dialog");
const body = document.getElementById("dialog-body");

/** Opens a page of ours as a dialog. */
export function open(href) {
  return htmx.ajax("GET", href, { target: body, select: "#sheet", swap: "innerHTML" });
}

document.addEventListener("click", (e) => {
  if (e.target.closest("[data-dismiss]")) {
    document.getElementById("message").replaceChildren();
    return;
  }
  if (e.target === dialog || e.target.closest("dialog [data-back]")) {
    e.preventDefault();
    dialog.close();
    return;
  }
  const link = e.target.closest("a[data-dialog]");
  if (!link || link.ariaDisabled === "true" || e.ctrlKey || e.metaKey || e.shiftKey || e.button !== 0) return;
  e.preventDefault();
  open(link.href);
});

document.addEventListener("htmx:afterSwap", (e) => {
  if (e.detail.target === body && !dialog.open) dialog.showModal();
});
dialog.addEventListener("close", () => body.replaceChildren());

// A form that acts. The answer is the page that one came from, with a message.
document.addEventListener("submit", (e) => {
  const form = e.target;
  if (form.method !== "post" || e.defaultPrevented || e.submitter?.hasAttribute("data-full")) return;
  e.preventDefault();
  if (form.dataset.sent) return; // a double click is one action
  form.dataset.sent = "1";
  const values = Object.fromEntries(new FormData(form, e.submitter));
  htmx
    .ajax("POST", e.submitter?.getAttribute("formaction") ?? form.action, {
      source: live(), target: "#live", select: "#live", swap: "morph:outerHTML", selectOOB: "#message", values,
    })
    .finally(() => delete form.dataset.sent);
});

document.addEventListener("htmx:beforeSwap", (e) => {
  const { xhr, requestConfig } = e.detail;
  if (requestConfig?.verb !== "post") return;
  if (xhr.status === 409 || xhr.status === 422) {
    e.detail.target = body;
    e.detail.selectOverride = "#sheet";
    e.detail.swapOverride = "innerHTML";
  } else if (xhr.status < 300) {
    dialog.close();
  }
});
