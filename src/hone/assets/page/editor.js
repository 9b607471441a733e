// A text field for settings: line numbers, mistakes at their lines, completion of keys and values.

import { make } from "./ask.js";

const SHOWN = 8; // proposals

// What stands before the cursor: a key that is being written, or a value; and in which section.
export function around(text, at) {
  const before = text.slice(0, at).split("\n");
  const line = before.pop();
  const whole = line + text.slice(at).split("\n", 1)[0];
  const key = /^\s*#?\s*(\w+):/.exec(whole)?.[1] || "";
  const indented = /^\s/.test(line);
  const section = indented ? before.findLast((one) => /^\w+:/.test(one))?.split(":")[0] || "" : "";
  const value = /^\s*(\w+):\s*(\w*)$/.exec(line);
  const started = /^\s*(\w*)$/.exec(line);
  return { key, section, indented, value: value && { key: value[1], begun: value[2] }, begun: started ? started[1] : null };
}

// What it may become: names that begin so, then names that have it in them.
export function proposals({ section, indented, value, begun }, keys, sections) {
  if (value) {
    const choices = keys.find((one) => one.key === value.key)?.choices || [];
    return ranked(choices, value.begun).map((text) => ({ text, begun: value.begun }));
  }
  if (begun === null || (begun.length < 2 && !indented) || begun.length < 1) return [];
  const names = indented ? keys.filter((one) => !section || one.section === section).map((one) => one.key) : sections;
  return ranked(names, begun).map((text) => ({ text: `${text}: `, begun }));
}

function ranked(names, begun) {
  const wanted = begun.toLowerCase();
  const found = names.filter((name) => name.includes(wanted) && name !== begun);
  return [...found.filter((name) => name.startsWith(wanted)), ...found.filter((name) => !name.startsWith(wanted))].slice(0, SHOWN);
}

// changed(text) after each change, moved(key) when the cursor comes to another key.
export class Editor {
  constructor(label, changed, moved) {
    this.changed = changed;
    this.moved = moved;
    this.keys = [];
    this.sections = [];
    this.wrong = new Set();
    this.key = "";
    this.dismissed = false;
    this.gutter = make("pre", { class: "gutter", "aria-hidden": "true" });
    this.area = make("textarea", { "aria-label": label, spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off",
      "aria-describedby": "editor-hint", input: () => { this.dismissed = false; this.update(); this.changed(this.area.value); },
      scroll: () => { this.gutter.scrollTop = this.area.scrollTop; }, keydown: (event) => this.pressed(event),
      keyup: () => this.look(), click: () => this.look() });
    this.offers = make("div", { class: "offers", role: "group", "aria-label": "Completions" });
    this.element = make("div", { class: "editor" }, make("div", { class: "lines" }, this.gutter, this.area), this.offers,
      make("p", { id: "editor-hint", class: "note" }, "While names are proposed, Tab takes the first and Escape sends them away."));
  }

  get text() { return this.area.value; }

  set text(text) {
    this.area.value = text;
    this.area.setSelectionRange(0, 0);
    this.area.scrollTop = 0;
    this.update();
  }

  mark(lines) {
    this.wrong = new Set(lines);
    this.update();
  }

  goTo(line) {
    const at = this.text.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    this.area.focus();
    this.area.setSelectionRange(at, at);
    this.look();
  }

  update() {
    const n = this.text.split("\n").length;
    const parts = Array.from({ length: n }, (_, i) =>
      this.wrong.has(i + 1) ? make("b", {}, `${i + 1}\n`) : `${i + 1}\n`);
    this.gutter.replaceChildren(...parts);
    this.gutter.scrollTop = this.area.scrollTop;
    this.look();
  }

  look() {
    const place = around(this.text, this.area.selectionStart);
    this.found = this.dismissed || document.activeElement !== this.area ? [] : proposals(place, this.keys, this.sections);
    this.offers.replaceChildren(...this.found.map((one) => make("button", { type: "button", click: () => this.take(one) }, one.text.replace(/: $/, ""))));
    if (place.key !== this.key) {
      this.key = place.key;
      this.moved(place.key);
    }
  }

  take({ text, begun }) {
    const at = this.area.selectionStart;
    this.area.focus();
    this.area.setRangeText(text, at - begun.length, at, "end");
    this.update();
    this.changed(this.text);
  }

  pressed(event) {
    if (event.key === "Escape" && this.found?.length) {
      event.preventDefault();
      this.dismissed = true;
      this.look();
    } else if (event.key === "Tab" && !event.shiftKey && this.found?.length) {
      event.preventDefault();
      this.take(this.found[0]);
    } else if (event.key === "Enter") { // the next line begins where this one does
      const begin = this.area.selectionStart;
      const line = this.text.slice(0, begin).split("\n").pop();
      const indent = /^\s*/.exec(line)[0] + (/^\w+:\s*$/.test(line) ? "  " : "");
      if (!indent) return;
      event.preventDefault();
      this.area.setRangeText(`\n${indent}`, begin, this.area.selectionEnd, "end");
      this.update();
      this.changed(this.text);
    }
  }
}
