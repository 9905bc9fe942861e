// What every page runs. A page is whole without it.
import "./live.js";
import "./time.js";
import "./settings.js";
import "./copy.js";
import "./dialog.js";
import "./select.js";
import "./log.js";
import "./keys.js";
import "./chart.js";

if (document.getElementById("graph")) import("./graph.js");
