// The page: images go to /v1/detect, and what comes back is kept raw, so that threshold and classes act at once.
import { View } from "/view.js";
import { copy, download, toImage, toJSON, toVOC, toYOLO } from "/save.js";

const $ = id => document.getElementById(id);
const RAW = 0.01, AT_ONCE = 4, TRIES = 8, MOST_KEPT = 60, CAMERA_SIDE = 960; // lowest score; requests; images; pixels
const state = { models: [], model: null, items: [], item: null, hidden: new Set(), threshold: null, camera: null };
const view = new View($("canvas"), pointed);

// The server

const headers = () => {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
};

async function ask(path, options = {}) { // the answer; while the server is busy, asks again
  for (let tried = 1; ; tried++) {
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
    } catch {
      throw new Error("The server does not answer. Is it still running?");
    }
    if (answer.ok) return answer;
    const { detail } = await answer.json().catch(() => ({ detail: `The server answers ${answer.status}.` }));
    if (answer.status === 401) $("token-form").hidden = false;
    if (answer.status !== 503 || tried === TRIES) throw new Error(detail);
    await new Promise(done => setTimeout(done, 1000 * Math.min(Number(answer.headers.get("Retry-After")) || 1, 3)));
  }
}

const detect = (blob, options = `threshold=${RAW}&rounded=false`) =>
  ask(`/v1/detect?model=${encodeURIComponent(state.model.name)}&${options}`,
    { method: "POST", body: blob, headers: { "Content-Type": "application/octet-stream" } });

async function start() {
  try {
    state.models = (await (await ask("/v1/models")).json()).models;
  } catch (error) {
    return fail(error);
  }
  $("token-form").hidden = true;
  $("error").hidden = true;
  $("model").replaceChildren(...state.models.map(({ name }) => new Option(name, name)));
  $("model").closest("label").hidden = state.models.length < 2;
  use(state.models[0]);
}

function use(model) {
  state.model = model;
  state.hidden.clear();
  state.threshold = null;
  const [width, height] = model.input_size, count = model.labels.length;
  const name = state.models.length > 1 ? "" : `${model.name} · `; // else it is in the list
  $("about").textContent = `${name}${count} ${count === 1 ? "class" : "classes"} · ${width} × ${height} · ${model.backend}`;
  $("about").title = model.digest || "";
  refresh();
}

// Images

const queue = [];
let running = 0, order = 0;

function add(blobs) {
  const images = [...blobs].filter(blob => !blob.type || blob.type.startsWith("image/") || blob.type === "application/octet-stream");
  if (!images.length) return fail(new Error("That is not an image. Drop a JPEG, PNG, WebP, or another image file."));
  if (!state.model) return;
  stopCamera();
  $("error").hidden = true;
  images.forEach((blob, n) => queue.push({ blob, name: blob.name || `pasted-${state.items.length + n + 1}.png`, first: n === 0, order: order++ }));
  work();
}

async function work() {
  while (running < AT_ONCE && queue.length) {
    running++;
    const job = queue.shift();
    found(job).catch(error => fail(error, job.name)).finally(() => { running--; busy(); work(); });
  }
  busy();
}

async function decoded(blob) { // what the browser cannot decode (HEIC, TIFF), the server sends as JPEG without boxes
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    return createImageBitmap(await (await detect(blob, "format=image&threshold=1")).blob());
  }
}

async function found({ blob, name, first, order }) {
  const [answer, image] = await Promise.all([detect(blob).then(each => each.json()), decoded(blob).catch(() => null)]);
  if (!image) throw new Error("this browser cannot show the image");
  keep({ ...result(answer), blob, name, image, order }, first);
}

function result({ images: [{ width, height, detections }], time_ms: times, model }) {
  const colours = state.models.find(each => each.name === model).colours;
  return { width, height, times, model, raw: detections.map(each => ({ ...each, colour: colours[each.label] })) };
}

function keep(item, show) {
  state.items.push(item);
  state.items.sort((one, other) => one.order - other.order); // as they were given, not as they came back
  while (state.items.length > MOST_KEPT) state.items.shift();
  if (show || !state.item) open(item);
  else thumbs();
}

