"use strict";
// What is shown was written by a model, or by whoever wrote to it: it becomes text nodes and nothing else.

const data = JSON.parse(document.getElementById("data").textContent);
const LONG = 20000; // characters of one text that are shown at once

function el(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Controls and marks that reorder text are shown instead of obeyed.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/;
const UNSEEN_ALL = new RegExp(UNSEEN.source, "g");

function textNodes(text) {
  if (!UNSEEN.test(text)) return [document.createTextNode(text)];
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(UNSEEN_ALL)) {
    if (match.index > at) nodes.push(document.createTextNode(text.slice(at, match.index)));
    const code = match[0].codePointAt(0);
    nodes.push(el("span", { class: "escape" }, code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`));
    at = match.index + 1;
  }
  nodes.push(document.createTextNode(text.slice(at)));
  return nodes;
}

// A text with what is searched for marked in it.
function marked(text, wanted) {
  if (!wanted) return textNodes(text);
  const nodes = [], lower = text.toLowerCase();
  let at = 0;
  for (let found = lower.indexOf(wanted); found >= 0 && nodes.length < 2000; found = lower.indexOf(wanted, at)) {
    nodes.push(...textNodes(text.slice(at, found)), el("mark", {}, ...textNodes(text.slice(found, found + wanted.length))));
    at = found + wanted.length;
  }
  nodes.push(...textNodes(text.slice(at)));
  return nodes;
}

// The text in an element; of a very long one the beginning, and a button for the rest.
function fill(element, text, wanted) {
  element.replaceChildren(...marked(text.slice(0, LONG), wanted));
  if (text.length > LONG) {
    element.append(el("span", { class: "quiet" }, "… "), el("button", {
      class: "noprint", onclick: () => element.replaceChildren(...marked(text, wanted)),
    }, `Show all ${text.length.toLocaleString("en")} characters`));
  }
  return element;
}

// A tree that was made from Markdown or code: [tag, attributes, ...nodes], or a text.
const TAGS = new Set("p h4 h5 h6 ul ol li blockquote pre code em strong s a hr br table thead tbody tr th td span".split(" "));
const ATTRIBUTES = new Set(["class", "href", "title", "rel", "target", "start"]);
function treeNodes(nodes, wanted) {
  return nodes.flatMap((node) => {
    if (typeof node === "string") return marked(node, wanted);
    const [tag, attributes, ...inside] = node, children = treeNodes(inside, wanted);
    if (!TAGS.has(tag) || (attributes.href !== undefined && !/^(https?:\/\/|mailto:)/.test(attributes.href))) return children;
    const kept = Object.fromEntries(Object.entries(attributes).filter(([name]) => ATTRIBUTES.has(name)));
    if (tag === "pre") Object.assign(kept, { tabindex: "0", dir: "ltr" });
    else if (/^(p|li|h\d|t[hd])$/.test(tag)) kept.dir = "auto";
    return [el(tag, kept, ...children)];
  });
}
// JSON with its keys, texts, numbers and words in colours.
const JSON_TOKEN = /("(?:[^"\\\n]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g;
function jsonNodes(text, wanted) {
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(JSON_TOKEN)) {
    nodes.push(...marked(text.slice(at, match.index), wanted));
    const [token, string, colon] = match, of = string === undefined ? (/^[tfn]/.test(token) ? "k" : "n") : colon ? "f" : "s";
    nodes.push(el("span", { class: of }, ...marked(string ?? token, wanted)), ...(colon ? [colon] : []));
    at = match.index + token.length;
  }
  return [...nodes, ...marked(text.slice(at), wanted)];
}
// Copy a text. A page that is no secure context has only the old way.
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = el("textarea", { "aria-label": "Copied text" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
function keysDialog(keys) {
  return el("dialog", { "aria-label": "Keys" }, el("form", { method: "dialog", class: "head" }, el("h2", {}, "Keys"), el("button", {}, "Close")),
    el("dl", {}, ...keys.flatMap(([names, said]) => [el("dt", {}, ...names.split(" ").map((name) => (name === "–" ? " – " : el("kbd", {}, name)))), el("dd", {}, said)])));
}
function toggle(dialog) { if (dialog.open) dialog.close(); else dialog.showModal(); }

// A moment in the time zone of the reader, as the command line prints it.
function localTime(iso) {
  const at = new Date(iso), two = (value) => String(value).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}
function dollars(cost) {
  if (cost === null || cost === undefined) return "?";
  if (cost > 0 && cost < 0.00005) return "<$0.0001";
  return cost >= 1 || cost === 0 ? `$${cost.toFixed(2)}` : `$${cost.toFixed(4)}`;
}
function chipOf(status) { return status === "completed" ? "good" : status === "running" ? "busy" : "bad"; }

function ms(us) {
  if (us === null || us === undefined) return "unknown";
  const value = us / 1000;
  return value < 1000 ? `${Math.round(value)} ms` : value < 60000 ? `${(value / 1000).toFixed(2)} s`
    : `${Math.floor(value / 60000)} min ${Math.round(value / 1000) % 60} s`;
}

function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

// A list of any length of which only the rows in view are in the document. Rows have one height.
class VirtualList {
  constructor(label, height, count, render) {
    this.height = height;
    this.count = count;
    this.render = render;
    this.shown = new Map();
    this.inner = el("ol", {});
    this.element = el("div", { class: "list", tabindex: "0", role: "region", "aria-label": label }, this.inner);
    this.element.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.element);
    this.resize(count);
  }
  resize(count) {
    this.count = count;
    this.inner.style.height = `${count * this.height}px`;
    this.draw();
  }
  refresh() {
    for (const row of this.shown.values()) row.remove();
    this.shown.clear();
    this.draw();
  }
  draw(all = false) {
    const first = all ? 0 : Math.max(0, Math.floor(this.element.scrollTop / this.height) - 5);
    const last = all ? this.count : Math.min(this.count, first + Math.ceil((this.element.clientHeight || 400) / this.height) + 10);
    for (const [number, row] of this.shown) {
      if (number < first || number >= last) {
        row.remove();
        this.shown.delete(number);
      }
    }
    for (let number = first; number < last; number++) {
      if (this.shown.has(number)) continue;
      const row = this.render(number);
      row.style.top = `${number * this.height}px`;
      row.style.height = `${this.height}px`;
      row.setAttribute("aria-setsize", this.count);
      row.setAttribute("aria-posinset", number + 1);
      this.shown.set(number, row);
      this.inner.append(row);
    }
  }
  reveal(number) {
    const top = number * this.height, view = this.element;
    if (top < view.scrollTop || top + this.height > view.scrollTop + view.clientHeight) {
      view.scrollTop = Math.max(0, top - view.clientHeight / 2);
    }
    this.draw();
  }
}

// Things of unknown height in the order of the page: made in chunks, each when it comes near the view.
class ChunkedList {
  constructor(element, render, size = 40) {
    this.element = element;
    this.render = render;
    this.size = size;
    this.made = [];
    this.count = 0;
    this.chunks = [];
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) this.make(Number(entry.target.dataset.chunk));
    }, { rootMargin: "1500px" });
    window.addEventListener("beforeprint", () => this.all());
  }
  resize(count) {
    while (this.chunks.length * this.size < count) {
      const chunk = el("div", { class: "chunk" });
      chunk.dataset.chunk = this.chunks.length;
      chunk.style.minHeight = `${Math.min(this.size, count - this.chunks.length * this.size) * 60}px`;
      this.chunks.push(chunk);
      this.element.append(chunk);
      this.observer.observe(chunk);
    }
    const before = this.count;
    this.count = count;
    const open = Math.floor(before / this.size);
    if (this.chunks[open] && this.chunks[open].dataset.made) this.make(open);
  }
  make(number) {
    const chunk = this.chunks[number];
    chunk.dataset.made = "yes";
    chunk.style.minHeight = "";
    for (let at = number * this.size; at < Math.min(this.count, (number + 1) * this.size); at++) {
      if (!this.made[at]) chunk.append(this.made[at] = this.render(at));
    }
  }
  at(number) {
    if (!this.made[number]) this.make(Math.floor(number / this.size));
    return this.made[number];
  }
  reset() {
    this.observer.disconnect();
    this.element.replaceChildren();
    this.made = [];
    this.chunks = [];
    this.count = 0;
  }
  all() {
    for (let number = 0; number < this.chunks.length; number++) this.make(number);
  }
}

// A search field over texts: says how many match and goes from one to the next.
class Search {
  constructor({ texts, show, clear }) {
    this.texts = texts;
    this.show = show;
    this.clear = clear;
    this.found = [];
    this.at = -1;
    this.wanted = "";
    this.input = el("input", {
      type: "search", placeholder: "Search", "aria-label": "Search", oninput: () => this.later(),
      onkeydown: (event) => { if (event.key === "Enter") this.go(event.shiftKey ? -1 : 1); },
    });
    this.said = el("span", { class: "quiet", role: "status", id: "found" });
    this.back = el("button", { "aria-label": "Previous match", onclick: () => this.go(-1), disabled: true }, "↑");
    this.next = el("button", { "aria-label": "Next match", onclick: () => this.go(1), disabled: true }, "↓");
    this.elements = [this.input, this.back, this.next, this.said];
  }
  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.run(), 150);
  }
  run() {
    this.wanted = this.input.value.toLowerCase();
    this.found = [];
    this.at = -1;
    if (this.wanted) this.texts().forEach((text, number) => { if (text.toLowerCase().includes(this.wanted)) this.found.push(number); });
    this.back.disabled = this.next.disabled = !this.found.length;
    this.clear(this.wanted);
    if (this.found.length) this.go(1);
    else this.said.textContent = this.wanted ? "nothing found" : "";
  }
  go(step) {
    if (this.timer && this.input.value.toLowerCase() !== this.wanted) { clearTimeout(this.timer); return this.run(); }
    if (!this.found.length) return;
    this.at = (this.at + step + this.found.length) % this.found.length;
    this.said.textContent = `${this.at + 1} of ${this.found.length}`;
    this.show(this.found[this.at], this.wanted);
  }
}

function typing(event) {
  return /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range";
}
