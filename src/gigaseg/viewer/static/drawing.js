// What lies over the instances: density, tiles and their seams, regions, prompts, the chosen instance. Drawn on a 2-D canvas.
import { path } from "./data.js";
import { ramp } from "./look.js";

export const COLORS = { grid: "#4c8dff", seams: "#ff9100", regions: "#ffd600", prompts: "#ff5252", chosen: "#ffffff" };
const LEAST_TILE = 6; // px on the screen below which the grid would only be a mush
const MOST_PROMPTS = 20000; // in view
const CELLS = 320; // of the density along the longer side

export class Drawing {
  constructor(canvas, about, pack) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.about = about;
    this.pack = pack;
    this.regions = (pack?.meta.regions ?? []).map(({ name, rings }) => ({ name, shape: polygon(rings), at: rings[0]?.slice(0, 2) }));
    this.density = null;
    this.prompts = null;
  }

  draw(view, layers, chosen) {
    const ratio = window.devicePixelRatio || 1;
    const { canvas, context } = this;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.pack) return;
    // from level-0 px, about the corner of the view so that no large numbers are rounded
    const scale = view.scale * ratio;
    context.setTransform(scale, 0, 0, scale, -view.x * scale, -view.y * scale);
    const px = 1 / view.scale; // a CSS px
    if (layers.density && this.density) {
      context.imageSmoothingEnabled = true;
      context.drawImage(this.density.image, 0, 0, this.density.width, this.density.height);
    }
    if (layers.seams || layers.grid) this._grid(context, view, layers, px);
    if (layers.regions) this._regions(context, px);
    if (layers.prompts && this.prompts) this._prompts(context, view, px);
    for (const [{ tile, i }, line] of chosen) {
      context.strokeStyle = COLORS.chosen;
      context.fillStyle = "#ffffff2e";
      context.lineWidth = line * px;
      const shape = path(tile, i);
      context.fill(shape, "evenodd");
      context.stroke(shape);
    }
  }

  _grid(context, view, layers, px) {
    const { tile, overlap, scale, kept } = this.pack.meta.grid;
    const [sx, sy] = scale;
    const stride = tile - overlap;
    if (stride * sx < LEAST_TILE * px) return;
    const { width, height } = this.about;
    const within = (low, length, step, n) => [
      Math.max(0, Math.floor((low - tile * step) / (stride * step))),
      Math.min(n - 1, Math.floor((low + length) / (stride * step))),
    ];
    const [r0, r1] = within(view.y, view.height, sy, kept.length);
    const [c0, c1] = within(view.x, view.width, sx, kept[0].length);
    context.lineWidth = px;
    const shared = new Path2D();
    for (let r = r0; r <= r1; r++) {
      for (let c = c0; c <= c1; c++) {
        if (kept[r][c] !== "1") continue;
        const [x, y] = [c * stride * sx, r * stride * sy];
        const [right, lower] = [Math.min(x + tile * sx, width), Math.min(y + tile * sy, height)];
        if (layers.seams) {
          if (kept[r][c + 1] === "1") shared.rect(x + stride * sx, y, right - x - stride * sx, lower - y);
          if (kept[r + 1]?.[c] === "1") shared.rect(x, y + stride * sy, right - x, lower - y - stride * sy);
        }
        if (layers.grid) {
          context.strokeStyle = COLORS.grid;
          context.strokeRect(x, y, right - x, lower - y);
        }
      }
    }
    // filled at once: where four tiles meet it is no darker
    context.fillStyle = `${COLORS.seams}38`;
    context.fill(shared);
  }

  _regions(context, px) {
    context.strokeStyle = COLORS.regions;
    context.fillStyle = COLORS.regions;
    context.lineWidth = 2 * px;
    context.font = `600 ${13 * px}px system-ui`;
    for (const { name, shape, at } of this.regions) {
      context.stroke(shape);
      if (at) context.fillText(name, at[0] + 4 * px, at[1] - 5 * px);
    }
  }

  _prompts(context, view, px) {
    const { xmin, ymin, xmax, ymax, label } = this.prompts;
    const [right, lower] = [view.x + view.width, view.y + view.height];
    context.lineWidth = 1.5 * px;
    let drawn = 0;
    for (let i = 0; i < xmin.length && drawn < MOST_PROMPTS; i++) {
      if (xmax[i] < view.x || xmin[i] > right || ymax[i] < view.y || ymin[i] > lower) continue;
      drawn++;
      context.strokeStyle = label[i] === 0 ? "#40c4ff" : COLORS.prompts;
      context.beginPath();
      if (xmin[i] === xmax[i] && ymin[i] === ymax[i]) {
        const arm = 4 * px;
        context.moveTo(xmin[i] - arm, ymin[i]);
        context.lineTo(xmin[i] + arm, ymin[i]);
        context.moveTo(xmin[i], ymin[i] - arm);
        context.lineTo(xmin[i], ymin[i] + arm);
      } else {
        context.rect(xmin[i], ymin[i], xmax[i] - xmin[i], ymax[i] - ymin[i]);
      }
      context.stroke();
    }
  }
}

// Instances per unit of area that are seen, as a picture of the whole slide; `top` is what its last colour stands for, null
// where none is seen.
export function density(about, centres, look, cellArea) {
  const cell = Math.max(about.width, about.height) / CELLS;
  const [columns, rows] = [Math.ceil(about.width / cell), Math.ceil(about.height / cell)];
  let counts = new Float32Array(columns * rows);
  for (let i = 0; i < centres.x.length; i++) {
    if (!look.sees(i)) continue;
    const c = Math.min(Math.max(Math.floor(centres.x[i] / cell), 0), columns - 1);
    const r = Math.min(Math.max(Math.floor(centres.y[i] / cell), 0), rows - 1);
    counts[r * columns + c]++;
  }
  counts = blur(blur(counts, columns, rows), columns, rows);
  const filled = counts.filter((value) => value > 0).sort();
  const top = filled.length ? filled[Math.floor(0.99 * (filled.length - 1))] : 1;
  const image = new OffscreenCanvas(columns, rows);
  const pixels = new ImageData(columns, rows);
  counts.forEach((value, i) => {
    const share = Math.min(value / top, 1);
    pixels.data.set([...ramp(share), value > 0 ? 60 + 150 * share : 0], 4 * i);
  });
  image.getContext("2d").putImageData(pixels, 0, 0);
  return { image, width: columns * cell, height: rows * cell, top: filled.length ? top / (cell * cell * cellArea) : null };
}

// The mean over 3 × 3 cells.
function blur(values, columns, rows) {
  const result = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      let sum = 0;
      for (let y = Math.max(r - 1, 0); y <= Math.min(r + 1, rows - 1); y++) {
        for (let x = Math.max(c - 1, 0); x <= Math.min(c + 1, columns - 1); x++) sum += values[y * columns + x];
      }
      result[r * columns + c] = sum / 9;
    }
  }
  return result;
}

function polygon(rings) {
  const shape = new Path2D();
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 2) shape[i ? "lineTo" : "moveTo"](ring[i], ring[i + 1]);
    shape.closePath();
  }
  return shape;
}
