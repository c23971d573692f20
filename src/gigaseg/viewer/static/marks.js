// The instances on the graphics card: outlines where they are large enough to see, discs of the same area elsewhere.
// A texture holds the colour of every instance, so that another colour or filter uploads 4 bytes an instance and nothing else.

const WIDTH = 4096; // of that texture, and of those that hold outlines
export const MARGIN = 0.25; // of the canvas, beyond each side of what is seen
const SLOW = 24; // ms of drawing beyond which it waits until the view rests, and the last drawing is moved meanwhile
const REST = 120; // ms
export const OUTLINE_FROM = 6; // px on the screen of a median instance from which outlines are drawn
const MOST_OUTLINES = 150000; // instances in view beyond which discs are drawn
const MOST_TILES = 1000; // in view, likewise
const KEPT_TILES = 160; // besides those in view
const AGAIN = 5000; // ms until a tile that did not come is asked for again
const LOADING = 6; // tiles that are fetched at a time

const LOOKUP = `
  uniform sampler2D colors;
  vec4 colorOf(uint row) { return texelFetch(colors, ivec2(row % ${WIDTH}u, row / ${WIDTH}u), 0); }
  uniform vec2 size;
  vec4 place(vec2 px) { return vec4(px.x / size.x * 2.0 - 1.0, 1.0 - px.y / size.y * 2.0, 0.0, 1.0); }
`;
const HEAD = "#version 300 es\nprecision highp float; precision highp int;\n";

// Six corners of two triangles a segment, which is fetched by its number: drawing instances would be slow without a graphics card.
const LINE_VERTEX = `${HEAD}${LOOKUP}
  uniform highp isampler2D segments; uniform highp usampler2D owners;
  uniform vec2 origin, unit; uniform float width;
  out vec3 color; out float across;
  void main() {
    int number = gl_VertexID / 6, corner = gl_VertexID - 6 * number;
    corner = corner > 2 ? corner - 2 : corner;
    ivec2 at0 = ivec2(number % ${WIDTH}, number / ${WIDTH});
    vec4 found = colorOf(texelFetch(owners, at0, 0).r);
    vec4 segment = vec4(texelFetch(segments, at0, 0));
    vec2 a = origin + segment.xy * unit, b = origin + segment.zw * unit;
    vec2 along = b - a;
    float len = max(length(along), 1e-6);
    along /= len;
    float side = float(corner >> 1) * 2.0 - 1.0, end = float(corner & 1);
    float reach = width / 2.0 + 0.5;
    vec2 at = mix(a - along * 0.5, b + along * 0.5, end) + vec2(-along.y, along.x) * side * reach;
    color = found.rgb; across = side * reach;
    gl_Position = found.a == 0.0 ? vec4(2.0, 2.0, 2.0, 1.0) : place(at);
  }`;
const LINE_FRAGMENT = `${HEAD}
  in vec3 color; in float across; uniform float width; out vec4 result;
  void main() {
    float cover = clamp(width / 2.0 + 0.5 - abs(across), 0.0, 1.0);
    result = vec4(color * cover, cover);
  }`;
const DISC_VERTEX = `${HEAD}${LOOKUP}
  in float x, y, radius;
  uniform vec2 offset; uniform float scale, least;
  out vec3 color; out float side;
  void main() {
    vec4 found = colorOf(uint(gl_VertexID));
    color = found.rgb;
    side = max(2.0 * radius * scale, least);
    gl_PointSize = side;
    gl_Position = found.a == 0.0 ? vec4(2.0, 2.0, 2.0, 1.0) : place((vec2(x, y) - offset) * scale);
  }`;
const DISC_FRAGMENT = `${HEAD}
  in vec3 color; in float side; out vec4 result;
  void main() {
    float cover = clamp((0.5 - length(gl_PointCoord - 0.5)) * side + 0.5, 0.0, 1.0) * 0.85;
    if (cover == 0.0) discard;
    result = vec4(color * cover, cover);
  }`;

