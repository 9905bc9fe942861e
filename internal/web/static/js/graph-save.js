// Saves the graph as a file that needs nothing: colours, fonts and icons are written in.

const inherited = ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-family", "font-size", "font-weight", "color"];

/**
 * @param {SVGSVGElement} svg
 * @param {string} name of the file, without .svg
 */
export async function save(svg, name) {
  const text = await standalone(svg);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  link.download = `${name.replace(/[^\p{L}\p{N}._-]+/gu, "-")}.svg`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** @param {SVGSVGElement} svg */
export async function standalone(svg) {
  const copy = svg.cloneNode(true);
  const [, , width, height] = svg.getAttribute("viewBox").split(" ");
  const originals = [...svg.querySelectorAll("*")], copies = [...copy.querySelectorAll("*")];
  paint(svg, copy);
  originals.forEach((from, i) => paint(from, copies[i]));
  await inline(svg, copy);
  for (const node of [copy, ...copy.querySelectorAll("*")]) {
    node.removeAttribute("class");
    node.removeAttribute("data-node");
  }
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const page = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  page.setAttribute("width", width);
  page.setAttribute("height", height);
  page.setAttribute("fill", getComputedStyle(document.body).backgroundColor);
  copy.prepend(page);
  return new XMLSerializer().serializeToString(copy);
}

/** Writes what the stylesheet says of one element into the other, where it says something new. */
function paint(from, to) {
  const style = getComputedStyle(from), outer = from.localName === "svg" ? null : getComputedStyle(from.parentNode);
  for (const name of inherited) {
    const value = style.getPropertyValue(name);
    if (value !== outer?.getPropertyValue(name)) to.setAttribute(name, value);
  }
  if (style.opacity !== "1") to.setAttribute("opacity", style.opacity);
  // Whatever font opens it: no text leaves its node.
  if (from.localName === "text" && from.textContent) {
    to.setAttribute("textLength", from.getComputedTextLength().toFixed(1));
    to.setAttribute("lengthAdjust", "spacingAndGlyphs");
  }
}

/** Puts icons in the place of what refers to them in another file. */
async function inline(svg, copy) {
  const files = new Map();
  for (const use of copy.querySelectorAll("use")) {
    const [file, id] = (use.getAttribute("href") ?? "").split("#");
    if (!id) {
      use.remove();
      continue;
    }
    if (!files.has(file)) {
      const text = await (await fetch(file)).text();
      files.set(file, new DOMParser().parseFromString(text, "image/svg+xml"));
    }
    const symbol = files.get(file).getElementById(id);
    const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const name of ["x", "y", "width", "height", "color"]) if (use.hasAttribute(name)) icon.setAttribute(name, use.getAttribute(name));
    icon.setAttribute("viewBox", symbol.getAttribute("viewBox"));
    icon.append(...[...symbol.cloneNode(true).childNodes]);
    // A part that shows what is behind it is the page's colour.
    for (const part of icon.querySelectorAll("*")) {
      for (const name of ["fill", "stroke"]) {
        if (part.getAttribute(name)?.startsWith("var(")) part.setAttribute(name, getComputedStyle(document.body).backgroundColor);
      }
    }
    use.replaceWith(icon);
  }
}
