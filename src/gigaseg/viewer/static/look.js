// How each instance looks: its colour by a column, and whether the filters let it be seen.

// turbo without its dark ends, which stained nuclei and dark fields would swallow
const RAMP = [[70, 107, 227], [40, 187, 236], [49, 242, 153], [162, 252, 60], [237, 208, 58], [251, 128, 34], [225, 70, 15]];
const MISSING = [128, 128, 128]; // of instances without a value
export const JOINED = "#ff4dff";

export function ramp(share) {
  const at = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2);
  return RAMP[low].map((value, i) => Math.round(value + (RAMP[low + 1][i] - value) * (at - low)));
}

export const rampCss = `linear-gradient(to right, ${RAMP.map((color) => `rgb(${color})`).join(",")})`;

export function categoryColor(column, place) {
  return column.colors[place] ?? `rgb(${MISSING})`;
}

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

export class Look {
  constructor(pack) {
    this.pack = pack;
    this.count = pack.meta.instances;
    this.colors = new Uint8Array(4 * this.count); // red, green, blue; 255 where the instance is seen, else 0
    this.shown = this.count;
    this.colourBy = "class";
    this.joined = false; // instances that were joined of several tiles' are marked
    this.hidden = new Map(); // column -> set of places of its categories that are not seen
    this.filters = new Map(); // column -> [low, high], both included
  }

  // Works the colours out anew; a later call that starts before this one ends makes it give up.
  async update() {
    const turn = (this._turn = {});
    const names = new Set([this.colourBy, ...this.filters.keys(), ...this.hidden.keys()]);
    if (this.joined) names.add("members");
    const values = new Map();
    for (const name of names) values.set(name, await this.pack.values(name));
    if (this._turn !== turn) return false;
    this._see(values);
    this._colour(values);
    return true;
  }

  _see(values) {
    const colors = this.colors;
    for (let i = 0, at = 3; i < this.count; i++, at += 4) colors[at] = 255;
    for (const [name, [low, high]] of this.filters) {
      const column = values.get(name);
      for (let i = 0; i < this.count; i++) if (!(column[i] >= low && column[i] <= high)) colors[4 * i + 3] = 0;
    }
    for (const [name, places] of this.hidden) {
      const column = values.get(name);
      if (places.size) for (let i = 0; i < this.count; i++) if (places.has(column[i])) colors[4 * i + 3] = 0;
    }
    let shown = 0;
    for (let at = 3; at < colors.length; at += 4) if (colors[at]) shown++;
    this.shown = shown;
  }

  _colour(values) {
    const column = this.pack.columns.get(this.colourBy);
    const own = values.get(this.colourBy);
    const table = column.categories
      ? column.colors.map(rgb)
      : Array.from({ length: 256 }, (_, i) => ramp(i / 255));
    const scale = 255 / (column.high - column.low || 1);
    const members = this.joined ? values.get("members") : null;
    const joined = rgb(JOINED);
    for (let i = 0, at = 0; i < this.count; i++, at += 4) {
      let place = own[i];
      if (!column.categories) place = Math.min(Math.max(Math.round((place - column.low) * scale), 0), 255);
      const color = members && members[i] > 1 ? joined : (table[place] ?? MISSING);
      this.colors[at] = color[0];
      this.colors[at + 1] = color[1];
      this.colors[at + 2] = color[2];
    }
  }

  sees(index) {
    return this.colors[4 * index + 3] !== 0;
  }
}
