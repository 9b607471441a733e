// Two runs: curves over each other, what differs by how much, item by item, and in which settings.

import { ask, make, sections } from "./ask.js";
import { Chart, Lines } from "./chart.js";

// Both runs on one axis of steps: the union of their steps, with gaps where a run has none.
function together(a, b, column) {
  const steps = [...new Set([...a.columns.step, ...b.columns.step])].sort((x, y) => x - y);
  const at = new Map(steps.map((step, i) => [step, i]));
  const ys = [a, b].map((lines) => {
    const found = new Array(steps.length).fill(null);
    lines.columns.step.forEach((step, i) => { if (lines.columns[column][i] != null) found[at.get(step)] = lines.columns[column][i]; });
    return found;
  });
  return [steps, ...ys];
}

export function compare(place, { a, b }, context) {
  const title = make("h1", {}, "Comparing …");
  const charts = [
    [new Chart("Training loss: A ──, B ╌╌", ["A", "B"]), "loss"],
    [new Chart("Held-out loss: A ──, B ╌╌", ["A", "B"]), "eval_loss"],
  ];
  const found = make("div"), items = make("div"), settings = make("div");
  place.append(make("p", { class: "run" }, "A is ", make("a", { href: `#/run?${new URLSearchParams({ run: a })}` }, a), ", B is ",
    make("a", { href: `#/run?${new URLSearchParams({ run: b })}` }, b)), title, found, make("section", {}, make("h2", {}, "Curves"),
    make("div", { class: "figures" }, ...charts.map(([chart]) => chart.element))), items, settings);
  charts.forEach(([chart]) => context.atEnd(() => chart.end()));
  const lines = [new Lines(), new Lines()];
  let done = false;
  context.every(2000, async () => {
    if (!done) {
      const view = await ask("api/compare", { a, b });
      title.className = view.verdict || "open";
      title.textContent = view.problem ? "These two cannot be compared" : view.sentence;
      found.replaceChildren(view.problem ? make("pre", {}, view.problem) : sections(view.html));
      items.replaceChildren(sections(view.items || ""));
      settings.replaceChildren(sections(view.settings));
      done = true;
    }
    let grown = false;
    for (const [i, run] of [a, b].entries()) grown = lines[i].take(await ask("api/metrics", { run, from: lines[i].offset })) || grown;
    if (grown) charts.forEach(([chart, column]) => chart.set(together(...lines, column)));
  });
}
