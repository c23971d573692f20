// The panel beside the picture: colour, filters, layers, the values of an instance.
import { COLORS } from "./drawing.js";
import { JOINED, categoryColor, rampCss } from "./look.js";

const $ = (id) => document.getElementById(id);
const MANY = 8; // categories from which one tick is for all of them
export const LAYERS = [
  ["instances", "Instances", null],
  ["density", "Density", null],
  ["joined", "Joined across tiles", JOINED],
  ["grid", "Tiles", COLORS.grid],
  ["seams", "Seams (shared by tiles)", COLORS.seams],
  ["regions", "Regions", COLORS.regions],
  ["prompts", "Prompts", COLORS.prompts],
];

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function text(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1e6 || (size < 1e-4 && size > 0)) return value.toExponential(digits - 1);
  return value.toLocaleString("en", { maximumSignificantDigits: digits });
}

function option(column) {
  return element("option", { value: column.name, textContent: column.title });
}

const isNumber = (column) => !column.categories;

export class Panel {
  // `changed(what)` is called after the look or the layers have been set.
  constructor(pack, look, layers, densityUnit, changed) {
    Object.assign(this, { pack, look, layers, densityUnit, changed });
    const columns = pack.meta.columns;
    $("colour-by").replaceChildren(...columns.map(option));
    $("colour-by").onchange = () => {
      look.colourBy = $("colour-by").value;
      this.show();
      changed("look");
    };
    const first = element("option", { value: "", textContent: "Add a filter …" });
    $("add-filter").replaceChildren(first, ...columns.filter(isNumber).map(option));
    $("add-filter").onchange = () => {
      const { name, min, max } = pack.columns.get($("add-filter").value);
      $("add-filter").value = "";
      if (!look.filters.has(name)) look.filters.set(name, [min, max]);
      this.show();
      changed("look");
    };
  }

  show() {
    $("colour-by").value = this.look.colourBy;
    this._legend();
    this._layers();
    $("filters").replaceChildren(...[...this.look.filters.keys()].map((name) => this._filter(name)));
  }

  count() {
    const [shown, all] = [this.look.shown, this.pack.meta.instances];
    $("shown-count").textContent = shown === all ? `${text(all)} instances` : `${text(shown)} of ${text(all)} instances`;
    $("shown-count").dataset.shown = shown;
  }

  _legend() {
    const column = this.pack.columns.get(this.look.colourBy);
    if (isNumber(column)) {
      if (column.missing === this.pack.meta.instances) {
        $("legend").replaceChildren(this.pack.meta.instances ? "no values" : "");
        return;
      }
      const ends = element("div", { className: "ends" }, element("span", {}, text(column.low)), element("span", {}, text(column.high)));
      $("legend").replaceChildren(element("div", { className: "ramp", style: `background:${rampCss}` }), ends);
      return;
    }
    const hidden = this.look.hidden.get(column.name) ?? new Set();
    const without = this.pack.meta.instances - column.counts.reduce((sum, count) => sum + count, 0);
    const names = without ? [...column.categories, "none"] : column.categories;
    const all = names.length > MANY ? [this._all(column, names, hidden)] : [];
    const rows = names.map((name, place) => {
      const box = element("input", { type: "checkbox", checked: !hidden.has(place) });
      box.onchange = () => {
        if (box.checked) hidden.delete(place);
        else hidden.add(place);
        this._hide(column, hidden);
      };
      const swatch = element("span", { className: "swatch", style: `background:${categoryColor(column, place)}` });
      return element("label", {}, box, swatch, name, element("span", { className: "many" }, text(column.counts[place] ?? without)));
    });
    $("legend").replaceChildren(...all, ...rows);
  }

  _hide(column, places) {
    if (places.size) this.look.hidden.set(column.name, places);
    else this.look.hidden.delete(column.name);
    this.changed("look");
  }

  // Shows all of many categories, or none.
  _all(column, names, hidden) {
    const box = element("input", { type: "checkbox", checked: hidden.size === 0, indeterminate: hidden.size > 0 });
    box.onchange = () => {
      this._hide(column, new Set(box.checked ? [] : names.keys()));
      this._legend();
    };
    return element("label", {}, box, "all");
  }

