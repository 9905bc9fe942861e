// Theme, zone and live, without a new page. The cookie tells the server, which writes the
// same into the next one.
const root = document.documentElement;
const values = { theme: ["auto", "light", "dark"], zone: ["local", "utc"], live: ["on", "off"] };
const words = { on: "Live", off: "Paused", local: "Local", utc: "UTC" };

export function turn(name) {
  const all = values[name];
  const value = all[(all.indexOf(root.dataset[name]) + 1) % all.length];
  root.dataset[name] = value;
  document.cookie = `flower_${name}=${value}; path=${root.dataset.base}; max-age=31536000; samesite=lax`;
  const button = document.getElementById(`set-${name}`);
  button.querySelector("[data-word]").textContent = words[value] ?? value;
  button.value = all[(all.indexOf(value) + 1) % all.length];
  dispatchEvent(new Event(`flower:${name}`));
}

document.querySelector("form.settings").addEventListener("submit", (e) => {
  if (!e.submitter || !(e.submitter.name in values)) return;
  e.preventDefault();
  turn(e.submitter.name);
});
