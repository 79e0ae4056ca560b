"use strict";
// Makes a page live: sorts tables, filters boxes by score and class, enlarges images. The page can be read without it.
// The address keeps what is shown, as in page.html#score=0.5&image=2, so that a view survives a reload and can be sent.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const state = new URLSearchParams(location.hash.slice(1));

function remember(name, value) {
  if (value === null) state.delete(name);
  else state.set(name, value);
  try { history.replaceState(null, "", "#" + state); } catch { /* some browsers refuse it for files */ }
}

// Tables: a click on a heading sorts by its column, numbers as numbers; a second click turns the order around.
function sortable(table) {
  const headings = all("thead th", table);
  headings.forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const body = table.tBodies[0];
      const numbers = all("tr", body).some(row => !Number.isNaN(numberIn(row, column)));
      const was = heading.getAttribute("aria-sort");
      const order = was ? (was === "ascending" ? "descending" : "ascending") : numbers ? "descending" : "ascending";
      headings.forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      sortRows(body, column, order === "ascending" ? 1 : -1);
    });
  });
}

const textIn = (row, column) => row.cells[column].textContent.trim();
const numberIn = (row, column) => parseFloat(textIn(row, column).replace(/,/g, ""));

function sortRows(body, column, sign) {
  const rows = all("tr", body);
  rows.sort((one, other) => {
    const [a, b] = [numberIn(one, column), numberIn(other, column)];
    const missing = Number.isNaN(a) - Number.isNaN(b); // "-" and "no objects" come last
    if (missing) return missing;
    return sign * (Number.isNaN(a) ? textIn(one, column).localeCompare(textIn(other, column)) : a - b);
  });
  body.append(...rows);
}

// Images: the slider and the classes of the legend choose which boxes are drawn.
const panel = document.querySelector(".panel");
const slider = panel && panel.querySelector("input");
let chosen = null; // a class; null: all

function showBoxes(root = document) {
  if (!panel) return;
  const least = slider.value / 100;
  for (const box of all(".box", root)) {
    const above = parseFloat(box.dataset.score) > least;
    const other = chosen !== null && box.dataset.class !== chosen;
    const truth = box.classList.contains("truth");
    box.classList.toggle("off", other || !(truth || above));
    if (truth) box.classList.toggle("missed", !above);
  }
}

function showNumbers() {
  const groups = JSON.parse(panel.dataset.groups);
  const at = Number(slider.value);
  const group = groups.slice(1).find(one => one.name === chosen) || groups[0];
  const [boxes, tp, objects] = [group.boxes[at], group.tp[at], group.objects];
  const ratio = (part, whole) => whole ? (part / whole).toFixed(3) : "-";
  const texts = {
    at: (at / 100).toFixed(2), precision: ratio(tp, boxes), recall: ratio(tp, objects),
    f1: ratio(2 * tp, boxes + objects), tp: tp.toLocaleString("en"), boxes: boxes.toLocaleString("en"),
    objects: objects.toLocaleString("en"),
  };
  for (const [name, text] of Object.entries(texts)) {
    panel.querySelector(":is(.threshold, .live) ." + name).textContent = text; // not the legend, whose marks are .tp, .fp
  }
}

function show() {
  showBoxes();
  showNumbers();
  for (const figure of all("figure[data-class]")) {
    const { class: label, kind } = figure.dataset;
    const gallery = figure.parentElement.dataset;
    figure.hidden = (chosen !== null && label !== "" && label !== chosen) || Boolean(gallery.kind && gallery.kind !== kind);
  }
}

function choose(name) {
  chosen = chosen === name ? null : name;
  for (const chip of all(".panel .chip")) chip.setAttribute("aria-pressed", chip.dataset.class === chosen);
  remember("class", chosen);
  show();
}

function press(element, action) { // makes an element work as a button, by mouse and by keyboard
  element.tabIndex = 0;
  element.setAttribute("role", "button");
  element.addEventListener("click", action);
  element.addEventListener("keydown", event => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    action();
  });
}

