"use strict";
// The page on which lines and zones are drawn over a still image. It sends nothing: the file is a download.
const main = document.querySelector("main");
const svg = document.querySelector("svg");
const drawing = document.querySelector("#shapes");
const list = document.querySelector("#list");
const status = document.querySelector("#status");
const [width, height] = JSON.parse(main.dataset.size);
const fileName = main.dataset.file;
const RESERVED = /^(y|n|yes|no|on|off|true|false|null)$/i; // words that YAML takes for something else
const LEAST = { line: 2, zone: 3 };

let state = JSON.parse(main.dataset.zones); // {point, shapes: [{kind, name, points: [[x, y]], directions}]}
let past = [];
let saved = JSON.stringify(state);
let drawn = null; // the shape that is being drawn: {kind, points}
let hover = null;
let chosen = null; // index of the shape whose row or point is in use

// Geometry. Points are pixels of the still; looking from a line's start to its end, +1 is to the right.
const turn = ([ax, ay], [bx, by], [px, py]) => Math.sign((bx - ax) * (py - ay) - (by - ay) * (px - ax));

function meet(a, b, c, d) {
  const apart = [0, 1].some(k => Math.max(a[k], b[k]) < Math.min(c[k], d[k]) || Math.max(c[k], d[k]) < Math.min(a[k], b[k]));
  return !apart && turn(a, b, c) * turn(a, b, d) <= 0 && turn(c, d, a) * turn(c, d, b) <= 0;
}

const folded = (a, b, c) => turn(a, b, c) === 0 && (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1]) <= 0;

function crossesItself(points) {
  const edges = points.map((a, n) => [a, points[(n + 1) % points.length]]);
  return edges.some(([a, b], i) => edges.slice(i + 1).some(([c, d]) =>
    b === c ? folded(a, b, d) : d === a ? folded(c, d, b) : meet(a, b, c, d)));
}

function problems(shape) {
  const found = [];
  const others = state.shapes.filter(other => other !== shape);
  if (!shape.name.trim()) found.push("It needs a name.");
  if (others.some(other => other.name === shape.name)) found.push("Another line or zone has this name.");
  if (shape.points.some(([x, y]) => x < 0 || y < 0 || x > width || y > height)) found.push("A point is outside the image.");
  if (shape.kind === "zone" && crossesItself(shape.points)) found.push("Its edges meet or cross: move a point.");
  if (shape.kind === "line" && String(shape.points[0]) === String(shape.points[1])) found.push("Both points are at the same place.");
  if (shape.kind === "line" && !(shape.directions.every(name => name.trim()) && shape.directions[0] !== shape.directions[1]))
    found.push("It needs two directions with different names.");
  return found;
}

// The file
const word = text => /^[A-Za-z][A-Za-z_-]*[0-9]*$/.test(text) && !RESERVED.test(text) ? text : JSON.stringify(text);
const pair = ([x, y]) => `[${x}, ${y}]`;

function yaml() {
  const entry = shape => {
    const points = `[${shape.points.map(pair).join(", ")}]`;
    const plain = shape.kind === "zone" || (shape.directions[0] === "in" && shape.directions[1] === "out");
    const value = plain ? points : `{points: ${points}, directions: [${shape.directions.map(word).join(", ")}]}`;
    return `  ${word(shape.name)}: ${value}\n`;
  };
  const part = (title, kind) => {
    const shapes = state.shapes.filter(shape => shape.kind === kind);
    return shapes.length ? `${title}:\n${shapes.map(entry).join("")}` : "";
  };
  return `point: ${state.point}\n${part("lines", "line")}${part("zones", "zone")}`;
}

// Changes. Each is remembered, so that it can be undone.
function change(how) {
  past.push(JSON.stringify(state));
  how();
  render();
}

function undo() {
  if (!past.length) return;
  state = JSON.parse(past.pop());
  drawn = null;
  render();
}

const clamp = (value, most) => Math.min(Math.max(Math.round(value), 0), most);
const inside = ([x, y]) => [clamp(x, width), clamp(y, height)];

function freeName(kind) {
  for (let n = 1; ; n++) if (!state.shapes.some(shape => shape.name === `${kind}${n}`)) return `${kind}${n}`;
}

