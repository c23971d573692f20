// The page: one slide, or the list of all of them.
import * as address from "./address.js";
import { Pack, contains, json } from "./data.js";
import { Drawing, density } from "./drawing.js";
import { Look } from "./look.js";
import { Marks } from "./marks.js";
import { LAYERS, Panel, element, text } from "./panel.js";

const $ = (id) => document.getElementById(id);
const UNITS = { um: ["µm", "mm", 1000], m: ["m", "km", 1000], px: ["px", "px", 1] };
const AREAS = { um: ["mm²", 1e6], m: ["km²", 1e6], px: ["megapixel", 1e6] };
const DEFAULT_LAYERS = ["instances", "regions"];
const REST = 200; // ms
const MOST_ZOOM = 16; // CSS px per level-0 px

function notice(message) {
  $("notice").hidden = !message;
  $("notice").textContent = message;
}

async function list() {
  const { results, slides } = await json("data/slides.json");
  const wanted = new URLSearchParams(location.search).get("slide");
  if (wanted !== null || slides.length === 1) return wanted ?? slides[0].slide;
  document.title = `${results} – gigaseg`;
  for (const part of [$("stage"), $("panel")]) part.hidden = true;
  const items = slides.map(({ slide, state, instances, reason, overview }) => {
    const picture = overview ? [element("img", { src: `data/${slide}/overview.png`, alt: "", loading: "lazy" })] : [];
    const told = state === "ok" ? `${text(instances)} instances` : state === "failed" ? `failed at ${reason}` : state;
    const words = element("div", { className: "text" }, element("strong", {}, slide), element("div", { className: "dim" }, told));
    if (state === "failed" || state === "not done") return element("li", {}, ...picture, words);
    return element("li", {}, element("a", { href: `?slide=${encodeURIComponent(slide)}` }, ...picture, words));
  });
  $("slides").replaceChildren(element("h1", {}, `${slides.length} slides of ${results}`), element("ul", {}, ...items));
  $("slides").hidden = false;
  return null;
}

class Page {
  constructor(slide, about) {
    this.base = `data/${encodeURIComponent(slide)}`;
    this.about = about;
    this.layers = Object.fromEntries(DEFAULT_LAYERS.map((name) => [name, true]));
    this.pinned = null; // row of the instance that was clicked
    this.under = null; // row of the one under the cursor
    this.wanted = address.read(location.hash);
    $("slide-name").textContent = slide;
    document.title = `${slide} – gigaseg`;
    this.drawing = new Drawing($("drawing"), about, null);
    this._picture();
  }

  _picture() {
    const { width, height, tile, max_level: maxLevel, version, no_picture: missing } = this.about;
    notice(this._missing());
    this.osd = OpenSeadragon({
      element: $("picture"),
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorId: "navigator",
      animationTime: 0.4,
      maxZoomPixelRatio: MOST_ZOOM,
      minZoomImageRatio: 0.7,
      visibilityRatio: 0.2,
      gestureSettingsMouse: { clickToZoom: false },
      imageLoaderLimit: 6,
      tileSources: {
        width, height, tileSize: tile, tileOverlap: 0, minLevel: Math.min(8, maxLevel), maxLevel,
        getTileUrl: (level, x, y) => `${this.base}/picture/${level}/${x}_${y}.jpg?v=${encodeURIComponent(version)}`,
        ...(missing ? { tileExists: () => false } : {}),
      },
    });
    this.osd.addHandler("open", () => this._opened());
    this.osd.addHandler("update-viewport", () => this.redraw());
    this.osd.addHandler("animation-finish", () => this.remember());
    this.osd.addHandler("resize", () => this.redraw());
    new OpenSeadragon.MouseTracker({
      element: $("picture"),
      moveHandler: (event) => this._moved(event.position),
      leaveHandler: () => this._moved(null),
    });
    this.osd.addHandler("canvas-click", (event) => event.quick && this.pin(this._at(event.position)));
    $("zoom-in").onclick = () => this.osd.viewport.zoomBy(1.6);
    $("zoom-out").onclick = () => this.osd.viewport.zoomBy(1 / 1.6);
    $("zoom-all").onclick = () => this.osd.viewport.goHome();
    window.addEventListener("hashchange", () => location.hash !== this._written && this.apply(address.read(location.hash)));
  }

  _missing() {
    return this.about.no_picture ? `No picture: ${this.about.no_picture}` : "";
  }

  _opened() {
    this.opened = true;
    if (this.wanted.at) this.goTo(this.wanted.at, true);
    this.redraw();
  }

