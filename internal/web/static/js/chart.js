// Writes the times on axes as the person wants them, and draws what goes on up to the
// second: a page itself never has the present moment.
import { now, onChange } from "./live.js";
import { moment, parts, zone } from "./time.js";

/** How an axis names a moment; with the day where that differs from the one before. */
function words(form, at, before) {
  if (form === "zone") return zone(at);
  const { day, minute, second, fraction } = parts(at);
  const time = { minute, second, fraction }[form] ?? second;
  return (before === undefined ? parts(now()).day : parts(before).day) === day ? time : `${day.slice(5)} ${time}`;
}

function name(within) {
  for (const axis of within.querySelectorAll(".axis")) {
    let before;
    for (const text of axis.querySelectorAll("[data-time]")) {
      const at = Date.parse(text.dataset.time);
      const said = words(text.dataset.form, at, before);
      if (text.textContent !== said) text.textContent = said;
      if (text.dataset.form !== "zone") before = at;
    }
  }
  for (const node of within.querySelectorAll("[data-moment]")) node.textContent = moment(Date.parse(node.dataset.moment));
}

/** Lets what goes on end now. The last stretch of an axis has no cut. */
function grow() {
  for (const axis of document.querySelectorAll("[data-axis][data-going]")) {
    const from = Date.parse(axis.dataset.from), to = Date.parse(axis.dataset.to);
    const x0 = Number(axis.dataset.x0), x1 = Number(axis.dataset.x1);
    const x = x0 + (x1 - x0) * Math.min(1, Math.max(0, (now() - from) / (to - from)));
    for (const bar of axis.querySelectorAll("[data-open]")) bar.setAttribute("width", `${Math.max(0, x - parseFloat(bar.getAttribute("x")))}%`);
  }
  // A bar that fills in the time that a task usually takes.
  for (const bar of document.querySelectorAll("[data-since][data-full]")) {
    const share = (now() - Date.parse(bar.dataset.since)) / Number(bar.dataset.full);
    bar.setAttribute("width", `${Math.min(100, Math.max(0, share * 100))}%`);
    bar.classList.toggle("over", share > 1);
  }
}

onChange((within) => {
  name(within);
  grow();
});
addEventListener("flower:zone", () => name(document));
setInterval(() => document.visibilityState === "visible" && grow(), 1000);
