// What every page runs. A page is whole without it.
import { onChange } from "./live.js";
import "./time.js";
import "./settings.js";
import "./copy.js";
import "./dialog.js";
import "./select.js";
import "./keys.js";
import "./chart.js";

if (document.getElementById("graph")) import("./graph.js");

// What only some pages have is loaded when it is there.
onChange(() => {
  if (document.getElementById("log")) import("./log.js");
  if (document.querySelector("[data-picks], [data-filter]")) import("./list.js");
});
