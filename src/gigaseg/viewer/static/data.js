// What the server or the folder holds of a slide: files that are fetched once, and unpacked here.

const WAIT_MS = 300;
const CHANGED = "the results have changed: load the page anew";

async function bytes(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(await reason(answer));
  if (answer.status === 202) throw new Error(CHANGED);
  const data = new Uint8Array(await answer.arrayBuffer());
  // some web servers unpack by themselves what ends in .gz
  if (data[0] !== 0x1f || data[1] !== 0x8b) return data.buffer;
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function reason(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).reason ?? text;
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

export async function json(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(await reason(answer));
  return answer.json();
}

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array,
  uint32: Uint32Array, int32: Int32Array,
};

export class Pack {
  // Opens the pack of a slide; `told` gets the share that is done while the server makes it.
  static async open(base, told) {
    for (;;) {
      const answer = await fetch(`${base}/meta.json`);
      if (!answer.ok) throw new Error(await reason(answer));
      const content = await answer.json();
      if (content.preparing === undefined) return new Pack(base, content);
      told(content.preparing);
      await new Promise((go) => setTimeout(go, WAIT_MS));
    }
  }

  constructor(base, meta) {
    this.base = base;
    this.meta = meta;
    this.version = meta.version;
    this.columns = new Map(meta.columns.map((column) => [column.name, column]));
    this._values = new Map();
    this._rows = new Map();
  }

  get(name) {
    return bytes(`${this.base}/${name}?v=${this.version}`);
  }

  // x, y and radius of all instances, level-0 px
  async centres() {
    const all = new Float32Array(await this.get("centres.gz"));
    const n = this.meta.instances;
    return { x: all.subarray(0, n), y: all.subarray(n, 2 * n), radius: all.subarray(2 * n) };
  }

  // All values of a column; of a category its places among meta.columns[].categories.
  values(name) {
    if (!this._values.has(name)) {
      const type = ARRAYS[this.columns.get(name).type];
      this._values.set(name, this.get(`columns/${name}.gz`).then((data) => new type(data)));
    }
    return this._values.get(name);
  }

  // All columns of one instance, as [column, value].
  async row(index) {
    const file = Math.floor(index / this.meta.rows);
    if (!this._rows.has(file)) {
      if (this._rows.size > 64) this._rows.delete(this._rows.keys().next().value);
      this._rows.set(file, this.get(`rows/${file}.gz`).then((data) => new Float64Array(data)));
    }
    const data = await this._rows.get(file);
    const held = data.length / this.meta.columns.length;
    return this.meta.columns.map((column, i) => [column, data[i * held + (index % this.meta.rows)]]);
  }

  // The outlines of a tile, ready to be drawn and searched; steps from `origin`.
  async outlines(column, row) {
    return decode(await this.get(`outlines/${column}_${row}.gz`));
  }

  async prompts() {
    const n = this.meta.prompts;
    const data = await this.get("prompts.gz");
    const side = (i) => new Float32Array(data, 4 * n * i, n);
    return { xmin: side(0), ymin: side(1), xmax: side(2), ymax: side(3), label: new Int8Array(data, 16 * n, n) };
  }
}

function decode(data) {
  const [x0, y0, dx, dy] = new Float64Array(data, 0, 4);
  const [n, m, k] = new Uint32Array(data, 32, 3);
  const rows = new Uint32Array(data, 44, n);
  const rings = new Uint32Array(data, 44 + 4 * n, n);
  const vertices = new Uint32Array(data, 44 + 8 * n, m);
  const xs = new Int16Array(data, 44 + 8 * n + 4 * m, k);
  const ys = new Int16Array(data, 44 + 8 * n + 4 * m + 2 * k, k);
  const segments = new Int16Array(4 * k); // from x, y to x, y; the last of a ring leads to its first
  const owner = new Uint32Array(k); // row of the instance of each segment
  const starts = new Uint32Array(n + 1); // first segment of each instance
  const boxes = new Int16Array(4 * n);
  let ring = 0;
  let at = 0;
  for (let i = 0; i < n; i++) {
    starts[i] = at;
    let [left, top, right, bottom] = [32767, 32767, -32768, -32768];
    for (const end = ring + rings[i]; ring < end; ring++) {
      const first = at;
      let x = 0;
      let y = 0;
      for (const stop = at + vertices[ring]; at < stop; at++) {
        x = ((x + xs[at]) << 16) >> 16;
        y = ((y + ys[at]) << 16) >> 16;
        segments[4 * at] = x;
        segments[4 * at + 1] = y;
        if (at > first) {
          segments[4 * at - 2] = x;
          segments[4 * at - 1] = y;
        }
        owner[at] = rows[i];
        if (x < left) left = x;
        if (x > right) right = x;
        if (y < top) top = y;
        if (y > bottom) bottom = y;
      }
      segments[4 * at - 2] = segments[4 * first];
      segments[4 * at - 1] = segments[4 * first + 1];
    }
    boxes.set([left, top, right, bottom], 4 * i);
  }
  starts[n] = at;
  return { origin: [x0, y0], step: [dx, dy], rows, starts, segments, owner, boxes };
}

// Whether a point, level-0 px, lies in instance i of decoded outlines: even-odd, so holes are outside.
export function contains(tile, i, x, y) {
  const px = (x - tile.origin[0]) / tile.step[0];
  const py = (y - tile.origin[1]) / tile.step[1];
  const [left, top, right, bottom] = tile.boxes.subarray(4 * i, 4 * i + 4);
  if (px < left || px > right || py < top || py > bottom) return false;
  let inside = false;
  const s = tile.segments;
  for (let at = 4 * tile.starts[i]; at < 4 * tile.starts[i + 1]; at += 4) {
    if (s[at + 1] > py !== s[at + 3] > py && px < ((s[at + 2] - s[at]) * (py - s[at + 1])) / (s[at + 3] - s[at + 1]) + s[at]) {
      inside = !inside;
    }
  }
  return inside;
}

// The outline of instance i as a path in level-0 px.
export function path(tile, i) {
  const found = new Path2D();
  const s = tile.segments;
  const at = (j) => [tile.origin[0] + s[j] * tile.step[0], tile.origin[1] + s[j + 1] * tile.step[1]];
  let open = false;
  for (let j = 4 * tile.starts[i]; j < 4 * tile.starts[i + 1]; j += 4) {
    if (!open) found.moveTo(...at(j));
    found.lineTo(...at(j + 2));
    open = j + 4 < 4 * tile.starts[i + 1] && s[j + 2] === s[j + 4] && s[j + 3] === s[j + 5];
  }
  return found;
}
