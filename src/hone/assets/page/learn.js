// The words of the field and the keys of the settings: marked where they stand, and all of them to look through.

import { ask, make, Refused } from "./ask.js";

// Words of everyday language are not marked where they stand; the list has them.
const PLAIN = new Set(["better", "class", "compare", "comparison", "continue", "head", "label", "labels", "method", "order", "random",
  "reference", "repeat", "sample", "search", "step", "steps", "style", "task", "test", "tuning", "weights", "answer", "worse"]);
const MARKED = "h1, h2, h3, th, dt, figcaption > span, .also, .caption, .points li, section > p";

let asked = null;
export function words() {
  asked ??= ask("api/words").catch((error) => { asked = null; throw error; });
  return asked;
}

let patterns = null;
async function pattern() {
  const found = await words();
  if (!patterns) {
    const terms = found.concepts.flatMap((one) => one.words).filter((word) => !PLAIN.has(word)).sort((a, b) => b.length - a.length);
    const escaped = terms.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const keys = found.keys.map((one) => one.key);
    patterns = {
      terms: new RegExp(`(?<![\\w./-])(${escaped.join("|")})(?![\\w-]|\\.\\w)`, "gi"), // not within the name of a file
      keys: new RegExp(`(?<![\\w-])((?:\\w+\\.)?(?:${keys.join("|")}))(?![\\w-])`, "g"),
    };
  }
  return patterns;
}

export const word = (text, name = text) => make("button", { type: "button", class: "word", "data-word": name }, text);

// Text with every match as a word that explains itself; each only where it stands first.
function marked(text, expression, seen) {
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(expression)) {
    const name = found[0].toLowerCase();
    if (seen.has(name)) continue;
    seen.add(name);
    parts.push(text.slice(at, found.index), word(found[0], found[0].replace(/^\w+\./, "")));
    at = found.index + found[0].length;
  }
  return at ? [...parts, text.slice(at)] : null;
}

// Marks the words in headings, captions and sentences below an element; what rows and models wrote is left alone.
export async function mark(...places) {
  let found;
  try {
    found = await pattern();
  } catch (error) {
    if (error instanceof Refused || error instanceof TypeError) return;
    throw error;
  }
  for (const place of places) {
    const within = [...place.querySelectorAll(MARKED), ...(place.matches(MARKED) ? [place] : [])];
    for (const element of within.filter((one) => !one.closest("article, pre, code, .sort, .run"))) {
      const seen = new Set();
      const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT,
        (node) => node.parentElement.closest("button, a, pre, code") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
      const texts = [];
      while (walker.nextNode()) texts.push(walker.currentNode);
      for (const node of texts) {
        const parts = marked(node.data, found.keys, seen) || marked(node.data, found.terms, seen);
        if (parts) node.replaceWith(...parts);
      }
    }
  }
}

// What `hone explain` says, laid out: paragraphs, parts with their headings, listings; names of keys lead on.
export async function show(place, name) {
  let text, keys;
  try {
    [{ text }, { keys }] = await Promise.all([ask("api/word", { name }), pattern()]);
  } catch (error) {
    if (!(error instanceof Refused) && !(error instanceof TypeError)) throw error;
    place.replaceChildren(make("p", {}, error.message));
    return;
  }
  const linked = (line) => marked(line, keys, new Set([name])) || [line];
  const blocks = text.split(/\n{2,}/);
  if (/^[^:\n]+ \([^()\n]+\)$/.test(blocks[0])) blocks.shift(); // the title of a concept, which stands above
  place.replaceChildren(...blocks.map((block) => laidOut(block, linked)));
}

function laidOut(block, linked) {
  const lines = block.split("\n");
  const isPart = (line) => /^ {2}\S.{0,9} {2,}\S/.test(line) && line.search(/\S/, 2) < 14;
  if (lines.every((line) => line.startsWith("      ")) || lines.some((line) => !isPart(line) && /\S {3,}\S/.test(line))) {
    return make("pre", { tabindex: "0" }, block);
  }
  if (!lines.some(isPart)) return make("p", {}, ...linked(lines.map((line) => line.trim()).join(" ")));
  const parts = [];
  for (const line of lines) {
    const [, head, rest] = /^ {2}(\S.{0,10}?) {2,}(\S.*)$/.exec(line) || [];
    if (head) parts.push([head, rest]);
    else if (parts.length) parts.at(-1)[1] += ` ${line.trim()}`;
  }
  return make("dl", {}, ...parts.flatMap(([head, rest]) => [make("dt", {}, head), make("dd", {}, ...linked(rest))]));
}

export async function learn(place, { word: first = "" }, context) {
  const search = make("input", { type: "search", placeholder: "a word or a key", "aria-label": "Search words and keys", input: () => draw() });
  const list = make("nav", { "aria-label": "Words and keys", class: "words" });
  const text = make("div", { class: "prose", "aria-live": "polite" });
  const title = make("h2", { id: "explained" }, "What a word means");
  const article = make("section", { "aria-labelledby": "explained" }, title, text);
  text.append(make("p", {}, "Choose a word, or a key of the settings. On the other pages dotted words explain themselves where they stand."));
  place.append(make("h1", {}, "Learn"), make("div", { class: "tools" }, search), make("div", { class: "beside" }, list, article));
  let found = null, chosen = "";

  function open(name, heading, scroll = true) {
    chosen = name;
    title.textContent = heading;
    history.replaceState(null, "", `#/learn?${new URLSearchParams({ word: name })}`);
    show(text, name);
    list.querySelectorAll("button").forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.name === name)));
    if (scroll && article.getBoundingClientRect().top > innerHeight / 2) article.scrollIntoView();
  }

  const entry = (name, heading, what) => make("li", {}, make("button", { type: "button", class: "entry", "data-name": name, title: what,
    "aria-pressed": String(chosen === name), click: () => open(name, heading) }, heading));

  function draw() {
    const wanted = search.value.trim().toLowerCase().replaceAll("-", " ");
    const has = (...texts) => texts.some((one) => one.toLowerCase().replaceAll("-", " ").replaceAll("_", " ").includes(wanted.replaceAll("_", " ")));
    const blocks = [];
    for (const group of [...new Set(found.concepts.map((one) => one.group))]) {
      const members = found.concepts.filter((one) => one.group === group && has(one.title, ...one.words));
      if (members.length) blocks.push(make("h2", {}, group), make("ul", {}, ...members.map((one) => entry(one.title, one.title, one.what))));
    }
    const above = blocks.length;
    for (const [section, what] of Object.entries(found.sections)) {
      const members = found.keys.filter((one) => one.section === section && has(one.key, one.what));
      if (members.length) {
        blocks.push(make("details", { open: wanted !== "" }, make("summary", {}, `${section}: `, make("span", {}, what)),
          make("ul", {}, ...members.map((one) => entry(one.key, one.key, one.what)))));
      }
    }
    if (blocks.length > above) blocks.splice(above, 0, make("h2", {}, "Keys of the settings"));
    list.replaceChildren(...(blocks.length ? blocks : [make("p", {}, "Nothing has this in its name.")]));
  }

  context.every(60_000, async () => {
    if (found) return;
    found = await words();
    draw();
    if (first) open(first, found.concepts.find((one) => one.words.includes(first.toLowerCase()))?.title || first, false);
  });
}