  // What is seen: corner, width and height in level-0 px, and CSS px per level-0 px.
  view() {
    const item = this.osd.world.getItemAt(0);
    const { x: width, y: height } = this.osd.viewport.getContainerSize();
    const corner = item.viewerElementToImageCoordinates(new OpenSeadragon.Point(0, 0));
    const end = item.viewerElementToImageCoordinates(new OpenSeadragon.Point(width, height));
    return { x: corner.x, y: corner.y, width: end.x - corner.x, height: end.y - corner.y, scale: width / (end.x - corner.x) };
  }

  goTo({ x, y, scale }, immediately = false) {
    const { x: width, y: height } = this.osd.viewport.getContainerSize();
    const item = this.osd.world.getItemAt(0);
    const size = [width / scale, height / scale];
    const box = new OpenSeadragon.Rect(x - size[0] / 2, y - size[1] / 2, ...size);
    this.osd.viewport.fitBounds(item.imageToViewportRectangle(box), immediately);
    if (immediately) this.osd.viewport.applyConstraints(true);
  }

  async load() {
    const told = (share) => notice(`Packing what was found for this viewer, once: ${Math.round(100 * share)} %`);
    this.pack = await Pack.open(`${this.base}/pack`, told);
    notice(this._missing());
    this.look = new Look(this.pack);
    this.centres = await this.pack.centres();
    this.marks = new Marks($("marks"), this.pack, this.centres, () => this.redraw());
    this.drawing = new Drawing($("drawing"), this.about, this.pack);
    const [unit] = AREAS[this.about.unit];
    this.panel = new Panel(this.pack, this.look, this.layers, unit, (what) => this.change(what));
    $("go-to").max = this.pack.meta.instances;
    $("go-to").onchange = () => this.instance(Number($("go-to").value) - 1);
    await this.apply(this.wanted, true);
    this.ready = true;
  }

  // Takes over what an address says.
  async apply({ at, colour, filters, hidden, layers, instance }, first = false) {
    if (this.look) {
      this.look.colourBy = this.pack.columns.has(colour) ? colour : "class";
      this.look.filters = new Map(filters.filter(([name]) => this.pack.columns.has(name)));
      this.look.hidden = new Map(
        hidden.filter(([name]) => this.pack.columns.get(name)?.categories).map(([name, places]) => [name, new Set(places)]));
      for (const name of Object.keys(this.layers)) this.layers[name] = false;
      for (const name of layers ?? DEFAULT_LAYERS) if (LAYERS.some(([known]) => known === name)) this.layers[name] = true;
      this.panel.show();
      this.pin(Number.isInteger(instance) && instance > 0 && instance <= this.pack.meta.instances ? instance - 1 : null);
      if (this.layers.prompts) await this.change("prompts");
      await this.change("look");
    }
    if (at && !first) this.goTo(at);
  }

  async change(what) {
    if (!this.marks) return;
    if (what === "prompts" && !this.drawing.prompts && this.pack.meta.prompts) this.drawing.prompts = await this.pack.prompts();
    if (what === "joined") this.look.joined = this.layers.joined;
    if (what === "look" || what === "joined") {
      this.look.joined = Boolean(this.layers.joined);
      if (!(await this.look.update())) return;
      this.marks.paint(this.look.colors);
      this.panel.count();
    }
    if (what === "density" || what === "look") this._density();
    this.redraw();
    this.remember();
  }

  _density() {
    if (!this.layers.density) {
      this.drawing.density = null;
      return;
    }
    const [, perArea] = AREAS[this.about.unit];
    const pixel = (this.about.pixel_size[0] * this.about.pixel_size[1]) / perArea;
    this.drawing.density = density(this.about, this.centres, this.look, pixel);
    this.panel.densityIs(this.drawing.density.top);
  }

  redraw() {
    if (this._asked) return;
    this._asked = true;
    requestAnimationFrame(() => {
      this._asked = false;
      if (!this.opened || !this.osd.world.getItemCount()) return;
      const view = this.view();
      this._scale(view);
      if (!this.marks) return;
      this.marks.draw(view, this.layers.instances);
      const chosen = [[this.under, 2], [this.pinned, 3]].map(([row, line]) => [this._shape(row), line]);
      this.drawing.draw(view, this.layers, chosen.filter(([shape]) => shape));
    });
  }

