// Asking the server, and making elements. Text goes in as text: nothing that a row or a model wrote becomes markup.

const KEPT = "hone-token";

// The token stands behind # in the printed address: it is sent to no server, and taken out of the address bar.
export function takeToken() {
  const given = /^#token=([0-9A-Za-z]+)/.exec(location.hash);
  if (given) {
    localStorage.setItem(KEPT, given[1]);
    history.replaceState(null, "", location.pathname + "#/");
  }
}

function headers() {
  return { "content-type": "application/json", "x-hone-token": localStorage.getItem(KEPT) || "" };
}

export class Refused extends Error {}

// What a path answers, as JSON. Throws Refused with the server's words; a TypeError where the server is gone.
export async function ask(path, values = {}) {
  const query = new URLSearchParams(values).toString();
  return read(await fetch(query ? `${path}?${query}` : path, { headers: headers() }));
}

export async function act(path, values = {}, body = {}) {
  return read(await fetch(`${path}?${new URLSearchParams(values)}`, { method: "POST", headers: headers(), body: JSON.stringify(body) }));
}

async function read(answer) {
  const text = await answer.text();
  let found = {};
  try { found = JSON.parse(text); } catch { /* a server that is busy says so in plain text */ }
  if (!answer.ok) throw new Refused(typeof found.error === "string" ? found.error : found.error?.message || text || answer.statusText);
  return found;
}

// Each piece of an answer of OpenAI's API as it comes.
export async function* streamed(path, values, body, signal) {
  const answer = await fetch(`${path}?${new URLSearchParams(values)}`,
    { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!answer.ok) await read(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (left + value).split("\n");
    left = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

// make("p", {class: "note"}, "text", child): an element; functions among the attributes listen to their event.
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// Sections that the server has made and escaped: the report's own, from the same templates.
export function sections(html) {
  const place = make("div", { class: "sections" });
  place.innerHTML = html;
  return place;
}

// Where a view is, with its values.
export const link = (view, values) => `#/${view}?${new URLSearchParams(values)}`;

export const field = (label, element) => make("label", {}, make("span", {}, label), element);

export const number = (value, digits = 3) =>
  value == null ? "–" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en")
    : value !== 0 && digits > 0 && Math.abs(value) < 0.01 ? value.toPrecision(3) : value.toFixed(digits);

export function duration(seconds) {
  if (seconds == null) return "–";
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  const m = Math.floor(s / 60);
  return m < 60 ? `${m} min ${s % 60} s` : `${Math.floor(m / 60)} h ${m % 60} min`;
}
