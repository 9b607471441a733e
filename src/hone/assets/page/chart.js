// A curve that grows: drawn by uPlot, with its last value as a label, and the numbers as a table for who cannot see it.

import { make, number } from "./ask.js";

const DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3]]; // colour is never the only difference
const COLOURS = ["--first", "--second", "--good", "--muted"];
const SHOWN_ROWS = 12;

// Sixteen lines that can be told apart: four colours, and for every four of them the dashes move on.
const dash = (i) => DASHES[(i + Math.floor(i / COLOURS.length)) % DASHES.length];

// How the line number i looks, for a legend.
export function swatch(i) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ class: "swatch", width: 28, height: 10, "aria-hidden": "true" })) svg.setAttribute(key, value);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const look = { x1: 0, x2: 28, y1: 5, y2: 5, "stroke-width": 2, "stroke-dasharray": dash(i).join(" ") };
  for (const [key, value] of Object.entries(look)) line.setAttribute(key, value);
  line.style.stroke = `var(${COLOURS[i % COLOURS.length]})`;
  svg.append(line);
  return svg;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A tick in few letters: 0.5, 12k, 4e-5.
function short(value) {
  const size = Math.abs(value);
  if (size >= 10000) return `${value / 1000}k`;
  return size > 0 && size < 0.01 ? value.toExponential().replace(/(\.\d{1,2})\d*/, "$1") : String(Number(value.toPrecision(4)));
}

// title, and for each line its name; then set([[x...], [y...], ...]) draws.
export class Chart {
  constructor(title, names, digits = 3, unit = "") {
    this.names = names;
    this.digits = digits;
    this.unit = unit;
    const legend = names.length > 1 ? names.map((name, i) => make("span", { class: "key" }, swatch(i), name)) : [];
    this.caption = make("figcaption", {}, make("span", {}, title), make("span", { class: "keys" }, ...legend), this.last = make("output", {}));
    this.canvas = make("div", { class: "plot", role: "img", tabindex: "0" });
    this.table = make("tbody");
    this.head = make("tr", {}, ...["step", ...names].map((name) => make("th", { scope: "col", class: "r" }, name)));
    this.title = title;
    this.element = make("figure", { class: "chart", hidden: true }, this.caption, this.canvas,
      make("details", {}, make("summary", {}, "The numbers"), make("div", { class: "scroll", tabindex: "0" },
        make("table", {}, make("thead", {}, this.head), this.table))));
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(this.canvas);
    this.schemes = matchMedia("(prefers-color-scheme: dark)");
    this.redraw = () => { this.plot?.destroy(); this.plot = null; if (this.data) this.set(this.data); };
    this.schemes.addEventListener("change", this.redraw);
    this.canvas.addEventListener("keydown", (event) => this.step(event));
  }

  fit() {
    const width = this.canvas.clientWidth;
    if (this.plot && width) this.plot.setSize({ width, height: 200 });
  }

  // Arrow keys move along the curve: what is there is said.
  step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || !this.data) return;
    event.preventDefault();
    const most = this.data[0].length - 1;
    this.at = Math.max(0, Math.min(most, (this.at ?? most) + by));
    this.plot?.setCursor({ left: this.plot.valToPos(this.data[0][this.at], "x"), top: 10 });
    this.say(this.at);
  }

  say(i) {
    const values = this.names.map((name, k) => [name, this.data[k + 1][i]]).filter(([, value]) => value != null);
    const text = values.map(([name, value]) => `${name} ${number(value, this.digits)}${this.unit}`).join(", ");
    this.last.textContent = text ? `step ${number(this.data[0][i], 0)}: ${text}` : "";
    this.canvas.setAttribute("aria-label", `${this.title}, ${this.last.textContent}`);
  }

  set(data) {
    this.data = data;
    const some = data.slice(1).some((ys) => ys.some((y) => y != null));
    this.element.hidden = !some;
    if (!some) return;
    if (!this.plot) this.plot = new uPlot(this.options(), data, this.canvas);
    else this.plot.setData(data);
    let i = data[0].length - 1;
    while (i > 0 && data.slice(1).every((ys) => ys[i] == null)) i -= 1;
    this.at = undefined;
    this.say(i);
    const n = data[0].length;
    const rows = [...new Set(Array.from({ length: SHOWN_ROWS }, (_, k) => Math.round(k * (n - 1) / (SHOWN_ROWS - 1))))];
    this.table.replaceChildren(...rows.map((i) => make("tr", {}, ...data.map((ys, k) =>
      make("td", { class: "r" }, number(ys[i], k ? this.digits : 0))))));
  }

  options() {
    const line = colour("--line"), ink = colour("--muted");
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui" };
    return {
      width: this.canvas.clientWidth || 300,
      height: 200,
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false } },
      scales: { x: { time: false } },
      axes: [{ ...axis }, { ...axis, size: 64, values: (plot, ticks) => ticks.map(short) }],
      series: [{}, ...this.names.map((name, i) => ({
        label: name, stroke: colour(COLOURS[i % COLOURS.length]), width: 1.5, dash: dash(i),
        spanGaps: true, alpha: this.names.length > 4 ? 0.85 : 1, points: { show: (plot) => plot.data[0].length < 40 },
      }))],
      hooks: { setCursor: [(plot) => { if (plot.cursor.idx != null) this.say(plot.cursor.idx); }] },
    };
  }

  end() {
    this.resized.disconnect();
    this.schemes.removeEventListener("change", this.redraw);
    this.plot?.destroy();
  }
}

// The log lines of a run, kept as they come.
export class Lines {
  constructor() { this.offset = 0; this.columns = null; }

  // Takes an answer of api/metrics; whether there is anything new.
  take(found) {
    if (found.reset || !this.columns) {
      this.columns = Object.fromEntries(Object.keys(found.columns).map((name) => [name, []]));
    }
    for (const [name, values] of Object.entries(found.columns)) {
      const all = this.columns[name];
      for (const value of values) all.push(value);
    }
    const isNew = found.reset || found.columns.step.length > 0;
    this.offset = found.next;
    return isNew;
  }

  of(...names) { return [this.columns.step, ...names.map((name) => this.columns[name])]; }

  last(name) {
    const values = this.columns?.[name] || [];
    for (let i = values.length - 1; i >= 0; i -= 1) if (values[i] != null) return values[i];
    return null;
  }
}