function open(item) {
  state.item = item;
  const has = Boolean(item);
  $("stage").classList.toggle("blank", !has);
  $("empty").hidden = has;
  $("canvas").hidden = $("tools").hidden = !has;
  if (has) {
    view.resized();
    view.show(item.image);
  }
  refresh();
  thumbs();
}

function step(by) {
  const next = state.items[state.items.indexOf(state.item) + by];
  if (next) open(next);
}

// What is shown

const limit = label => state.threshold ?? state.model.thresholds[label];
const passing = (item, label = null) =>
  item.raw.filter(box => box.score > limit(box.label) && (label === null ? !state.hidden.has(box.label) : box.label === label));

function refresh() {
  if (!state.model) return;
  const own = Object.values(state.model.thresholds), least = Math.min(...own);
  $("threshold").value = Math.round(100 * (state.threshold ?? least));
  const mixed = state.threshold === null && Math.max(...own) - least > 0.005;
  $("threshold-value").textContent = mixed ? "by class" : (state.threshold ?? least).toFixed(2);
  $("own").disabled = state.threshold === null;
  const { item } = state, boxes = item ? passing(item) : [];
  view.boxes = boxes;
  view.draw();
  chips(item);
  rows(item, boxes);
  tell(item, boxes);
  for (const id of ["copy", "save-image", "save-yolo", "save-voc"]) $(id).disabled = !item;
}

function tell(item, boxes) {
  if (!item) return;
  const what = `${boxes.length} ${boxes.length === 1 ? "object" : "objects"}`, { times } = item;
  const small = document.createElement("small");
  small.textContent = state.camera ? `${item.width} × ${item.height}`
    : `${item.name} · ${item.width} × ${item.height} · ${Math.round(times.total)} ms (network ${Math.round(times.network)})`;
  $("status").replaceChildren(what, small);
  const names = [...new Set(boxes.map(box => box.label))].slice(0, 5).join(", ");
  $("canvas").setAttribute("aria-label", `${item.name}: ${what}${names ? `: ${names}` : ""}`);
  $("count").textContent = item.raw.length > boxes.length ? `${boxes.length} of ${item.raw.length}` : "";
}

function swatch(colour) {
  const mark = document.createElement("i");
  mark.style.setProperty("--colour", colour);
  return mark;
}

function chips(item) {
  if (!item) return;
  const labels = [...new Set(item.raw.map(box => box.label))];
  const counts = Object.fromEntries(labels.map(label => [label, passing(item, label).length]));
  const wanted = labels.filter(label => counts[label] || state.hidden.has(label)).sort((a, b) => counts[b] - counts[a]);
  const focused = document.activeElement && document.activeElement.dataset.label;
  $("classes").replaceChildren(...wanted.map(label => {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.className = "chip";
    chip.dataset.label = label;
    chip.setAttribute("aria-pressed", !state.hidden.has(label));
    chip.title = "Click: hide or show. Double click: this class alone.";
    const number = document.createElement("b");
    number.textContent = counts[label];
    chip.append(swatch(state.model.colours[label]), label, number);
    return chip;
  }));
  if (!wanted.length) $("classes").textContent = item.raw.length ? "None above the threshold." : "Nothing was found.";
  $("all").hidden = !state.hidden.size;
  [...$("classes").children].find(chip => focused && chip.dataset.label === focused)?.focus();
}

function rows(item, boxes) {
  $("rows").replaceChildren(...boxes.slice(0, 300).map(box => {
    const row = document.createElement("tr"), [x1, y1, x2, y2] = box.box.map(Math.round);
    const texts = [box.label, box.score.toFixed(3), `${x1}, ${y1}`, `${x2 - x1} × ${y2 - y1}`];
    for (const text of texts) row.insertCell().textContent = text;
    row.cells[0].prepend(swatch(box.colour));
    row.addEventListener("pointerenter", () => choose(box));
    row.addEventListener("pointerleave", () => choose(null));
    row.box = box;
    return row;
  }));
}

