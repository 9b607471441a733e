// The table of runs: sorted, filtered, those of one command folded into a group; two or more ticked to compare.

import { ask, duration, link, make, number } from "./ask.js";

const COLUMNS = [ // heading, what it sorts by, numbers on the right
  ["run", (r) => r.id],
  ["status", (r) => r.status],
  ["base", (r) => r.base || ""],
  ["data", (r) => r.data || ""],
  ["last loss", (r) => r.last_loss],
  ["before → after", (r) => r.after],
  ["tests", (r) => r.passed],
  ["time", (r) => r.seconds],
];
const LETTERS = "abcdefghijkl"; // so many can be compared at once
const STATES = ["running", "damaged", "failed", "killed", "interrupted", "unknown", "finished"]; // what a group says first

// A group as a row of its own, of its runs and of what they show together.
function asRow(group, members) {
  const first = members[0];
  const same = (key) => members.every((one) => one[key] === first[key]) ? first[key] : null;
  const seconds = members.map((one) => one.seconds).filter((one) => one != null);
  return {
    id: group.name, group, members, base: same("base"), data: same("data"),
    status: STATES.find((state) => members.some((one) => one.status === state)) || first.status,
    metric: group.metric || first.metric, before: group.before, after: group.after, spread: group.spread,
    verdict: group.verdict, seconds: seconds.length ? seconds.reduce((a, b) => a + b) : null,
  };
}

export function runs(place, values, context) {
  const ticked = new Set(), open = new Set();
  let rows = [], groups = [], folder = "", by = 0, down = false, filter = "";
  const body = make("tbody");
  const heads = COLUMNS.map(([heading], i) => make("th", { scope: "col", class: i > 3 ? "r" : "" },
    make("button", { class: "sort", click: () => { down = by === i ? !down : false; by = i; draw(); } }, heading)));
  const compare = make("a", { class: "button", role: "link", "aria-disabled": "true" }, "Tick two or more to compare");
  const search = make("input", { type: "search", placeholder: "name, base or data", "aria-label": "Filter runs",
    input: () => { filter = search.value.toLowerCase(); draw(); } });
  const count = make("p", { class: "count" });
  const empty = make("div", { class: "empty", hidden: true },
    make("p", {}, "No runs here yet. The first one takes two minutes and no network: the bundled model learns to write small Python functions."),
    make("p", {}, make("a", { class: "button main", href: "#/new" }, "Start the first run")),
    make("p", { class: "note" }, "Runs that are started in a terminal, with hone train, appear here as well."));
  const table = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs" },
    make("table", { class: "cards" }, make("thead", {}, make("tr", {}, make("th", {}, make("span", { class: "unseen" }, "tick")), ...heads)), body));
  const tools = make("div", { class: "tools" }, search, compare, count);
  place.append(make("h1", {}, "Runs"), tools, empty, table);

  function tick(ids, on) {
    for (const id of ids) if (on) ticked.add(id); else ticked.delete(id);
    const chosen = [...ticked].slice(0, LETTERS.length);
    const few = chosen.length < 2;
    compare.setAttribute("aria-disabled", String(few));
    if (few) compare.removeAttribute("href");
    else compare.href = link("compare", Object.fromEntries(chosen.map((id, i) => [LETTERS[i], id])));
    compare.textContent = few ? "Tick two or more to compare" : chosen.length === 2 ? `Compare ${chosen[0]} with ${chosen[1]}`
      : `Compare ${chosen.length} runs with ${chosen[0]}`;
  }

  function name(row) {
    if (!row.group) return make("a", { href: link("run", { run: row.id }) }, row.id);
    const { id, kind, runs: ids, best } = row.group;
    const shown = open.has(id) || filter !== "";
    const what = `${ids.length} ${kind === "seeds" ? "seeds" : "settings"}`;
    return make("span", {}, make("button", { type: "button", class: "fold", "aria-expanded": String(shown), "data-group": id,
      click: () => { if (open.has(id)) open.delete(id); else open.add(id); draw(); } }, row.id),
    make("span", { class: "note" }, ` ${what}${best ? `, best: ${best}` : ""}`));
  }

  function line(row, inside = false) {
    const ids = row.members ? row.members.map((one) => one.id) : [row.id];
    const box = make("input", { type: "checkbox", "aria-label": row.members ? `tick all of ${row.id}` : `tick ${row.id}`,
      checked: ids.every((id) => ticked.has(id)), change: () => { tick(ids, box.checked); if (row.members) draw(); } });
    const metric = row.metric && row.metric !== "loss" ? `${row.metric} ` : "";
    const spread = row.spread == null ? "" : ` ± ${number(row.spread)}`;
    const change = row.after == null && row.before == null ? "–" : `${metric}${number(row.before)} → ${number(row.after)}${spread}`;
    const status = make("span", { class: `status ${row.status}`, title: row.error || "" }, row.status);
    const cells = [name(row), status, row.base || "–", row.data || "–", number(row.last_loss), change,
      row.tasks ? `${row.passed} of ${row.tasks}` : "–", duration(row.seconds)];
    const shown = cells.map((cell, i) => i === 0 ? make("th", { scope: "row" }, cell)
      : make("td", { class: (i > 3 ? "r" : "") + (cell === "–" ? " none" : ""), "data-label": COLUMNS[i][0] }, cell));
    if (row.verdict) shown[5].classList.add({ better: "good", worse: "bad" }[row.verdict] || "open");
    const kind = row.group ? "group" : inside ? "inside" : "";
    return make("tr", { "data-run": row.group ? `${row.id}/` : row.id, class: kind }, make("td", { class: "tick" }, box), ...shown);
  }

  function draw() {
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== by ? "none" : down ? "descending" : "ascending"));
    const kept = rows.filter((row) => `${row.id} ${row.base} ${row.data}`.toLowerCase().includes(filter));
    const of = new Map(groups.flatMap((group) => group.runs.map((id) => [id, group])));
    const top = kept.filter((row) => !of.has(row.id));
    for (const group of groups) {
      const members = kept.filter((row) => of.get(row.id) === group);
      if (members.length) top.push(asRow(group, members));
    }
    const key = COLUMNS[by][1];
    const order = (a, b) => a == null ? 1 : b == null ? -1 : a < b ? -1 : a > b ? 1 : 0;
    const sorted = (list) => list.sort((a, b) => (down ? -1 : 1) * order(key(a), key(b)));
    const focused = document.activeElement?.closest?.("tr")?.dataset.run;
    const which = document.activeElement?.tagName.toLowerCase();
    body.replaceChildren(...sorted(top).flatMap((row) => !row.group ? [line(row)]
      : [line(row), ...(open.has(row.group.id) || filter ? sorted(row.members).map((one) => line(one, true)) : [])]));
    if (focused) body.querySelector(`tr[data-run="${CSS.escape(focused)}"] ${which}`)?.focus();
    const living = rows.filter((row) => row.status === "running").length;
    count.textContent = `${rows.length} ${rows.length === 1 ? "run" : "runs"} in ${folder}` + (living ? `, ${living} running` : "");
    empty.hidden = rows.length > 0;
    table.hidden = search.hidden = compare.hidden = rows.length === 0;
  }

  let last = "";
  context.every(2000, async () => {
    const found = await ask("api/runs");
    const text = JSON.stringify(found);
    if (text === last) return;
    last = text;
    ({ runs: rows, groups, folder } = found);
    draw();
  });
}