  _scale(view) {
    const [small, large, factor] = UNITS[this.about.unit];
    const perPx = this.about.pixel_size[0] / view.scale;
    const power = 10 ** Math.floor(Math.log10(160 * perPx));
    const length = [5, 2, 1].map((n) => n * power).find((n) => n <= 160 * perPx);
    $("scale-bar").style.width = `${length / perPx}px`;
    $("scale-text").textContent = length >= factor && factor > 1 ? `${text(length / factor)} ${large}` : `${text(length)} ${small}`;
  }

  // Row of the instance at a place of the page; null for none.
  _at(position) {
    if (!this.marks || !this.layers.instances || !position) return null;
    const view = this.view();
    const [x, y] = [view.x + position.x / view.scale, view.y + position.y / view.scale];
    if (!this.marks.outlined(view)) return this._nearest(x, y, 3 / view.scale);
    for (const i of this.marks.inView({ x, y, width: 0, height: 0 })) {
      const tile = this.marks.tiles.get(i);
      for (let j = 0; tile && j < tile.rows.length; j++) {
        if (contains(tile, j, x, y) && this.look.sees(tile.rows[j])) return tile.rows[j];
      }
    }
    return null;
  }

  _nearest(x, y, within) {
    const { x: xs, y: ys, radius } = this.centres;
    let [best, found] = [Infinity, null];
    for (let i = 0; i < xs.length; i++) {
      const [dx, dy] = [xs[i] - x, ys[i] - y];
      const distance = dx * dx + dy * dy;
      if (distance < best && distance <= Math.max(radius[i], within) ** 2 && this.look.sees(i)) [best, found] = [distance, i];
    }
    return found;
  }

  _shape(row) {
    if (row === null) return null;
    for (const i of this.marks.inView({ x: this.centres.x[row], y: this.centres.y[row], width: 0, height: 0 })) {
      const tile = this.marks.tiles.get(i);
      const at = tile ? tile.rows.indexOf(row) : -1;
      if (at >= 0) return { tile, i: at };
    }
    return null;
  }

  _moved(position) {
    const row = this._at(position);
    $("card").hidden = row === null;
    if (row !== null) Object.assign($("card").style, { left: `${position.x + 14}px`, top: `${position.y + 14}px` });
    if (row === this.under) return;
    this.under = row;
    this._values(row ?? this.pinned);
    this.redraw();
  }

  async _values(row) {
    this._shown = row;
    const values = row === null ? null : await this.pack.row(row);
    if (this._shown !== row) return;
    this.panel.values(row, values);
    if (row === null) return;
    const [column, value] = values.find(([{ name }]) => name === this.look.colourBy);
    const told = column.categories ? column.categories[value] : `${column.title}: ${text(value)}`;
    $("card").textContent = `${row + 1} · ${told}`;
  }

  pin(row) {
    this.pinned = row;
    $("go-to").value = row === null ? "" : row + 1;
    this._values(row);
    this.redraw();
    this.remember();
  }

  // Goes to an instance and pins it.
  instance(row) {
    if (!(row >= 0 && row < this.pack.meta.instances)) return;
    const { x: width, y: height } = this.osd.viewport.getContainerSize();
    const size = Math.max(2 * this.centres.radius[row], this.marks.diameter) * 8;
    const scale = Math.min(Math.min(width, height) / size, MOST_ZOOM);
    this.goTo({ x: this.centres.x[row], y: this.centres.y[row], scale });
    this.pin(row);
  }

  // Writes what is seen into the address, once it rests: browsers refuse many changes in a row.
  remember() {
    clearTimeout(this._remembering);
    if (this.opened && this.ready) this._remembering = setTimeout(() => this._remember(), REST);
  }

  _remember() {
    const view = this.view();
    const on = Object.keys(this.layers).filter((name) => this.layers[name]).sort();
    this._written = address.write({
      at: { x: view.x + view.width / 2, y: view.y + view.height / 2, scale: view.scale },
      colour: this.look.colourBy,
      filters: this.look.filters,
      hidden: this.look.hidden,
      layers: on.join() === [...DEFAULT_LAYERS].sort().join() ? null : on,
      instance: this.pinned === null ? null : this.pinned + 1,
    });
    history.replaceState(null, "", this._written);
  }
}

async function start() {
  const slide = await list();
  if (slide === null) return;
  const about = await json(`data/${encodeURIComponent(slide)}/about.json`);
  window.page = new Page(slide, about);
  await window.page.load();
}

window.addEventListener("unhandledrejection", (event) => notice(event.reason?.message ?? String(event.reason)));
start().catch((error) => notice(error.message));
