// Which view is shown: the part of the address behind #. A view is a function that fills a place and returns how to end.

import { make, Refused, takeToken } from "./ask.js";
import { compare } from "./compare.js";
import { data } from "./data.js";
import { learn, show as showWord } from "./learn.js";
import { begin } from "./new.js";
import { play } from "./play.js";
import { run } from "./run.js";
import { runs } from "./runs.js";

const VIEWS = { "": runs, run, compare, play, data, learn, new: begin };
const main = document.getElementById("main");
const state = document.getElementById("state");
let end = () => {};

function say(text, bad = false) {
  if (state.textContent !== text) state.textContent = text;
  state.classList.toggle("bad", bad);
}

// Do it now and every so often while the view is shown and the page can be seen; a server that is gone is waited for.
function every(milliseconds, work) {
  let timer, stopped = false;
  async function turn() {
    if (!document.hidden) {
      try {
        await work();
        say("");
      } catch (error) {
        if (error instanceof Refused) say(error.message, true);
        else if (error instanceof TypeError) say("the server does not answer: waiting for it", true);
        else throw error;
      }
    }
    if (!stopped) timer = setTimeout(turn, milliseconds);
  }
  const seen = () => { if (!document.hidden && !stopped) { clearTimeout(timer); turn(); } };
  document.addEventListener("visibilitychange", seen);
  turn();
  return () => { stopped = true; clearTimeout(timer); document.removeEventListener("visibilitychange", seen); };
}

function show() {
  if (!location.hash.startsWith("#/")) return; // the link to the content
  end();
  const [name, query = ""] = location.hash.slice(2).split("?");
  const values = Object.fromEntries(new URLSearchParams(query));
  for (const one of document.querySelectorAll(".top nav a")) {
    if (one.getAttribute("href") === `#/${name}`) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  document.title = values.run ? `${values.run} · hone` : "hone";
  const place = make("div", { class: `view view-${name || "runs"}` });
  main.replaceChildren(place);
  const ends = [];
  const context = { every: (ms, work) => ends.push(every(ms, work)), atEnd: (work) => ends.push(work), say };
  end = () => ends.splice(0).forEach((one) => one());
  (VIEWS[name] || runs)(place, values, context);
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

// A word of the field explains itself where it stands.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-word]");
  if (!button) return;
  const dialog = document.getElementById("word");
  document.getElementById("word-title").textContent = button.textContent;
  showWord(document.getElementById("word-text"), button.dataset.word);
  const more = document.getElementById("word-more");
  more.href = `#/learn?${new URLSearchParams({ word: button.dataset.word })}`;
  if (!dialog.open) dialog.showModal();
});
document.getElementById("word-more").addEventListener("click", () => document.getElementById("word").close());

takeToken();
if (!location.hash.startsWith("#/")) history.replaceState(null, "", "#/");
addEventListener("hashchange", show);
show();
