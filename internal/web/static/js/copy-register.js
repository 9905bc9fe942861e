// The command that registers what a form says: loaded when somebody copies it.
import { quote } from "./copy.js";

// A number stays as it was written, as for the server: one of 19 digits has no room in JavaScript.
const read = (text) => JSON.parse(text, (_, value, at) => (typeof value === "number" && at?.source ? JSON.rawJSON(at.source) : value));

function valueOf(text) {
  try {
    return read(text);
  } catch {
    return text;
  }
}

/** What a form would send to a path, for curl. */
export function command(form, path) {
  const data = new FormData(form);
  const body = {};
  const parameters = read(data.get("parameters").trim() || "{}");
  for (const [key, text] of data) if (key.startsWith("p.") && text.trim()) parameters[key.slice(2)] = valueOf(text.trim());
  if (Object.keys(parameters).length > 0) body.parameters = parameters;
  if (data.get("priority")) body.priority = Number(data.get("priority"));
  if (data.get("note")) body.note = data.get("note");
  const send = Object.keys(body).length > 0 ? ` -d ${quote(JSON.stringify(body))}` : "";
  return `curl -X POST ${quote(new URL(path, location.href).href)}${send}`;
}