  _layers() {
    const has = { regions: this.pack.meta.regions.length, prompts: this.pack.meta.prompts };
    const rows = LAYERS.filter(([name]) => has[name] !== 0).map(([name, title, color]) => {
      const box = element("input", { type: "checkbox", checked: this.layers[name], id: `layer-${name}` });
      box.onchange = () => {
        this.layers[name] = box.checked;
        this.changed(name);
      };
      const more = color ? [element("span", { className: "swatch", style: `background:${color}` })] : [];
      const many = has[name] ? text(has[name]) : name === "density" ? (this.densityTop ?? "") : "";
      return element("label", {}, box, ...more, title, element("span", { className: "many" }, many));
    });
    $("layers").replaceChildren(...rows);
  }

  // Says what the brightest colour of the density stands for.
  densityIs(top) {
    this.densityTop = top === null ? "" : `up to ${text(top, 3)} per ${this.densityUnit}`;
    this._layers();
  }

  _filter(name) {
    const column = this.pack.columns.get(name);
    const [low, high] = this.look.filters.get(name);
    const remove = element("button", { textContent: "×", title: "Remove this filter" });
    remove.onclick = () => {
      this.look.filters.delete(name);
      this.show();
      this.changed("look");
    };
    const lacking = element("span", { className: "many" }, column.missing ? `${text(column.missing)} without a value` : "");
    const canvas = element("canvas", { width: 292, height: 40 });
    const inputs = [low, high].map((value, i) =>
      element("input", { type: "number", step: "any", value, ariaLabel: `${i ? "at most" : "at least"} ${column.title}` }));
    const set = (range) => {
      this.look.filters.set(name, range);
      inputs.forEach((input, i) => (input.value = range[i]));
      this._histogram(canvas, column, range);
      this.changed("look");
    };
    inputs.forEach((input) => {
      input.onchange = () => set(inputs.map((one, i) => (one.value === "" ? [column.min, column.max][i] : Number(one.value))));
    });
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      const at = (e) => column.min + (column.max - column.min) * (e.offsetX / canvas.clientWidth);
      const range = [...this.look.filters.get(name)];
      const side = Math.abs(at(event) - range[0]) <= Math.abs(at(event) - range[1]) ? 0 : 1;
      canvas.onpointermove = (e) => {
        // the ends themselves: a rounded one would leave out the last instance
        range[side] = at(e) <= column.min ? column.min : at(e) >= column.max ? column.max : Number(at(e).toPrecision(4));
        if (range[0] <= range[1]) set([...range]);
      };
      canvas.onpointermove(event);
      canvas.onpointerup = () => (canvas.onpointermove = null);
    };
    this._histogram(canvas, column, [low, high]);
    return element("div", { className: "filter", id: `filter-${name}` },
      element("div", { className: "head" }, column.title, lacking, remove), canvas, element("div", { className: "range" }, ...inputs));
  }

  async _histogram(canvas, column, [low, high]) {
    const values = await this.pack.values(column.name);
    const bins = (column.bins ??= histogram(values, column.min, column.max, 73));
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    const top = Math.max(...bins);
    bins.forEach((count, i) => {
      const middle = column.min + ((i + 0.5) / bins.length) * (column.max - column.min);
      context.fillStyle = middle >= low && middle <= high ? "#6cb6ff" : "#46505f";
      const height = count ? Math.max(1, 40 * Math.sqrt(count / top)) : 0;
      context.fillRect(i * 4, 40 - height, 3, height);
    });
  }

  // The values of an instance, [column, value] as Pack.row gives them; none: an empty table.
  values(index, row) {
    $("hint").hidden = row !== null;
    if (row === null) {
      $("values").tBodies[0].replaceChildren();
      return;
    }
    const lines = row.map(([column, value]) => {
      const shown = column.categories ? (column.categories[value] ?? "–") : text(value, 5);
      const cell = element("td", { textContent: shown, title: String(column.categories ? shown : value) });
      cell.dataset.column = column.name;
      cell.dataset.value = column.categories ? shown : value;
      return element("tr", {}, element("td", { textContent: column.title }), cell);
    });
    const head = element("tr", {}, element("td", { textContent: "Number" }), element("td", { textContent: index + 1 }));
    head.lastChild.dataset.column = "instance";
    head.lastChild.dataset.value = index + 1;
    $("values").tBodies[0].replaceChildren(head, ...lines);
  }
}

function histogram(values, min, max, n) {
  const bins = new Array(n).fill(0);
  const scale = n / (max - min || 1);
  for (let i = 0; i < values.length; i++) {
    const at = Math.min(Math.floor((values[i] - min) * scale), n - 1);
    if (at >= 0) bins[at]++;
  }
  return bins;
}
