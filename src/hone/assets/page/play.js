// One prompt to base, tuned and other runs, side by side: one seed, and in each header what really answered.

import { act, ask, field, link, make, Refused, streamed } from "./ask.js";
import { differences } from "./differences.js";

const MOST_OTHERS = 2; // runs whose models are loaded beside this one's
const LIKELIEST = 3; // tokens that are shown beside the one that was written

export function play(place, { run: id }, context) {
  const prompt = make("textarea", { id: "prompt", rows: "4", required: true, placeholder: "Write a function that adds two numbers." });
  const temperature = make("input", { type: "number", min: "0", max: "2", step: "0.1", value: "0" });
  const tokens = make("input", { type: "number", min: "1", max: "2048", value: "128" });
  const seed = make("input", { type: "number", min: "0", value: "0" });
  const raw = make("input", { type: "checkbox" });
  const likely = make("input", { type: "checkbox" });
  const others = make("select", { multiple: true, size: "3", "aria-describedby": "others-hint" });
  const beside = make("details", { hidden: true }, make("summary", {}, "Other runs beside it"),
    field("tuned models of", others), make("p", { id: "others-hint", class: "note" }, `Up to ${MOST_OTHERS}, each loaded into memory; Ctrl takes one more.`));
  const send = make("button", { type: "submit", class: "main" }, "Ask");
  const halt = make("button", { type: "button", hidden: true, click: () => stopped.abort() }, "Stop");
  const alarm = make("p", { class: "alarm", role: "alert", hidden: true });
  const state = make("p", { class: "note", role: "status" });
  const answers = make("div", { class: "pair", "aria-live": "off" });
  const keep = make("section", { hidden: true });
  let stopped = new AbortController();
  context.atEnd(() => stopped.abort());
  place.append(make("h1", {}, "Try it: ", make("a", { href: link("run", { run: id }) }, id)),
    make("form", { class: "play", submit: (event) => { event.preventDefault(); all(); } },
      field("Prompt", prompt), make("div", { class: "tools" }, field("temperature", temperature), field("tokens at most", tokens),
        field("seed", seed), field("continue the text as it is", raw), field("token probabilities", likely), send, halt), beside),
    state, alarm, answers, keep);
  prompt.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) all(); });

  let listed = false;
  context.every(60_000, async () => {
    if (listed) return;
    const rows = (await ask("api/runs")).runs.filter((row) => row.id !== id && ["finished", "saved"].includes(row.stage));
    listed = true;
    beside.hidden = rows.length === 0;
    others.replaceChildren(...rows.map((row) => make("option", { value: row.id }, row.id)));
  });

  async function all() {
    if (!prompt.value || send.disabled) return;
    stopped = new AbortController();
    alarm.hidden = keep.hidden = true;
    answers.classList.remove("same");
    send.disabled = true;
    halt.hidden = false;
    state.textContent = "Loading the models, which takes seconds the first time …";
    answers.replaceChildren();
    try {
      const more = [...others.selectedOptions].map((one) => one.value).slice(0, MOST_OTHERS);
      const columns = [];
      for (const run of [id, ...more]) {
        const served = (await ask("api/play/models", { run })).data.map((one) => one.id);
        for (const model of run === id ? served : served.slice(-1)) columns.push(column(run, model, run === id ? model : `${model} of ${run}`));
      }
      state.textContent = "Writing …";
      await Promise.all(columns.map(answer));
      differ(columns);
      offer(columns);
    } catch (error) {
      if (error.name !== "AbortError") { alarm.textContent = error.message; alarm.hidden = false; }
    }
    state.textContent = "";
    send.disabled = false;
    halt.hidden = true;
  }

  function column(run, model, label) {
    const print = make("code", { title: "fingerprint of the model that answered" });
    const note = make("span", { class: "note" });
    const text = make("pre", { tabindex: "0", "aria-label": `answer of ${label}` });
    const element = make("div", {}, make("h2", {}, label, " ", print, " ", note), text);
    answers.append(element);
    return { run, model, label, print, note, text, element, fingerprint: "", pieces: "", tokens: [] };
  }

  async function answer(one) {
    const isRaw = raw.checked;
    const body = { model: one.model, temperature: Number(temperature.value), max_tokens: Number(tokens.value),
      seed: Number(seed.value), stream: true };
    if (isRaw) Object.assign(body, { prompt: prompt.value }, likely.checked ? { logprobs: LIKELIEST } : {});
    else {
      Object.assign(body, { messages: [{ role: "user", content: prompt.value }] },
        likely.checked ? { logprobs: true, top_logprobs: LIKELIEST } : {});
    }
    const began = performance.now();
    let n = 0, why = "";
    for await (const piece of streamed(`api/play/${isRaw ? "completions" : "chat/completions"}`, { run: one.run }, body, stopped.signal)) {
      if (piece.error) throw new Error(piece.error.message);
      const choice = piece.choices[0];
      if (piece.system_fingerprint) one.fingerprint = piece.system_fingerprint;
      if (!choice) continue;
      const written = isRaw ? choice.text : choice.delta.content;
      if (written) { one.pieces += written; n += 1; one.text.textContent = one.pieces; }
      if (choice.logprobs) one.tokens.push(...spoken(choice.logprobs));
      if (choice.finish_reason) why = choice.finish_reason === "length" ? "cut at the length" : "ended by itself";
      one.print.textContent = one.fingerprint;
    }
    one.note.textContent = `${why}, ${(n / Math.max((performance.now() - began) / 1000, 0.001)).toFixed(0)} pieces/s`;
  }

  // Both forms of OpenAI's API as [text, probability, [[text, probability] …]].
  function spoken(found) {
    if (found.content) return found.content.map((one) => [one.token, Math.exp(one.logprob), one.top_logprobs.map((top) => [top.token, Math.exp(top.logprob)])]);
    return found.tokens.map((text, i) => [text, Math.exp(found.token_logprobs[i]),
      Object.entries(found.top_logprobs[i]).map(([other, logprob]) => [other, Math.exp(logprob)])]);
  }

  // Equal fingerprints would mean that one model has answered for both.
  function differ(columns) {
    const prints = columns.map((one) => one.fingerprint);
    if (columns.length > 1 && new Set(prints).size < prints.length) {
      alarm.textContent = "Two answers came from the same model: the fingerprints are equal. Do not compare them.";
      alarm.hidden = false;
      answers.classList.add("same");
      return;
    }
    if (columns.some((one) => one.tokens.length)) columns.forEach(probabilities);
    else if (columns.length > 1) {
      if (columns.every((one) => one.pieces === columns[0].pieces)) answers.append(make("p", { class: "note" }, "All wrote the same."));
      else columns.forEach((one, i) => one.text.replaceChildren(...differences(one.pieces, columns[i ? 0 : 1].pieces, i ? "ins" : "del")));
    }
  }

  // The surer the model was of a token, the less it is shaded; and the same as a table.
  function probabilities(one) {
    if (!one.tokens.length) return;
    const percent = (p) => `${(100 * p).toFixed(p < 0.1 ? 1 : 0)} %`;
    const seen = (text) => JSON.stringify(text).slice(1, -1);
    const instead = (top, text) => top.filter(([other]) => other !== text).map(([other, p]) => `${seen(other)} ${percent(p)}`).join(", ");
    one.text.replaceChildren(...one.tokens.map(([text, p, top]) => make("span", { class: "token", style: `--doubt:${Math.round(100 * (1 - p))}%`,
      title: `${percent(p)}; instead: ${instead(top, text)}` }, text)));
    const rows = one.tokens.map(([text, p, top]) => make("tr", {}, make("th", { scope: "row" }, make("code", {}, seen(text))),
      make("td", { class: "r" }, percent(p)), make("td", {}, make("code", {}, instead(top, text)))));
    const mean = one.tokens.reduce((sum, [, p]) => sum + Math.log(p), 0) / one.tokens.length;
    one.element.append(make("details", {}, make("summary", {}, `Token by token; on average ${percent(Math.exp(mean))} sure`),
      make("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": `tokens of ${one.label}` }, make("table", {},
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "token"), make("th", { scope: "col", class: "r" }, "probability"), make("th", { scope: "col" }, "instead"))),
        make("tbody", {}, ...rows)))));
  }

  // The prompt with the answer that was wanted becomes a row to measure any run on.
  function offer(columns) {
    const asked = prompt.value;
    const wanted = make("textarea", { rows: "4" }, columns.at(-1).pieces);
    const said = make("p", { class: "note", role: "status" });
    const save = make("button", { type: "button", click: async () => {
      try {
        const found = await act("api/item", {}, { prompt: asked, wanted: wanted.value });
        said.replaceChildren(`Saved as row ${found.row} of ${found.file}. All of them are measured by `, make("code", {}, found.command), ".");
      } catch (error) {
        if (!(error instanceof Refused) && !(error instanceof TypeError)) throw error;
        said.textContent = error.message;
      }
    } }, "Save as test item");
    keep.replaceChildren(make("h2", {}, "Keep this prompt as a test"), make("div", { class: "play" },
      field("The answer that was wanted: correct it before you save it", wanted)), make("div", { class: "tools" }, save), said);
    keep.hidden = false;
  }
}
