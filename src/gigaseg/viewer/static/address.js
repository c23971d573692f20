// What is seen, in the page's address after #, so that a link leads to the same place with the same look.

export function read(hash) {
  const found = new URLSearchParams(hash.replace(/^#/, ""));
  const numbers = (name) => (found.get(name) ?? "").split(",").map(Number);
  const [x, y, scale] = numbers("at");
  const filters = found.getAll("filter").map((text) => {
    const [name, low, high] = text.split(":");
    return [name, [Number(low), Number(high)]];
  });
  const hidden = found.getAll("hide").map((text) => {
    const cut = text.lastIndexOf(":");
    return [text.slice(0, cut), text.slice(cut + 1).split(",").map(Number)];
  });
  return {
    hidden: hidden.filter(([, places]) => places.every(Number.isInteger)),
    at: found.has("at") && [x, y, scale].every(Number.isFinite) && scale > 0 ? { x, y, scale } : null,
    colour: found.get("colour"),
    filters: filters.filter(([, range]) => range.every((value) => !Number.isNaN(value))),
    layers: found.has("layers") ? found.get("layers").split(",") : null,
    instance: Number(found.get("instance")) || null,
  };
}

export function write({ at, colour, filters, hidden, layers, instance }) {
  const parts = [`at=${at.x.toFixed(1)},${at.y.toFixed(1)},${Number(at.scale.toPrecision(5))}`];
  if (colour !== "class") parts.push(`colour=${encodeURIComponent(colour)}`);
  for (const [name, [low, high]] of filters) parts.push(`filter=${encodeURIComponent(name)}:${low}:${high}`);
  for (const [name, places] of hidden) parts.push(`hide=${encodeURIComponent(name)}:${[...places].sort((a, b) => a - b).join(",")}`);
  if (layers !== null) parts.push(`layers=${layers.join(",")}`);
  if (instance !== null) parts.push(`instance=${instance}`);
  return `#${parts.join("&")}`;
}
