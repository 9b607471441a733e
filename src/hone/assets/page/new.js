// A new run: a recipe and rows make settings, which are edited, checked, planned, and started as a process of its own.

import { act, ask, field, link, make, Refused } from "./ask.js";
import { Editor } from "./editor.js";
import { mark, show, word, words } from "./learn.js";

const KEPT = "hone-settings"; // of this tab: looking at another view loses no edit

export function begin(place, values, context) {
  const recipe = make("select", { change: () => choose() });
  const name = make("input", { required: true, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]{0,59}", maxlength: "60", spellcheck: "false", input: () => later() });
  const train = make("input", { list: "files", placeholder: "the recipe’s own, to try it", spellcheck: "false" });
  const heldOut = make("input", { list: "files", placeholder: "a tenth of the rows", spellcheck: "false" });
  const files = make("datalist", { id: "files" });
  const fill = make("button", { type: "submit", class: "main" }, "Write the settings");
  const about = make("p", { class: "note" });
  const said = make("p", { role: "status" });
  const problem = make("div", { class: "problem", role: "status" });
  const explained = make("div", { class: "prose" });
  const aside = make("section", { class: "aside", "aria-label": "The key at the cursor" }, make("h2", {}, "The key at the cursor"), explained);
  const editor = new Editor("Settings, in YAML", () => later(), (key) => explain(key));
  const plan = make("button", { type: "button", click: () => look() }, "What will it cost?");
  const start = make("button", { type: "button", class: "main", click: () => go() }, "Start training");
  const planned = make("div", { role: "status" });
  const command = make("pre", { class: "command", tabindex: "0", "aria-label": "The command that does the same" });
  const alarm = make("div", { class: "alarm", role: "alert", hidden: true });
  const progress = make("pre", { class: "log", tabindex: "0", "aria-label": "What it says", hidden: true });
  const second = make("section", { hidden: true }, make("h2", {}, "2. The settings"), said, make("div", { class: "beside" }, editor.element, aside), problem);
  const third = make("section", { hidden: true }, make("h2", {}, "3. Train"),
    make("div", { class: "tools" }, plan, start), planned, alarm, progress, make("p", { class: "note" }, "The same in a terminal:"), command);
  place.append(make("h1", {}, "New run"),
    make("form", { class: "play", submit: (event) => { event.preventDefault(); draft(); } }, make("h2", {}, "1. A recipe and rows"),
      make("div", { class: "tools" }, field("recipe", recipe), field("name of the run", name), field("rows to train on", train),
        field("rows to measure on", heldOut), fill), about, files),
    second, third);

  let recipes = [], timer = null, starting = "", turn = 0;
  context.atEnd(() => clearTimeout(timer));

  async function attempt(work) { // a mistake is said where it was made
    alarm.hidden = true;
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Refused) && !(error instanceof TypeError)) throw error;
      tell(error instanceof Refused ? error.message : "the server does not answer");
      return null;
    }
  }

  function tell(text) {
    alarm.replaceChildren(make("pre", {}, text));
    alarm.hidden = false;
    third.hidden = false;
  }

  async function choose() {
    const one = recipes.find((row) => row.name === recipe.value);
    about.textContent = one ? `${one.title[0].toUpperCase()}${one.title.slice(1)}.` : "";
    train.placeholder = one?.rows ? "the recipe’s own, to try it" : "a file or folder of rows";
    const before = name.value;
    const found = await attempt(() => ask("api/name", { wanted: recipe.value }));
    if (found && name.value === before) name.value = found.name; // what was typed meanwhile stays
  }

  async function draft() {
    const body = { recipe: recipe.value, name: name.value, train: train.value.trim(), held_out: heldOut.value.trim() };
    const found = await attempt(() => act("api/draft", {}, body));
    if (!found) return;
    third.hidden = false;
    reveal(found.text);
    said.textContent = found.said;
    editor.area.focus();
    editor.look();
  }

  function reveal(text) {
    second.hidden = third.hidden = false;
    editor.text = text;
    explain("");
    check();
  }

  function later() {
    keep();
    clearTimeout(timer);
    timer = setTimeout(check, 300);
  }

  function keep() {
    if (!second.hidden) sessionStorage.setItem(KEPT, JSON.stringify({ name: name.value, recipe: recipe.value, text: editor.text }));
  }

  async function check() {
    if (second.hidden) return;
    keep();
    const mine = ++turn;
    let notes = [], wrong = "";
    try {
      const found = await act("api/check", {}, { name: name.value, text: editor.text });
      notes = found.notes;
      command.textContent = found.command;
    } catch (error) {
      if (!(error instanceof Refused)) return; // the server comes back, or the next key asks again
      wrong = error.message;
    }
    if (mine !== turn) return;
    start.disabled = plan.disabled = wrong !== "" || starting !== "";
    const lines = [...wrong.matchAll(/\.yaml:(\d+)/g)].map((one) => Number(one[1]));
    editor.mark(lines);
    problem.classList.toggle("bad", wrong !== "");
    problem.replaceChildren(...(wrong ? [make("pre", {}, wrong), ...[...new Set(lines)].map((line) =>
      make("button", { type: "button", click: () => editor.goTo(line) }, `Go to line ${line}`))]
      : [make("p", {}, "No mistakes."), ...notes.map((note) => make("p", { class: "note" }, note))]));
  }

  let shownKey = null;
  function explain(key) {
    if (key === shownKey) return;
    shownKey = key;
    if (editor.keys.some((one) => one.key === key)) show(explained, key);
    else explained.replaceChildren(make("p", { class: "note" }, "Put the cursor on a key, and it is explained here. Ten to know first:"),
      make("ul", {}, ...editor.keys.filter((one) => one.often).map((one) => make("li", {}, word(one.key), `: ${one.what}`))));
  }

  async function look() {
    plan.disabled = true;
    planned.replaceChildren(make("p", {}, "Counting, which takes some seconds …"));
    const found = await attempt(() => act("api/plan", {}, { name: name.value, text: editor.text }));
    plan.disabled = false;
    planned.replaceChildren(...(found ? [make("p", { class: found.fits ? "" : "alarm" },
      found.fits ? "It fits into this machine." : "It would not fit into this machine."), make("pre", { tabindex: "0" }, found.text)] : []));
    mark(planned);
  }

  async function go() {
    start.disabled = plan.disabled = true;
    const found = await attempt(() => act("api/train", {}, { name: name.value, text: editor.text }));
    if (found) { starting = found.run; progress.hidden = false; progress.textContent = "starting …"; }
    else start.disabled = plan.disabled = false;
  }

  context.every(700, async () => {
    if (!recipes.length) await fetched();
    if (!starting) return;
    const found = await ask("api/started", { run: starting });
    progress.textContent = found.said || "starting …";
    if (found.state === "starting") return;
    const run = starting;
    starting = "";
    progress.hidden = true;
    start.disabled = plan.disabled = false;
    if (found.state === "failed") tell(found.said);
    else {
      sessionStorage.removeItem(KEPT);
      location.hash = link("run", { run });
    }
  });

  async function fetched() {
    const [found, all] = await Promise.all([ask("api/recipes"), words()]);
    recipes = found.recipes;
    editor.keys = all.keys;
    editor.sections = Object.keys(all.sections);
    recipe.replaceChildren(...recipes.map((one) => make("option", { value: one.name }, one.name)));
    files.replaceChildren(...found.files.map((one) => make("option", { value: one })));
    const kept = JSON.parse(sessionStorage.getItem(KEPT) || "null");
    if (kept) recipe.value = kept.recipe;
    await choose();
    if (kept) { name.value = kept.name; reveal(kept.text); }
  }
}
