// What a user takes away: JSON, YOLO text and Pascal VOC as `lookonce detect` writes them, and the image with its boxes.
import { paint } from "/view.js";

const entry = ({ label, class_id, score, box }) =>
  ({ label, class_id, score: Number(score.toFixed(6)), box: box.map(v => Number(v.toFixed(2))) });

export function toJSON({ name, width, height }, boxes) {
  return JSON.stringify({ file: name, width, height, detections: boxes.map(entry) }, null, 1);
}

export function toYOLO({ width, height }, boxes) { // class cx cy w h score, as fractions of the image
  return boxes.map(({ class_id, score, box: [x1, y1, x2, y2] }) => [
    class_id, ...[(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, score].map(v => v.toFixed(6)),
  ].join(" ") + "\n").join("");
}

const escaped = text => text.replace(/[\u0000-\u001f\u007f]/g, "\ufffd").replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

export function toVOC({ name, width, height }, boxes) { // counts pixels from 1
  const objects = boxes.map(({ label, box: [x1, y1, x2, y2] }) => {
    const corners = Object.entries({ xmin: x1 + 1, ymin: y1 + 1, xmax: x2, ymax: y2 });
    const inner = corners.map(([tag, v]) => `<${tag}>${Number(v.toPrecision(8))}</${tag}>`).join("");
    return `\t<object>\n\t\t<name>${escaped(label)}</name>\n\t\t<difficult>0</difficult>\n\t\t<bndbox>${inner}</bndbox>\n\t</object>\n`;
  });
  return `<annotation>\n\t<folder></folder>\n\t<filename>${escaped(name)}</filename>\n`
    + `\t<size><width>${width}</width><height>${height}</height><depth>3</depth></size>\n${objects.join("")}</annotation>\n`;
}

export function toImage({ image }, boxes) { // a JPEG of the image's own size
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d"), short = Math.min(image.width, image.height);
  context.fillStyle = "#fff"; // where an image is transparent
  context.fillRect(0, 0, image.width, image.height);
  context.drawImage(image, 0, 0);
  paint(context, boxes, { line: Math.max(1, short / 200), letters: Math.max(10, short / 36), at: box => box, width: image.width });
  return new Promise(done => canvas.toBlob(done, "image/jpeg", 0.92));
}

export function download(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content]));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // over plain http, a browser has no clipboard but that of a selection
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("The browser does not let this page copy.");
  }
}