export class Marks {
  constructor(canvas, pack, centres, changed) {
    this.pack = pack;
    this.centres = centres;
    this.changed = changed; // called when a tile has come
    this.tiles = new Map(); // position in meta.tiles -> decoded outlines, the least recently seen first
    this.failed = new Map();
    this._coming = new Set();
    this._drawn = null; // the view that was drawn last
    this._cost = 0; // ms
    this.diameter = 2 * (median(centres.radius) || 1); // level-0 px
    // the page's address leads back to what was seen
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => location.reload());
    const gl = (this.gl = canvas.getContext("webgl2", { premultipliedAlpha: true, antialias: false }));
    if (!gl) throw new Error("this browser has no WebGL 2, which draws the instances");
    this.lines = program(gl, LINE_VERTEX, LINE_FRAGMENT);
    this.discs = program(gl, DISC_VERTEX, DISC_FRAGMENT);
    this.texture = gl.createTexture();
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this._discArray = vertexArray(gl, this.discs, ["x", "y", "radius"].map((name) => [name, centres[name], 1, gl.FLOAT]));
  }

  // The colours of all instances, as Look.colors.
  paint(colors) {
    const gl = this.gl;
    const rows = Math.max(1, Math.ceil(colors.length / 4 / WIDTH));
    const padded = this._padded?.length === rows * WIDTH * 4 ? this._padded : new Uint8Array(rows * WIDTH * 4);
    this._padded = padded;
    padded.set(colors);
    this._drawn = null;
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, WIDTH, rows, 0, gl.RGBA, gl.UNSIGNED_BYTE, padded);
    for (const name of ["MIN", "MAG"]) gl.texParameteri(gl.TEXTURE_2D, gl[`TEXTURE_${name}_FILTER`], gl.NEAREST);
  }

  // Tiles with something in view, as positions in meta.tiles.
  inView(view) {
    const found = [];
    this.pack.meta.tiles.forEach(([, , , xmin, ymin, xmax, ymax], i) => {
      if (xmin < view.x + view.width && xmax > view.x && ymin < view.y + view.height && ymax > view.y) found.push(i);
    });
    return found;
  }

  // Whether outlines are drawn at this view.
  outlined(view, tiles = this.inView(view)) {
    if (this.diameter * view.scale < OUTLINE_FROM) return false;
    return tiles.length <= MOST_TILES && tiles.reduce((sum, i) => sum + this.pack.meta.tiles[i][2], 0) <= MOST_OUTLINES;
  }

  // Shows what is in view: {x, y, width, height} level-0 px, `scale` CSS px per level-0 px.
  draw(view, visible) {
    if (this._drawn && !this._stale && this._visible === visible && same(view, this._drawn)) return;
    clearTimeout(this._resting);
    if (visible && this._drawn && this._cost > SLOW) {
      this._move(view);
      this._resting = setTimeout(() => this._draw(view, visible), REST);
    } else {
      this._draw(view, visible);
    }
  }

  // Puts the last drawing where it belongs in another view.
  _move(view) {
    const { x, y, scale } = this._drawn;
    const to = (place, corner, length) => (place - corner) * view.scale - length * MARGIN * (view.scale / scale) + length * MARGIN;
    const { width, height } = size(this.gl.canvas);
    const shift = `translate(${to(x, view.x, width)}px, ${to(y, view.y, height)}px)`;
    this.gl.canvas.style.transform = `${shift} scale(${view.scale / scale})`;
  }

  _draw(seen, visible) {
    this._drawn = { ...seen };
    this._visible = visible;
    this._stale = false;
    this.gl.canvas.style.transform = "";
    const view = widened(seen);
    const started = performance.now();
    this._paintAll(view, visible);
    this._time(started);
  }

  // Finds out when the card is done, without waiting for it.
  _time(started) {
    const gl = this.gl;
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    const look = () => {
      if (gl.isContextLost()) return undefined;
      if (gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED) return setTimeout(look, 4);
      gl.deleteSync(fence);
      this._cost = performance.now() - started;
    };
    setTimeout(look, 0);
  }

  _paintAll(view, visible) {
    const gl = this.gl;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(gl.canvas.clientWidth * ratio), Math.round(gl.canvas.clientHeight * ratio)];
    if (gl.canvas.width !== width || gl.canvas.height !== height) Object.assign(gl.canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!visible) return;
    const tiles = this.inView(view);
    if (this.outlined(view, tiles)) this._drawLines(view, tiles, ratio);
    else this._drawDiscs(view, ratio);
  }

  _drawDiscs(view, ratio) {
    const gl = this.gl;
    this._use(this.discs);
    gl.uniform2f(this.discs.at.offset, view.x, view.y);
    gl.uniform1f(this.discs.at.scale, view.scale * ratio);
    gl.uniform1f(this.discs.at.least, ratio);
    gl.bindVertexArray(this._discArray);
    gl.drawArrays(gl.POINTS, 0, this.centres.x.length);
  }

  _drawLines(view, tiles, ratio) {
    const gl = this.gl;
    const scale = view.scale * ratio;
    const width = Math.min(Math.max((this.diameter * view.scale) / 24, 1.2), 2.5) * ratio;
    this._use(this.lines);
    gl.uniform1f(this.lines.at.width, width);
    gl.uniform1i(this.lines.at.segments, 1);
    gl.uniform1i(this.lines.at.owners, 2);
    gl.bindVertexArray(null);
    for (const i of tiles) {
      const tile = this.tiles.get(i);
      if (!tile) continue;
      this.tiles.delete(i); // to the end: it was seen last
      this.tiles.set(i, tile);
      tile.textures ??= [
        texture(gl, tile.segments, 4, gl.RGBA16I, gl.RGBA_INTEGER, gl.SHORT),
        texture(gl, tile.owner, 1, gl.R32UI, gl.RED_INTEGER, gl.UNSIGNED_INT),
      ];
      tile.textures.forEach((one, unit) => {
        gl.activeTexture(gl.TEXTURE1 + unit);
        gl.bindTexture(gl.TEXTURE_2D, one);
      });
      // the differences are taken in double precision
      gl.uniform2f(this.lines.at.origin, (tile.origin[0] - view.x) * scale, (tile.origin[1] - view.y) * scale);
      gl.uniform2f(this.lines.at.unit, tile.step[0] * scale, tile.step[1] * scale);
      gl.drawArrays(gl.TRIANGLES, 0, 6 * tile.owner.length);
    }
    this._seen = tiles;
    this._fetch(tiles);
  }

  _use(which) {
    const gl = this.gl;
    gl.useProgram(which.program);
    gl.uniform2f(which.at.size, gl.canvas.width, gl.canvas.height);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
  }

  // Whether all outlines in view are there.
  complete(view) {
    const tiles = this.inView(view);
    return !this._visible || !this.outlined(view, tiles) || tiles.every((i) => this.tiles.has(i) || this.failed.has(i));
  }

  _fetch(wanted) {
    this._wanted = wanted.filter((i) => !this.tiles.has(i) && !this.failed.has(i));
    while (this._coming.size < LOADING) {
      const i = this._wanted.find((one) => !this._coming.has(one));
      if (i === undefined) return;
      this._coming.add(i);
      this._one(i).finally(() => {
        this._coming.delete(i);
        this._fetch(this._wanted);
      });
    }
  }

  async _one(i) {
    const [column, row] = this.pack.meta.tiles[i];
    try {
      this.tiles.set(i, await this.pack.outlines(column, row));
    } catch (error) {
      this.failed.set(i, error);
      setTimeout(() => this.failed.delete(i) && this.changed(), AGAIN);
    }
    const seen = new Set(this._seen);
    for (const [old, tile] of this.tiles) {
      if (this.tiles.size <= KEPT_TILES + seen.size) break;
      if (seen.has(old)) continue;
      tile.textures?.forEach((one) => this.gl.deleteTexture(one));
      this.tiles.delete(old);
    }
    this._stale = true;
    this.changed();
  }
}

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  const at = {};
  for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(made, i);
    at[name] = gl.getUniformLocation(made, name);
  }
  return { program: made, at };
}