function add(kind, points) {
  change(() => state.shapes.push({ kind, name: freeName(kind), points, directions: ["in", "out"] }));
  chosen = state.shapes.length - 1;
  render();
}

function start(kind, byKey) {
  drawn = null;
  if (byKey) { // arrow keys move the points
    const [x, y] = [width / 4, height / 4];
    add(kind, (kind === "line" ? [[x, 2 * y], [3 * x, 2 * y]] : [[x, y], [3 * x, y], [3 * x, 3 * y], [x, 3 * y]]).map(inside));
    drawing.querySelector(`[data-shape="${chosen}"] .point`).focus();
  } else {
    drawn = { kind, points: [] };
    chosen = null;
    render();
  }
}

function finish() {
  const { kind, points } = drawn;
  drawn = null;
  if (points.length >= LEAST[kind]) add(kind, points);
  else render();
}

// What is drawn
const scale = () => width / (svg.clientWidth || width); // image pixels in a pixel of the screen

function element(name, attributes, parent, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function label(parent, x, y, text, anchor = "middle") {
  const size = 13 * scale();
  const made = element("text", { x, y: y + size / 3, "font-size": size, "text-anchor": anchor }, parent, text);
  const { x: left, width: wide } = made.getBBox();
  made.setAttribute("x", x - Math.max(0, left + wide - width) + Math.max(0, -left));
}

function arrows(group, shape) {
  const k = scale(), [[ax, ay], [bx, by]] = shape.points, long = Math.hypot(bx - ax, by - ay) || 1;
  const [ux, uy] = [(bx - ax) / long, (by - ay) / long], [mx, my] = [(ax + bx) / 2, (ay + by) / 2];
  shape.directions.forEach((name, n) => {
    const side = n ? -1 : 1, [nx, ny] = [-uy * side, ux * side]; // to the right, looking from start to end, is the first
    const [tx, ty] = [mx + 26 * k * nx, my + 26 * k * ny];
    const head = [-1, 1].map(s => `M${tx} ${ty}L${tx - 8 * k * nx + s * 6 * k * ux} ${ty - 8 * k * ny + s * 6 * k * uy}`);
    for (const kind of ["halo", "stroke"]) element("path", { class: kind, d: `M${mx} ${my}L${tx} ${ty}${head.join("")}` }, group);
    const anchor = nx > 0.5 ? "start" : nx < -0.5 ? "end" : "middle";
    label(group, tx + 8 * k * nx, ty + 12 * k * ny, name, anchor);
  });
}

function drawShape(shape, n) {
  const group = element("g", { class: `${shape.kind}${n === chosen ? " chosen" : ""}`, "data-shape": n }, drawing);
  const path = `M${shape.points.map(p => p.join(" ")).join("L")}${shape.kind === "zone" ? "Z" : ""}`;
  for (const kind of ["halo", "stroke", "hit"]) element("path", { class: kind, d: path }, group);
  if (shape.kind === "line") arrows(group, shape);
  const k = scale(), [x, y] = shape.points[0];
  label(group, x + 10 * k, y - 12 * k < 12 * k ? y + 18 * k : y - 12 * k, shape.name, "start");
  shape.points.forEach(([px, py], at) => {
    const point = element("g", { class: "point", tabindex: 0, role: "button", "data-at": at,
      "aria-label": `${shape.name}, point ${at + 1} at ${px}, ${py}; arrow keys move it` }, group);
    element("circle", { class: "hit", cx: px, cy: py, r: 16 * k }, point);
    element("circle", { class: "dot", cx: px, cy: py, r: 6 * k }, point);
  });
}

function drawUnfinished() {
  const points = hover ? [...drawn.points, hover] : drawn.points;
  if (!points.length) return;
  const group = element("g", { class: "unfinished" }, drawing);
  for (const kind of ["halo", "stroke"]) element("path", { class: kind, d: `M${points.map(p => p.join(" ")).join("L")}` }, group);
  for (const [x, y] of drawn.points) element("circle", { class: "dot", cx: x, cy: y, r: 6 * scale() }, group);
}

// The list: a row for each line and zone. Rows stay while one types in them.
function row(shape, n) {
  const made = document.querySelector("#row").content.firstElementChild.cloneNode(true);
  made.dataset.shape = n;
  made.classList.toggle("chosen", n === chosen);
  made.querySelector(".kind").textContent = shape.kind === "line" ? "Line" : "Zone";
  const inputs = made.querySelectorAll("input");
  inputs[0].value = shape.name;
  made.querySelector(".directions").hidden = made.querySelector(".flip").hidden = shape.kind !== "line";
  shape.directions.forEach((name, k) => { inputs[k + 1].value = name; });
  made.querySelector(".delete").setAttribute("aria-label", `Delete ${shape.name}`);
  return made;
}

function render(rows = true) {
  const focus = document.activeElement, at = focus.dataset.at, of = focus.closest && focus.closest("g[data-shape]");
  drawing.replaceChildren();
  state.shapes.forEach(drawShape);
  if (drawn) drawUnfinished();
  if (at !== undefined && of) drawing.querySelector(`[data-shape="${of.dataset.shape}"] [data-at="${at}"]`)?.focus({ preventScroll: true });
  if (rows) list.replaceChildren(...state.shapes.map(row));
  const found = state.shapes.map(problems);
  found.forEach((texts, n) => {
    const place = list.children[n].querySelector(".problems");
    place.textContent = texts.join(" ");
    list.children[n].querySelector(".inside").hidden = !texts.some(text => text.includes("outside"));
  });
  document.querySelector("#point").value = state.point;
  document.querySelector("#empty").hidden = state.shapes.length > 0;
  document.querySelector("#yaml").textContent = yaml();
  const good = state.shapes.length > 0 && !found.some(texts => texts.length);
  for (const id of ["#save", "#copy"]) document.querySelector(id).disabled = !good;
  document.querySelector("#undo").disabled = !past.length;
  for (const kind of ["line", "zone"]) document.querySelector(`#add-${kind}`).setAttribute("aria-pressed", String(drawn?.kind === kind));
  svg.classList.toggle("drawing", Boolean(drawn));
  status.textContent = drawn
    ? drawn.kind === "line" ? "Click the start of the line, then its end. Esc stops."
      : "Click the corners of the zone in order. Enter, or a click on the first corner, closes it. Esc stops."
    : found.some(texts => texts.length) ? "Correct what is marked; then the file can be saved."
      : state.shapes.length ? "Drag points, or move them with the arrow keys. A double click on an edge of a zone adds a corner." : "";
}

function mark(n) {
  chosen = n;
  for (const each of document.querySelectorAll("[data-shape]")) each.classList.toggle("chosen", Number(each.dataset.shape) === n);
}

// The pointer
function place(event) {
  const box = svg.getBoundingClientRect();
  return inside([(event.clientX - box.left) / box.width * width, (event.clientY - box.top) / box.height * height]);
}

svg.addEventListener("pointerdown", event => {
  if (drawn) return;
  const group = event.target.closest("g[data-shape]");
  const point = event.target.closest(".point");
  mark(group ? Number(group.dataset.shape) : null); // the elements stay, or there would be no double click
  if (!group) return;
  event.preventDefault();
  if (point) point.focus({ preventScroll: true });
  const shape = state.shapes[chosen], begin = place(event), before = JSON.stringify(state), was = shape.points.map(p => [...p]);
  const moved = move => {
    const [x, y] = place(move);
    if (point) shape.points[Number(point.dataset.at)] = [x, y];
    else shape.points = was.map(([px, py]) => inside([px + x - begin[0], py + y - begin[1]]));
    render(false);
  };
  const end = () => {
    removeEventListener("pointermove", moved);
    if (before === JSON.stringify(state)) return;
    past.push(before);
    render();
  };
  addEventListener("pointermove", moved);
  for (const kind of ["pointerup", "pointercancel"]) addEventListener(kind, end, { once: true });
});

svg.addEventListener("pointermove", event => {
  if (!drawn) return;
  hover = place(event);
  render(false);
});

svg.addEventListener("click", event => {
  if (!drawn) return;
  const at = place(event), [first] = drawn.points, last = drawn.points.at(-1);
  const near = p => p && Math.hypot(at[0] - p[0], at[1] - p[1]) < 12 * scale();
  if (drawn.kind === "zone" && drawn.points.length >= 3 && (near(first) || near(last))) return finish();
  if (near(last)) return;
  drawn.points.push(at);
  if (drawn.kind === "line" && drawn.points.length === 2) finish();
  else render(false);
});

svg.addEventListener("dblclick", event => {
  const group = event.target.closest("g.zone");
  if (drawn || !group || event.target.closest(".point")) return;
  const shape = state.shapes[Number(group.dataset.shape)], at = place(event);
  const far = shape.points.map((a, n) => {
    const b = shape.points[(n + 1) % shape.points.length], [dx, dy] = [b[0] - a[0], b[1] - a[1]];
    const part = Math.min(Math.max(((at[0] - a[0]) * dx + (at[1] - a[1]) * dy) / (dx * dx + dy * dy || 1), 0), 1);
    return Math.hypot(a[0] + part * dx - at[0], a[1] + part * dy - at[1]);
  });
  if (Math.min(...far) < 12 * scale()) change(() => shape.points.splice(far.indexOf(Math.min(...far)) + 1, 0, at));
});

// The keyboard
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

svg.addEventListener("keydown", event => {
  const point = event.target.closest(".point");
  if (!point) return;
  const n = Number(point.closest("g[data-shape]").dataset.shape), at = Number(point.dataset.at), shape = state.shapes[n];
  const step = STEPS[event.key];
  if (step) {
    const by = event.shiftKey ? 10 : 1;
    change(() => { shape.points[at] = inside([shape.points[at][0] + by * step[0], shape.points[at][1] + by * step[1]]); });
  } else if (event.key === "Delete" || event.key === "Backspace") {
    if (shape.points.length > LEAST[shape.kind]) change(() => shape.points.splice(at, 1));
    else remove(n);
  } else return;
  event.preventDefault();
});

addEventListener("keydown", event => {
  const typing = event.target.matches("input, select");
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && !typing) { event.preventDefault(); undo(); }
  if (drawn && event.key === "Escape") { drawn = null; render(); }
  if (drawn && event.key === "Enter" && !event.target.matches("button")) finish();
});

