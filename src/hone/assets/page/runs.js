// The table of runs: sorted, filtered, two ticked to compare.

import { ask, duration, make, number } from "./ask.js";

const COLUMNS = [ // heading, what it sorts by, what it shows, numbers on the right
  ["run", (r) => r.id],
  ["status", (r) => r.status],
  ["base", (r) => r.base || ""],
  ["data", (r) => r.data || ""],
  ["last loss", (r) => r.last_loss],
  ["before → after", (r) => r.after],
  ["tests", (r) => r.passed],
  ["time", (r) => r.seconds],
];

export function runs(place, values, context) {
  const ticked = new Set();
  let rows = [], folder = "", by = 0, down = false, filter = "";
  const body = make("tbody");
  const heads = COLUMNS.map(([heading], i) => make("th", { scope: "col", class: i > 3 ? "r" : "" },
    make("button", { class: "sort", click: () => { down = by === i ? !down : false; by = i; draw(); } }, heading)));
  const compare = make("a", { class: "button", href: "#/", "aria-disabled": "true" }, "Compare two runs");
  const search = make("input", { type: "search", placeholder: "name, base or data", "aria-label": "Filter runs",
    input: () => { filter = search.value.toLowerCase(); draw(); } });
  const count = make("p", { class: "count" });
  const empty = make("div", { class: "empty", hidden: true },
    make("p", {}, "No runs here yet. In a terminal:"), make("pre", {}, "hone demo"),
    make("p", {}, "trains the bundled model on 413 small functions in about two minutes. It appears here as it grows."));
  place.append(make("h1", {}, "Runs"), make("div", { class: "tools" }, search, compare, count), empty,
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs" },
      make("table", { class: "cards" }, make("thead", {}, make("tr", {}, make("th", {}, make("span", { class: "unseen" }, "tick")), ...heads)), body)));

  function tick(id, on) {
    if (on) ticked.add(id); else ticked.delete(id);
    const two = [...ticked].slice(-2);
    compare.setAttribute("aria-disabled", String(two.length < 2));
    compare.href = two.length < 2 ? "#/" : `#/compare?${new URLSearchParams({ a: two[0], b: two[1] })}`;
    compare.textContent = two.length < 2 ? "Compare two runs" : `Compare ${two[0]} with ${two[1]}`;
  }

  function line(row) {
    const box = make("input", { type: "checkbox", "aria-label": `tick ${row.id}`, checked: ticked.has(row.id),
      change: () => tick(row.id, box.checked) });
    const metric = row.metric && row.metric !== "loss" ? `${row.metric} ` : "";
    const change = row.after == null && row.before == null ? "–" : `${metric}${number(row.before)} → ${number(row.after)}`;
    const status = make("span", { class: `status ${row.status}`, title: row.error || "" }, row.status);
    const cells = [
      make("a", { href: `#/run?${new URLSearchParams({ run: row.id })}` }, row.id),
      status, row.base || "–", row.data || "–", number(row.last_loss), change,
      row.tasks ? `${row.passed} of ${row.tasks}` : "–", duration(row.seconds),
    ];
    const shown = cells.map((cell, i) => i === 0 ? make("th", { scope: "row" }, cell)
      : make("td", { class: i > 3 ? "r" : "", "data-label": COLUMNS[i][0] }, cell));
    if (row.verdict) shown[5].classList.add({ better: "good", worse: "bad" }[row.verdict] || "open");
    return make("tr", { "data-run": row.id }, make("td", { class: "tick" }, box), ...shown);
  }

  function draw() {
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== by ? "none" : down ? "descending" : "ascending"));
    const kept = rows.filter((row) => `${row.id} ${row.base} ${row.data}`.toLowerCase().includes(filter));
    const key = COLUMNS[by][1];
    const order = (a, b) => a == null ? 1 : b == null ? -1 : a < b ? -1 : a > b ? 1 : 0;
    kept.sort((a, b) => (down ? -1 : 1) * order(key(a), key(b)));
    const focused = document.activeElement?.closest?.("tr")?.dataset.run;
    const which = document.activeElement?.tagName;
    body.replaceChildren(...kept.map(line));
    if (focused) body.querySelector(`tr[data-run="${CSS.escape(focused)}"] ${which === "A" ? "a" : "input"}`)?.focus();
    const living = rows.filter((row) => row.status === "running").length;
    count.textContent = `${rows.length} runs in ${folder}` + (living ? `, ${living} running` : "");
    empty.hidden = rows.length > 0;
  }

  let last = "";
  context.every(2000, async () => {
    const found = await ask("api/runs");
    const text = JSON.stringify(found);
    if (text === last) return;
    last = text;
    ({ runs: rows, folder } = found);
    draw();
  });
}