// Values as a texture `WIDTH` wide, `channels` of them a texel.
function texture(gl, values, channels, inner, format, type) {
  const made = gl.createTexture();
  const rows = Math.max(1, Math.ceil(values.length / channels / WIDTH));
  const padded = new values.constructor(rows * WIDTH * channels);
  padded.set(values);
  gl.activeTexture(gl.TEXTURE1); // on the first unit are the colours
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.texImage2D(gl.TEXTURE_2D, 0, inner, WIDTH, rows, 0, format, type, padded);
  for (const name of ["MIN", "MAG"]) gl.texParameteri(gl.TEXTURE_2D, gl[`TEXTURE_${name}_FILTER`], gl.NEAREST);
  return made;
}

function size(canvas) {
  return { width: canvas.clientWidth / (1 + 2 * MARGIN), height: canvas.clientHeight / (1 + 2 * MARGIN) };
}

// What the canvas shows where `view` is seen.
function widened({ x, y, width, height, scale }) {
  return {
    x: x - MARGIN * width, y: y - MARGIN * height, width: (1 + 2 * MARGIN) * width, height: (1 + 2 * MARGIN) * height, scale,
  };
}

function same(one, other) {
  return Object.keys(one).every((key) => Math.abs(one[key] - other[key]) * one.scale < 1e-3);
}

function vertexArray(gl, { program: made }, attributes) {
  const array = gl.createVertexArray();
  gl.bindVertexArray(array);
  for (const [name, data, length, type] of attributes) {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    const place = gl.getAttribLocation(made, name);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, length, type, false, 0, 0);
  }
  gl.bindVertexArray(null);
  return array;
}

function median(values) {
  if (!values.length) return 0;
  // a sample is enough to choose what is drawn
  const step = Math.max(1, Math.floor(values.length / 10000));
  const sample = Float32Array.from({ length: Math.ceil(values.length / step) }, (_, i) => values[i * step]).sort();
  return sample[Math.floor(sample.length / 2)];
}