function choose(box) {
  if (view.chosen === box) return;
  view.chosen = box;
  view.draw();
  for (const row of $("rows").rows) row.classList.toggle("on", row.box === box);
}

function pointed(box, clicked) {
  choose(box);
  $("canvas").title = box ? `${box.label} ${box.score.toFixed(3)}` : "";
  if (clicked && box) [...$("rows").rows].find(row => row.box === box)?.scrollIntoView({ block: "nearest" });
}

function thumbs() {
  $("history").hidden = !state.items.length;
  $("thumbs").replaceChildren(...state.items.map(item => {
    const place = document.createElement("li"), button = document.createElement("button"), count = document.createElement("span");
    item.thumb ||= small(item.image);
    button.type = "button";
    button.append(item.thumb, count);
    count.textContent = passing(item).length;
    button.setAttribute("aria-label", `${item.name}, ${count.textContent} objects`);
    button.setAttribute("aria-current", item === state.item);
    button.title = item.name;
    button.addEventListener("click", () => { stopCamera(); open(item); });
    place.append(button);
    return place;
  }));
  $("thumbs").querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function small(image) {
  const canvas = document.createElement("canvas"), scale = Math.max(192 / image.width, 144 / image.height);
  canvas.width = 192;
  canvas.height = 144;
  canvas.getContext("2d").drawImage(image, (192 - image.width * scale) / 2, (144 - image.height * scale) / 2, image.width * scale, image.height * scale);
  return canvas;
}

function busy() {
  const left = running + queue.length;
  $("status").classList.toggle("busy", left > 0);
  if (left > 0) $("status").textContent = left === 1 ? "Detecting" : `Detecting: ${left} images left`;
  else if (state.item) tell(state.item, view.boxes);
}

function fail(error, name = "") {
  const text = `${name ? `${name}: ` : ""}${error.message.replace(/^the image( \(.*?\))?: /, "")}`;
  $("error").textContent = text[0].toUpperCase() + text.slice(1);
  $("error").hidden = false;
}

// The camera: one frame at a time goes to the server, and is shown with its own boxes.

async function startCamera(facing = "environment") {
  $("error").hidden = true;
  let stream;
  try {
    if (!navigator.mediaDevices) throw new Error("A browser gives pages the camera only at https:// or localhost addresses.");
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: { ideal: 1280 } }, audio: false });
  } catch (error) {
    const words = { NotAllowedError: "The camera is not allowed for this page.", NotFoundError: "There is no camera." };
    return fail(new Error(words[error.name] || error.message));
  }
  stopCamera();
  const camera = state.camera = { stream, facing };
  const video = $("video");
  video.srcObject = stream;
  await video.play();
  $("empty").hidden = true;
  $("stage").classList.remove("blank");
  $("canvas").hidden = $("tools").hidden = $("camera-tools").hidden = false;
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  $("turn").hidden = cameras.length < 2;
  view.resized();
  const times = [];
  while (state.camera === camera) {
    try {
      await frame(camera, video);
    } catch (error) {
      stopCamera();
      return fail(error);
    }
    times.push(performance.now());
    while (times.length > 15) times.shift();
    if (times.length > 2) $("fps").textContent = `${(1000 * (times.length - 1) / (times.at(-1) - times[0])).toFixed(1)} fps`;
  }
}

