"use strict";
// The data of a run: its exchanges, its messages and its frames.

const run = data.run;
const exchanges = data.exchanges;
const messages = data.messages;
const frames = { t: [], x: [], k: [], b: [], n: [] }; // t: microseconds since the run began
let kinds = data.kinds;
let total = 0;
const blocks = new Map(); // "exchange/block" -> numbers of its frames
const texts = new Map(); // "exchange/block" -> the message that shows it

const firstOf = new Map(); // exchange -> its first message

function takeFrames(columns) {
  const [gaps, of, kind, block, size] = columns;
  let at = frames.t.length ? frames.t[frames.t.length - 1] : 0;
  for (let i = 0; i < gaps.length; i++) {
    at += gaps[i];
    const number = frames.t.length;
    frames.t.push(at); frames.x.push(of[i]); frames.k.push(kind[i]); frames.b.push(block[i]); frames.n.push(size[i]);
    if (block[i] >= 0) {
      const key = `${of[i]}/${block[i]}`;
      if (!blocks.has(key)) blocks.set(key, []);
      blocks.get(key).push(number);
    }
  }
}
function takeMessages(from) {
  for (let number = from; number < messages.length; number++) {
    const message = messages[number];
    if (message.x !== null && !firstOf.has(message.x)) firstOf.set(message.x, number);
    if (message.block !== undefined) texts.set(`${message.x}/${message.block}`, number);
  }
}
function takeTotal(value) { total = Math.max(value, 1); }

takeFrames(data.frames);
takeMessages(0);
takeTotal(data.total);
