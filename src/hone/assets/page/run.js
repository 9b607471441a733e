// One run: the verdict first, the curves as they grow, what it is doing now, then the report's own sections.

import { act, ask, link, make, number, Refused, sections } from "./ask.js";
import { Chart, Lines } from "./chart.js";
import { mark } from "./learn.js";

const NOW = [ // what the last log line says, with the word that explains it
  ["loss", "loss", (v) => number(v)],
  ["held-out loss", "held-out rows", (v) => number(v), "eval_loss"],
  ["learning rate", "learning_rate", (v) => v == null ? "–" : String(Number(v.toPrecision(3))), "learning_rate"],
  ["gradient norm", "max_grad_norm", (v) => number(v), "grad_norm"],
  ["tokens/s", "tokens per second", (v) => number(v, 0), "tokens_per_s"],
  ["peak memory", "peak memory", (v) => v == null ? "–" : `${(v / 1e9).toFixed(2)} GB`, "peak_memory_bytes"],
];

export function run(place, { run: id }, context) {
  const name = { run: id };
  const verdict = make("h1", {}, "Reading the run …");
  const also = make("div");
  const status = make("span", { class: "status" });
  const left = make("span", { class: "left" });
  const stop = make("button", { hidden: true, click: () => press("api/stop", "Stopping after this step, with a checkpoint.") }, "Stop");
  const resume = make("button", { hidden: true, click: () => press("api/resume", "Starting again …") }, "Resume");
  const playing = make("a", { class: "button", hidden: true, href: link("play", name) }, "Try it");
  const rows = make("a", { class: "button", href: link("data", name) }, "Its rows");
  const now = make("dl", { class: "now" });
  const charts = [
    [new Chart("Loss (nats per token)", ["training", "held out"]), ["loss", "eval_loss"]],
    [new Chart("Learning rate", ["learning rate"], 6), ["learning_rate"]],
    [new Chart("Gradient norm", ["gradient norm"]), ["grad_norm"]],
    [new Chart("Tokens a second", ["tokens/s"], 0), ["tokens_per_s"]],
  ];
  const told = make("p", { class: "note", role: "status" });
  const alarm = make("div", { class: "alarm", role: "alert", hidden: true });
  const report = make("div");
  const log = make("pre", { class: "log", tabindex: "0", "aria-label": "The end of the log" });
  place.append(
    make("header", {}, make("p", { class: "run" }, id, " ", status, " ", left), verdict, also,
      make("p", { class: "tools" }, stop, resume, playing, rows), told, alarm),
    make("section", {}, make("h2", {}, "Training"), now, make("div", { class: "figures" }, ...charts.map(([chart]) => chart.element))),
    report,
    make("section", {}, make("h2", {}, "Log"), log));
  charts.forEach(([chart]) => context.atEnd(() => chart.end()));

  charts.forEach(([chart]) => mark(chart.element));

  async function press(path, words) {
    stop.disabled = resume.disabled = true;
    alarm.hidden = true;
    told.textContent = words;
    try {
      await act(path, name);
    } catch (error) {
      if (!(error instanceof Refused) && !(error instanceof TypeError)) throw error;
      tell(error.message);
    }
    setTimeout(() => { stop.disabled = resume.disabled = false; }, 3000);
  }

  function tell(text) {
    told.textContent = "";
    alarm.replaceChildren(make("pre", {}, text));
    alarm.hidden = false;
  }

  // A start that fails before it logs is known to the server alone.
  async function lookAtStart() {
    const found = await ask("api/started", name);
    if (found.state === "failed" && row.status !== "running") tell(found.said);
    else if (found.state === "starting" && !alarm.hidden) alarm.hidden = true;
  }

  const lines = new Lines();
  let row = null, read = null;
  context.every(2000, async () => { // drawing is most of what a page takes from the training beside it
    const found = (await ask("api/runs")).runs.find((one) => one.id === id);
    if (!found) { verdict.textContent = `${id} is not here any more`; return; }
    row = found;
    if (status.textContent !== row.status) told.textContent = "";
    status.textContent = row.status;
    status.className = `status ${row.status}`;
    status.title = row.error || "";
    stop.hidden = row.status !== "running";
    resume.hidden = !["interrupted", "killed", "failed"].includes(row.status);
    await lookAtStart();
    playing.hidden = row.stage !== "finished" && row.stage !== "saved";
    let more = true;
    let grown = false;
    while (more) {
      const part = await ask("api/metrics", { ...name, from: lines.offset });
      grown = lines.take(part) || grown;
      more = part.more;
    }
    if (grown) {
      charts.forEach(([chart, columns]) => chart.set(lines.of(...columns)));
      now.replaceChildren(...NOW.map(([label, word, shown, column = label]) => make("div", {},
        make("dt", {}, make("button", { "data-word": word, class: "word" }, label)), make("dd", {}, shown(lines.last(column))))));
    }
    const said = (await ask("api/log", name)).lines;
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 20;
    const text = said.join("\n");
    if (log.textContent !== text) log.textContent = text;
    if (atEnd) log.scrollTop = log.scrollHeight;
    const last = said.findLast((line) => line.includes("ETA"));
    left.textContent = row.status === "running" && last ? last.replace(/^\S+ /, "").replace(/ {2}loss.*(ETA)/, ", $1") : "";
    // The report costs the server a third of a second: a training that runs has a new one with each stage.
    const stamp = `${row.status === "running" ? "" : row.updated} ${row.status} ${row.stage}`;
    if (stamp === read) return;
    const view = await ask("api/run", name);
    read = stamp;
    verdict.className = view.verdict.tone;
    verdict.replaceChildren(make("b", {}, `${view.verdict.word}: `), `${view.verdict.rest}.`);
    also.replaceChildren(...[view.subtitle, ...view.also].map((text) => make("p", { class: "also" }, text)));
    report.replaceChildren(sections(view.html));
    mark(verdict, also, report);
  });
}
