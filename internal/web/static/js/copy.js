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

export const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function textOf(button) {
  const { copy, copyFrom, copyLink, copyCurl, copyRegister } = button.dataset;
  if (copyCurl !== undefined) return `curl ${quote(new URL(`${copyCurl}?format=text`, location.href).href)}`;
  if (copyRegister !== undefined) return import("./copy-register.js").then(({ command }) => command(button.form, copyRegister));
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
    await copy(await textOf(button));
  } catch {
    word = "Not copied";
  }
  say(word);
  button.dataset.said = word;
  setTimeout(() => delete button.dataset.said, 1500);
});
