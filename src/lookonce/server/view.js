// The image with its boxes on a canvas: zoom, pan, and which box is under the pointer. Boxes are xyxy in image pixels.

const LINE = 2.2, MOST_ZOOM = 32; // CSS pixels; canvas pixels for each image pixel

export function contrasting(colour) { // black or white, by the luma of ITU-R BT.601
  const [r, g, b] = [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * r + 0.587 * g + 0.114 * b > 110 ? "#000" : "#fff";
}

// Draws boxes and labels. line, letters: in units of the context; at: maps a box to these units.
export function paint(context, boxes, { line, letters, at, chosen = null, width }) {
  const faded = box => chosen && box !== chosen ? 0.35 : 1;
  for (const box of [...boxes].reverse()) { // the best is on top
    const [x1, y1, x2, y2] = at(box.box);
    const on = box === chosen;
    context.globalAlpha = faded(box);
    context.lineWidth = line + 2 * (on ? 1.6 : 1);
    context.strokeStyle = contrasting(box.colour) === "#000" ? "#000a" : "#fffa";
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    context.lineWidth = line + (on ? 1.2 : 0);
    context.strokeStyle = box.colour;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  context.font = `600 ${letters}px system-ui, sans-serif`;
  context.textBaseline = "alphabetic";
  const taken = [];
  for (const box of chosen ? [chosen, ...boxes.filter(each => each !== chosen)] : boxes) { // the best chooses its place first
    const [x1, y1, x2, y2] = at(box.box), text = `${box.label} ${box.score.toFixed(2)}`;
    const high = letters * 1.45, wide = context.measureText(text).width + letters * 0.8;
    const inside = x => Math.max(0, Math.min(x, width - wide));
    const lefts = [inside(x1 - line / 2), inside(x2 + line / 2 - wide)], tops = [y1 - high, Math.max(0, y1), y2];
    const places = tops.flatMap(top => lefts.map(left => [left, top])).filter(([, top]) => top >= 0);
    const place = places.find(([left, top]) => !taken.some(([l, t, w]) => left < l + w && l < left + wide && Math.abs(top - t) < high));
    if (!place || x2 < 0 || y2 < 0) continue; // no room: the table has it
    taken.push([...place, wide]);
    context.globalAlpha = faded(box);
    context.fillStyle = box.colour;
    context.fillRect(...place, wide, high);
    context.fillStyle = contrasting(box.colour);
    context.fillText(text, place[0] + letters * 0.4, place[1] + letters * 1.06);
  }
  context.globalAlpha = 1;
}

export class View {
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.changed = changed; // called with the box under the pointer, and whether it was clicked
    this.image = null;
    this.boxes = [];
    this.chosen = null;
    this.pointers = new Map();
    new ResizeObserver(() => this.resized()).observe(canvas);
    canvas.addEventListener("wheel", event => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", event => this.down(event));
    canvas.addEventListener("pointermove", event => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, event => this.up(event));
    canvas.addEventListener("pointerleave", () => this.changed(null, false));
    canvas.addEventListener("dblclick", event => this.isFitted() ? this.zoom(3, this.place(event)) : this.fit());
  }

  show(image, keep = false) { // an ImageBitmap or canvas; keep: the zoom of the image before
    const same = keep && this.image && this.image.width === image.width && this.image.height === image.height;
    this.image = image;
    this.boxes = [];
    this.chosen = null;
    if (same) this.draw();
    else this.fit();
  }

  resized() {
    const { clientWidth, clientHeight } = this.canvas, ratio = window.devicePixelRatio || 1;
    if (!clientWidth) return;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    if (this.image) this.fit();
  }

  fitted() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const scale = Math.min(w / this.image.width, h / this.image.height, 8);
    return { scale, x: (w - this.image.width * scale) / 2, y: (h - this.image.height * scale) / 2 };
  }

  fit() {
    if (!this.image) return;
    Object.assign(this, this.fitted());
    this.draw();
  }

  isFitted() { return Math.abs(this.scale / this.fitted().scale - 1) < 1e-6; }

  zoom(factor, [px, py] = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2]) {
    if (!this.image) return;
    const least = this.fitted().scale, scale = Math.min(Math.max(this.scale * factor, least), Math.max(MOST_ZOOM, least));
    this.x = px - (px - this.x) * scale / this.scale;
    this.y = py - (py - this.y) * scale / this.scale;
    this.scale = scale;
    this.inside();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.inside();
  }

  inside() { // keeps a part of the image in sight
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const wide = this.image.width * this.scale, high = this.image.height * this.scale;
    this.x = wide <= w ? (w - wide) / 2 : Math.min(0, Math.max(w - wide, this.x));
    this.y = high <= h ? (h - high) / 2 : Math.min(0, Math.max(h - high, this.y));
    this.draw();
  }

  draw() {
    if (!this.image || this.waits) return;
    this.waits = requestAnimationFrame(() => {
      this.waits = 0;
      const ratio = window.devicePixelRatio || 1, { context, canvas } = this;
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.imageSmoothingEnabled = this.scale < 3;
      context.imageSmoothingQuality = "high";
      context.fillStyle = "#fff"; // where an image is transparent, as the detector sees it
      context.fillRect(this.x, this.y, this.image.width * this.scale, this.image.height * this.scale);
      context.drawImage(this.image, this.x, this.y, this.image.width * this.scale, this.image.height * this.scale);
      const at = box => box.map((v, n) => v * this.scale + (n % 2 ? this.y : this.x));
      paint(context, this.boxes, { line: LINE, letters: 13, at, chosen: this.chosen, width: canvas.clientWidth });
    });
  }

  place(event) { return [event.offsetX, event.offsetY]; }

  under([px, py]) { // the smallest box there
    const x = (px - this.x) / this.scale, y = (py - this.y) / this.scale;
    const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
    const hit = this.boxes.filter(({ box: [x1, y1, x2, y2] }) => x >= x1 && x <= x2 && y >= y1 && y <= y2);
    return hit.sort((a, b) => area(a) - area(b))[0] || null;
  }

  wheel(event) {
    if (!this.image) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), this.place(event));
  }

  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
    this.moved = 0;
  }

  move(event) {
    const now = this.place(event), before = this.pointers.get(event.pointerId);
    if (!this.image) return;
    if (!before) return this.changed(this.under(now), false);
    const other = [...this.pointers].find(([id]) => id !== event.pointerId);
    this.pointers.set(event.pointerId, now);
    if (other) { // two fingers
      const spread = ([x, y]) => Math.hypot(x - other[1][0], y - other[1][1]);
      this.zoom(spread(now) / (spread(before) || 1), [(now[0] + other[1][0]) / 2, (now[1] + other[1][1]) / 2]);
    }
    const share = other ? 0.5 : 1;
    this.moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    this.pan((now[0] - before[0]) * share, (now[1] - before[1]) * share);
  }

  up(event) {
    if (this.pointers.delete(event.pointerId) && event.type === "pointerup" && this.moved < 5 && this.image) {
      this.changed(this.under(this.place(event)), true);
    }
  }
}
