// The rows of a run as the model sees them: what is trained is marked, what is only read is grey.

import { ask, link, make, Refused } from "./ask.js";

export async function data(place, { run: id }, context) {
  const title = make("h1", {}, "Its rows: ", make("a", { href: link("run", { run: id }) }, id));
  const state = make("p", { role: "status" }, "Reading the rows, which takes some seconds …");
  place.append(title, state);
  let shown = true;
  context.atEnd(() => { shown = false; });
  let found;
  try {
    found = await ask("api/data", { run: id });
  } catch (error) {
    if (!(error instanceof Refused) && !(error instanceof TypeError)) throw error;
    state.textContent = error.message;
    state.className = "alarm";
    return;
  }
  if (!shown) return;
  state.remove();
  place.append(
    make("section", {}, make("h2", {}, "What was read, kept and dropped"),
      make("ul", { class: "points" }, ...found.said.map((line) => make("li", {}, line.replace(/^data: /, ""))))),
    make("section", {}, make("h2", {}, "Tokens of an example"), bars(found.lengths)),
    make("section", {}, make("h2", {}, `The first ${found.shown.length} examples`),
      make("p", {}, make("ins", {}, "marked"), ": counts in the loss; ", make("span", { class: "masked" }, "grey"), ": is only read"),
      ...found.shown.map((one, i) => make("article", {}, make("h3", {}, `Example ${i + 1}: ${one.n_tokens} tokens, ${one.note}`),
        make("pre", { tabindex: "0" }, ...one.pieces.map(([text, supervised]) =>
          make(supervised ? "ins" : "span", { class: supervised ? "" : "masked" }, text)))))));
}

// A table whose bars are drawn behind the numbers.
function bars(lengths) {
  const most = Math.max(1, ...lengths.map(([, , n]) => n));
  return make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col", class: "r" }, "tokens"), make("th", { scope: "col" }, "examples"))),
    make("tbody", {}, ...lengths.map(([low, high, n]) => make("tr", {}, make("th", { scope: "row", class: "r" }, low === high ? `${low}` : `${low} to ${high}`),
      make("td", { class: "bar", style: `--share:${(100 * n) / most}%` }, n.toLocaleString("en"))))));
}