function remove(n) {
  change(() => state.shapes.splice(n, 1));
  chosen = null;
  document.querySelector("#add-line").focus();
}

// The list and the buttons
list.addEventListener("input", event => {
  const n = Number(event.target.closest("li").dataset.shape), shape = state.shapes[n];
  const at = [...list.children[n].querySelectorAll("input")].indexOf(event.target);
  if (at === 0) shape.name = event.target.value;
  else shape.directions[at - 1] = event.target.value;
  render(false);
});
let atFocus = "";
list.addEventListener("focusin", event => {
  atFocus = JSON.stringify(state);
  mark(Number(event.target.closest("li").dataset.shape));
});
list.addEventListener("change", () => past.push(atFocus));
list.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (!button) return;
  const n = Number(button.closest("li").dataset.shape), shape = state.shapes[n];
  if (button.classList.contains("delete")) remove(n);
  if (button.classList.contains("flip")) change(() => shape.points.reverse());
  if (button.classList.contains("inside")) change(() => { shape.points = shape.points.map(inside); });
});
for (const kind of ["line", "zone"]) {
  document.querySelector(`#add-${kind}`).addEventListener("click", event => start(kind, event.detail === 0));
}
document.querySelector("#undo").addEventListener("click", undo);
document.querySelector("#point").addEventListener("change", event => change(() => { state.point = event.target.value; }));
document.querySelector("#save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([yaml()], { type: "text/yaml" }));
  link.download = fileName;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  saved = JSON.stringify(state);
});
document.querySelector("#copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(yaml());
    saved = JSON.stringify(state);
    status.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(document.querySelector("#yaml"));
    status.textContent = "Selected: copy it with the keyboard.";
  }
});
addEventListener("beforeunload", event => { if (JSON.stringify(state) !== saved) event.preventDefault(); });
new ResizeObserver(() => render(false)).observe(svg);
render();
