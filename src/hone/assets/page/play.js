// One prompt to base and tuned, side by side: the same seed and settings, and in each header what really answered.

import { ask, make, streamed } from "./ask.js";

export function play(place, { run: id }, context) {
  const name = { run: id };
  const prompt = make("textarea", { id: "prompt", rows: "4", required: true, placeholder: "Write a function that adds two numbers." });
  const field = (label, element) => make("label", {}, make("span", {}, label), element);
  const temperature = make("input", { type: "number", min: "0", max: "2", step: "0.1", value: "0" });
  const tokens = make("input", { type: "number", min: "1", max: "2048", value: "128" });
  const seed = make("input", { type: "number", min: "0", value: "0" });
  const raw = make("input", { type: "checkbox" });
  const send = make("button", { type: "submit" }, "Ask both");
  const halt = make("button", { type: "button", hidden: true, click: () => stopped.abort() }, "Stop");
  const alarm = make("p", { class: "alarm", role: "alert", hidden: true });
  const answers = make("div", { class: "pair", "aria-live": "off" });
  let stopped = new AbortController();
  context.atEnd(() => stopped.abort());
  place.append(make("h1", {}, "Try it: ", make("a", { href: `#/run?${new URLSearchParams(name)}` }, id)),
    make("form", { class: "play", submit: (event) => { event.preventDefault(); both(); } },
      field("Prompt", prompt), make("div", { class: "tools" }, field("temperature", temperature), field("tokens at most", tokens),
        field("seed", seed), field("continue the text as it is", raw), send, halt)),
    alarm, answers);
  prompt.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) both(); });

  async function both() {
    if (!prompt.value || send.disabled) return;
    stopped = new AbortController();
    alarm.hidden = true;
    send.disabled = true;
    halt.hidden = false;
    context.say("loading the models, which takes seconds the first time");
    answers.replaceChildren();
    try {
      const served = (await ask("api/play/models", name)).data.map((one) => one.id);
      context.say("");
      const columns = served.map(column);
      await Promise.all(columns.map(answer));
      differ(columns);
    } catch (error) {
      if (error.name !== "AbortError") { alarm.textContent = error.message; alarm.hidden = false; }
    }
    context.say("");
    send.disabled = false;
    halt.hidden = true;
  }

  function column(model) {
    const print = make("code", {});
    const note = make("span", { class: "note" });
    const text = make("pre", { tabindex: "0", "aria-label": `answer of ${model}` });
    answers.append(make("div", {}, make("h2", {}, model, " ", print, " ", note), text));
    return { model, print, note, text, fingerprint: "", pieces: "" };
  }

  async function answer(one) {
    const body = { model: one.model, temperature: Number(temperature.value), max_tokens: Number(tokens.value),
      seed: Number(seed.value), stream: true };
    if (raw.checked) body.prompt = prompt.value;
    else body.messages = [{ role: "user", content: prompt.value }];
    const began = performance.now();
    let n = 0, why = "";
    for await (const piece of streamed(`api/play/${raw.checked ? "completions" : "chat/completions"}`, name, body, stopped.signal)) {
      if (piece.error) throw new Error(piece.error.message);
      const choice = piece.choices[0];
      if (piece.system_fingerprint) one.fingerprint = piece.system_fingerprint;
      if (!choice) continue;
      const written = raw.checked ? choice.text : choice.delta.content;
      if (written) { one.pieces += written; n += 1; one.text.textContent = one.pieces; }
      if (choice.finish_reason) why = choice.finish_reason === "length" ? "cut at the length" : "ended by itself";
      one.print.textContent = one.fingerprint;
    }
    one.note.textContent = `${why}, ${(n / Math.max((performance.now() - began) / 1000, 0.001)).toFixed(0)} pieces/s`;
  }

  // Equal fingerprints would mean that one model has answered for both.
  function differ(columns) {
    const prints = columns.map((one) => one.fingerprint);
    if (columns.length > 1 && new Set(prints).size < prints.length) {
      alarm.textContent = "Both answers came from the same model: the fingerprints are equal. Do not compare them.";
      alarm.hidden = false;
      answers.classList.add("same");
      return;
    }
    answers.classList.remove("same");
    if (columns.length === 2) {
      const [a, b] = columns.map((one) => one.pieces);
      const words = a === b ? "Both wrote the same." : "";
      if (words) answers.append(make("p", { class: "note" }, words));
      else mark(columns[0], columns[1]);
    }
  }

  // What the other text lacks, line by line.
  function mark(left, right) {
    const lines = [left, right].map((one) => one.pieces.split("\n"));
    [left, right].forEach((one, side) => {
      const others = new Set(lines[1 - side]);
      one.text.replaceChildren(...lines[side].flatMap((line, i) => {
        const end = i + 1 < lines[side].length ? "\n" : "";
        return [others.has(line) || !line.trim() ? line : make(side ? "ins" : "del", {}, line), end];
      }));
    });
  }
}
