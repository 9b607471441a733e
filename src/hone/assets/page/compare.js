// Runs beside each other: curves over each other, what differs by how much, in which settings; of two item by item.

import { ask, link, make, sections } from "./ask.js";
import { Chart, Lines, swatch } from "./chart.js";
import { mark } from "./learn.js";

// All runs on one axis of steps: the union of their steps, with gaps where a run has none.
function together(all, column) {
  const steps = [...new Set(all.flatMap((lines) => lines.columns.step))].sort((x, y) => x - y);
  const at = new Map(steps.map((step, i) => [step, i]));
  const ys = all.map((lines) => {
    const found = new Array(steps.length).fill(null);
    lines.columns.step.forEach((step, i) => { if (lines.columns[column][i] != null) found[at.get(step)] = lines.columns[column][i]; });
    return found;
  });
  return [steps, ...ys];
}

export function compare(place, values, context) {
  const letters = Object.keys(values).filter((key) => /^[a-l]$/.test(key)).sort();
  const names = letters.map((letter) => letter.toUpperCase());
  const runs = letters.map((letter) => values[letter]);
  const title = make("h1", {}, "Comparing …");
  const charts = [
    [new Chart("Training loss", names), "loss"],
    [new Chart("Held-out loss", names), "eval_loss"],
  ];
  const found = make("div"), items = make("div"), settings = make("div");
  place.append(title, make("ul", { class: "legend-runs" }, ...runs.map((run, i) => make("li", {}, swatch(i), make("b", {}, names[i]), " ",
    make("a", { href: link("run", { run }) }, run)))), found, make("section", {}, make("h2", {}, "Curves"),
    make("div", { class: "figures" }, ...charts.map(([chart]) => chart.element))), items, settings);
  charts.forEach(([chart]) => context.atEnd(() => chart.end()));
  charts.forEach(([chart]) => mark(chart.element));
  const lines = runs.map(() => new Lines());
  let done = false;
  context.every(2000, async () => {
    if (!done) {
      const view = await ask("api/compare", values);
      title.className = view.verdict || "open";
      title.textContent = view.problem ? "These cannot be compared by their numbers" : `${view.sentence.replace(/\.$/, "")}.`;
      found.replaceChildren(view.problem ? make("pre", {}, view.problem) : sections(view.html));
      items.replaceChildren(sections(view.items || ""));
      settings.replaceChildren(sections(view.settings));
      mark(title, found, items, settings);
      done = true;
    }
    let grown = false;
    for (const [i, run] of runs.entries()) {
      let more = true;
      while (more) {
        const part = await ask("api/metrics", { run, from: lines[i].offset });
        grown = lines[i].take(part) || grown;
        more = part.more;
      }
    }
    if (grown) charts.forEach(([chart, column]) => chart.set(together(lines, column)));
  });
}
