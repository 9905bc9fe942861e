// Buttons that copy: data-copy is the text, or data-copy-from the id of what has it, or
// data-copy-link a URL of this site, or data-copy-curl the path of one that curl asks for.
// On plain http there is no clipboard but the old one,
// which needs a field inside the open dialog.
import { say } from "./live.js";

async function copy(text) {
  if (navigator.clipboard && isSecureContext) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  const focused = document.activeElement;
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus?.({ preventScroll: true });
  if (!done) throw new Error("the browser did not copy");
}

// A number stays as it was written, as for the server: one of 19 digits has no room in JavaScript.
const read = (text) => JSON.parse(text, (_, value, at) => (typeof value === "number" && at?.source ? JSON.rawJSON(at.source) : value));

function valueOf(text) {
  try {
    return read(text);
  } catch {
    return text;
  }
}

const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function textOf(button) {
  const { copy, copyFrom, copyLink, copyCurl, copyRegister } = button.dataset;
  if (copyCurl !== undefined) return `curl ${quote(new URL(`${copyCurl}?format=text`, location.href).href)}`;
  if (copyRegister !== undefined) {
    const data = new FormData(button.form);
    const body = {};
    const parameters = read(data.get("parameters").trim() || "{}");
    for (const [key, text] of data) if (key.startsWith("p.") && text.trim()) parameters[key.slice(2)] = valueOf(text.trim());
    if (Object.keys(parameters).length > 0) body.parameters = parameters;
    if (data.get("priority")) body.priority = Number(data.get("priority"));
    if (data.get("note")) body.note = data.get("note");
    const send = Object.keys(body).length > 0 ? ` -d ${quote(JSON.stringify(body))}` : "";
    return `curl -X POST ${quote(new URL(copyRegister, location.href).href)}${send}`;
  }
  if (copyLink !== undefined) return new URL(copyLink, location.href).href;
  if (copyFrom !== undefined) {
    const from = document.getElementById(copyFrom); // of an error the parts, without how much is folded away
    return [...from.querySelectorAll(".said")].map((n) => n.textContent).join("\n") || from.textContent;
  }
  return copy;
}

document.addEventListener("click", async (e) => {
  const button = e.target.closest("[data-copy], [data-copy-from], [data-copy-link], [data-copy-curl], [data-copy-register]");
  if (!button) return;
  e.preventDefault();
  let word = "Copied";
  try {
    await copy(textOf(button));
  } catch {
    word = "Not copied";
  }
  say(word);
  button.dataset.said = word;
  setTimeout(() => delete button.dataset.said, 1500);
});