async function frame(camera, video) {
  const scale = Math.min(1, CAMERA_SIDE / Math.max(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise(done => canvas.toBlob(done, "image/jpeg", 0.85));
  const answer = await (await detect(blob)).json();
  if (state.camera !== camera) return;
  const clock = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
  state.item = { ...result(answer), blob, image: canvas, name: `camera-${clock}.jpg`, order: Infinity };
  view.show(canvas, true);
  refresh();
}

function stopCamera() {
  if (!state.camera) return;
  state.camera.stream.getTracks().forEach(track => track.stop());
  state.camera = null;
  $("video").srcObject = null;
  $("camera-tools").hidden = true;
  $("fps").textContent = "";
  open(state.items.includes(state.item) ? state.item : state.items.at(-1) || null);
}

// Controls

const stem = () => state.item.name.replace(/^.*[\\/]/, "").replace(/\.[^.]*$/, "") || "image";
const actions = {
  choose: () => $("files").click(),
  more: () => $("files").click(),
  camera: () => startCamera(),
  "again-camera": () => startCamera(),
  stop: stopCamera,
  turn: () => startCamera(state.camera.facing === "user" ? "environment" : "user"),
  keep: () => { if (state.item) keep({ ...state.item, order: order++ }, false); },
  own: () => { state.threshold = null; refresh(); thumbs(); },
  all: () => { state.hidden.clear(); refresh(); thumbs(); },
  "zoom-in": () => view.zoom(1.5),
  "zoom-out": () => view.zoom(1 / 1.5),
  fit: () => view.fit(),
  copy: async () => {
    await copy(toJSON(state.item, view.boxes));
    $("copy").textContent = "Copied";
    setTimeout(() => { $("copy").textContent = "Copy JSON"; }, 1500);
  },
  "save-image": async () => download(await toImage(state.item, view.boxes), `${stem()}-detections.jpg`),
  "save-yolo": () => download(toYOLO(state.item, view.boxes), `${stem()}.txt`),
  "save-voc": () => download(toVOC(state.item, view.boxes), `${stem()}.xml`),
  clear: () => { stopCamera(); state.items = []; open(null); $("status").textContent = "Waiting for an image."; $("rows").replaceChildren(); },
  theme: () => {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    theme(dark ? "light" : "dark");
  },
};
for (const [id, action] of Object.entries(actions)) {
  $(id).addEventListener("click", () => Promise.resolve(action()).catch(fail));
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("theme", name); } catch { /* not kept */ }
}
try { if (localStorage.getItem("theme")) theme(localStorage.getItem("theme")); } catch { /* not kept */ }

$("files").addEventListener("change", () => { if ($("files").files.length) add($("files").files); $("files").value = ""; });
$("threshold").addEventListener("input", () => { state.threshold = $("threshold").value / 100; refresh(); });
$("threshold").addEventListener("change", thumbs);
$("classes").addEventListener("click", event => {
  const { label } = event.target.closest(".chip")?.dataset || {};
  if (label === undefined) return;
  if (event.detail === 2) { // of a double click: this class alone
    state.hidden = new Set(state.item.raw.map(box => box.label).filter(other => other !== label));
  } else if (!state.hidden.delete(label)) state.hidden.add(label);
  refresh();
  thumbs();
});
$("model").addEventListener("change", () => {
  use(state.models.find(({ name }) => name === $("model").value));
  const again = state.item && state.item.blob;
  if (again && !state.camera) add([new File([again], state.item.name, { type: again.type })]);
});
$("token-form").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  start();
});

let dragged = 0;
const dragging = on => { $("stage").classList.toggle("drag", on); $("hint").hidden = !on; };
addEventListener("dragenter", event => { event.preventDefault(); dragged++; dragging(true); });
addEventListener("dragleave", () => { if (--dragged <= 0) { dragged = 0; dragging(false); } });
addEventListener("dragover", event => event.preventDefault());
addEventListener("drop", event => {
  event.preventDefault();
  dragged = 0;
  dragging(false);
  if (event.dataTransfer.files.length) add(event.dataTransfer.files);
});
addEventListener("paste", event => {
  const files = [...event.clipboardData.files];
  if (files.length) add(files);
});

const keys = {
  "+": actions["zoom-in"], "=": actions["zoom-in"], "-": actions["zoom-out"], 0: actions.fit, o: actions.choose,
  PageUp: () => step(-1), PageDown: () => step(1), c: () => $("copy").click(), s: () => $("save-image").click(),
};
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const pan = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
  if (pan && event.target === $("canvas") && view.image) view.pan(...pan);
  else if (keys[event.key]) keys[event.key]();
  else return;
  event.preventDefault();
});

$("stage").classList.add("blank");
start();
