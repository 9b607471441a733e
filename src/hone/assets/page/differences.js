// What one text has and another has not: word by word, by their longest common part.

import { make } from "./ask.js";

const MOST = 1500; // words of each: the table has the product of both

// The text, with what the other lacks in elements of this name.
export function differences(text, other, name) {
  const [ours, theirs] = [text, other].map((one) => one.match(/\s+|\w+|[^\s\w]/g) || []);
  if (ours.length > MOST || theirs.length > MOST) return [text];
  const width = theirs.length + 1;
  const lengths = new Uint16Array((ours.length + 1) * width); // of the longest common part from here on
  for (let i = ours.length - 1; i >= 0; i -= 1) {
    for (let k = theirs.length - 1; k >= 0; k -= 1) {
      lengths[i * width + k] = ours[i] === theirs[k] ? lengths[(i + 1) * width + k + 1] + 1
        : Math.max(lengths[(i + 1) * width + k], lengths[i * width + k + 1]);
    }
  }
  const parts = [];
  const add = (word, isOurs) => {
    const last = parts.at(-1);
    if (last && last[1] === isOurs) last[0] += word; else parts.push([word, isOurs]);
  };
  let k = 0;
  for (let i = 0; i < ours.length; i += 1) {
    while (k < theirs.length && ours[i] !== theirs[k] && lengths[i * width + k + 1] >= lengths[(i + 1) * width + k]) k += 1;
    if (k < theirs.length && ours[i] === theirs[k]) { add(ours[i], false); k += 1; }
    else add(ours[i], true);
  }
  return parts.map(([part, isOurs]) => isOurs && part.trim() ? make(name, {}, part) : part);
}