function startPanel() {
  slider.hidden = false;
  if (state.has("score")) slider.value = Math.round(100 * parseFloat(state.get("score")));
  slider.addEventListener("input", () => {
    remember("score", slider.value / 100);
    show();
  });
  if (JSON.parse(panel.dataset.groups).length > 1) {
    for (const chip of all(".chip", panel)) press(chip, () => choose(chip.dataset.class));
  }
  for (const chip of all(".kinds .chip")) press(chip, () => {
    const gallery = chip.parentElement.nextElementSibling;
    const kind = gallery.dataset.kind === chip.dataset.kind ? "" : chip.dataset.kind;
    gallery.dataset.kind = kind;
    for (const other of all(".chip", chip.parentElement)) other.setAttribute("aria-pressed", other.dataset.kind === kind);
    show();
  });
  show();
  if (state.has("class")) choose(state.get("class"));
}

// From the raw map to boxes: two sliders decide which candidates stay, as detection would.
const boxesPanel = document.querySelector(".panel-boxes");

function iou(a, b) {
  const wide = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), high = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (wide <= 0 || high <= 0) return 0;
  const area = box => (box[2] - box[0]) * (box[3] - box[1]);
  return wide * high / (area(a) + area(b) - wide * high);
}

function startBoxes() {
  const candidates = JSON.parse(boxesPanel.dataset.candidates); // x1, y1, x2, y2, score, class; best first
  const [before, after] = [".before", ".after"].map(name => all(name + " .candidate").reverse()); // the best is on top
  const [score, limit] = [".score-slider", ".iou-slider"].map(name => boxesPanel.querySelector(name));
  const write = (name, text) => boxesPanel.querySelector(name).textContent = text;
  function update() {
    const above = candidates.filter(box => box[4] > score.value / 100);
    const kept = [];
    for (const box of above) {
      if (!kept.some(better => better[5] === box[5] && iou(better, box) > limit.value / 100)) kept.push(box);
    }
    candidates.forEach((box, n) => {
      before[n].classList.toggle("off", n >= above.length);
      after[n].classList.toggle("off", !kept.includes(box));
    });
    write(".score-at", (score.value / 100).toFixed(2));
    write(".iou-at", (limit.value / 100).toFixed(2));
    write(".above", above.length);
    write(".kept", kept.length);
  }
  for (const [name, slider] of [["score", score], ["iou", limit]]) {
    if (state.has(name)) slider.value = Math.round(100 * state.get(name));
    slider.addEventListener("input", () => { remember(name, slider.value / 100); update(); });
  }
  update();
}

// A dialog shows one image as large as the window. Esc closes it, arrow keys go to the images beside it.
const dialog = document.querySelector("dialog");
const figures = all("main figure");

function enlarge(number) {
  const figure = figures[number];
  if (!figure || figure.hidden) return;
  const large = figure.cloneNode(true);
  large.querySelectorAll("[tabindex]").forEach(element => element.removeAttribute("tabindex"));
  dialog.querySelector("div").replaceChildren(large);
  dialog.dataset.number = number;
  if (!dialog.open) dialog.showModal();
  remember("image", number + 1);
}

function beside(step) {
  for (let n = Number(dialog.dataset.number) + step; figures[n]; n += step) {
    if (!figures[n].hidden) return enlarge(n);
  }
}

figures.forEach((figure, number) => {
  const image = figure.querySelector("svg, img");
  press(image, () => enlarge(number));
  image.setAttribute("aria-haspopup", "dialog");
});
dialog.addEventListener("keydown", event => {
  if (event.key === "ArrowRight") beside(1);
  if (event.key === "ArrowLeft") beside(-1);
});
dialog.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (button && button.dataset.step) beside(Number(button.dataset.step));
  else if (button || event.target === dialog || event.target.tagName === "DIV") dialog.close();
});
dialog.addEventListener("close", () => remember("image", null));

all("table.sortable").forEach(sortable);
if (panel) startPanel();
if (boxesPanel) startBoxes();
if (state.has("image")) enlarge(Number(state.get("image")) - 1);
