"use strict";
const KEPT = 2; // equal rows that stay in view before and after a difference

// All rows in the order of the page, streams one after the other.
const rows = [];
data.streams.forEach((stream, number) => stream.rows.forEach((row) => rows.push({ ...row, stream: number })));
const different = rows.flatMap((row, number) => (row.k === "equal" || row.ignored ? [] : [number]));

let wanted = "";
function woven(stretches, side) {
  const element = el("div", { class: "said", dir: "auto" });
  const skipped = side === "a" ? "added" : "removed";
  const shown = stretches.filter(([tag]) => tag !== skipped);
  const size = shown.reduce((all, [, text]) => all + text.length, 0);
  const put = (limit) => {
    element.replaceChildren();
    let left = limit;
    for (const [tag, text] of shown) {
      if (left <= 0) break;
      const nodes = marked(text.slice(0, left), wanted);
      left -= text.length;
      if (tag === "equal") element.append(...nodes);
      else element.append(el(tag === "removed" ? "del" : "ins", {}, ...nodes));
    }
    if (left < 0) element.append(el("span", { class: "quiet" }, "… "), el("button", { class: "noprint", onclick: () => put(Infinity) }, `Show all ${size.toLocaleString("en")} characters`));
  };
  put(LONG);
  return element;
}
function cell(row, side) {
  const here = row[side] !== undefined;
  if (!here) return el("div", { class: "cell none" }, side === "a" ? "not in A" : "not in B");
  if (row.k === "changed") {
    const element = el("div", { class: "cell" });
    if (row.woven) element.append(woven(row.woven, side));
    for (const place of row.places) element.append(el("span", { class: "path" }, ...textNodes(place.path)), woven(place.woven, side));
    return element;
  }
  const only = row.a === undefined || row.b === undefined;
  const said = fill(el(only ? (side === "a" ? "del" : "ins") : "div", { class: "said", dir: "auto" }), row.text, wanted);
  if (only) said.style.cssText = "display: block; background: none; color: inherit; text-decoration: none";
  return el("div", { class: `cell${only ? (side === "a" ? " gone" : " new") : ""}` }, said);
}
// Rows of a turn stand together, under its number.
function turnOf(row) { return row.a === undefined ? `Turn ${row.b}` : row.b === undefined || row.a === row.b ? `Turn ${row.a}` : `Turn ${row.a} | ${row.b}`; }
const TELL = { changed: "changed", added: "only in B", removed: "only in A", moved: "moved" };
function drawRow(number) {
  const row = rows[number];
  const turns = turnOf(row), before = rows[number - 1], begins = !before || before.stream !== row.stream || turnOf(before) !== turns || blocks.some((block) => block.from === number);
  const element = el("div", { class: `row ${row.k}${begins ? " begins" : ""}`, role: "group", tabindex: "-1" },
    el("h3", {}, begins ? el("span", { class: "turn" }, turns) : null, ...textNodes(row.name), row.k === "equal" ? null : el("span", { class: `chip ${row.k === "removed" ? "bad" : row.k === "added" ? "good" : "busy"}` }, TELL[row.k] + (row.ignored ? ", ignored" : ""))),
    cell(row, "a"), cell(row, "b"));
  return element;
}

// What is on the page: differences with a little around them; long stretches of equal rows are folded until asked for.

const blocks = []; // [from, to, folded]
function layOut() {
  const near = new Uint8Array(rows.length + 1);
  for (const number of different) for (let at = Math.max(0, number - KEPT); at <= Math.min(rows.length - 1, number + KEPT); at++) if (rows[at].stream === rows[number].stream) near[at] = 1;
  let from = 0;
  for (let at = 1; at <= rows.length; at++) {
    const last = at === rows.length;
    if (last || near[at] !== near[from] || rows[at].stream !== rows[from].stream) {
      blocks.push({ from, to: at, folded: !near[from] && at - from > KEPT, stream: rows[from].stream });
      from = at;
    }
  }
}
if (rows.length) layOut();
const body = el("div", { id: "rows" });
function open(block) {
  if (block.list) return;
  block.fold?.remove();
  block.list = new ChunkedList(block.element, (at) => drawRow(block.from + at));
  block.list.resize(block.to - block.from);
}
let stream = -1;
for (const block of blocks) {
  if (block.stream !== stream && data.streams.length > 1) {
    const counted = data.counted[block.stream];
    const said = Object.entries(counted).filter(([, count]) => count).map(([kind, count]) => `${count.toLocaleString("en")} ${kind}`).join(", ");
    body.append(el("h2", {}, ...textNodes(data.streams[block.stream].label || `stream ${block.stream + 1}`), " ", el("span", { class: "quiet" }, said)));
  }
  stream = block.stream;
  block.element = el("div", {});
  body.append(block.element);
  if (block.folded) {
    block.fold = el("button", { class: "fold", onclick: () => open(block) }, `${plural(block.to - block.from, "item")} the same: show`);
    block.element.append(block.fold);
  } else open(block);
}
function show(number) {
  const block = blocks.find((other) => number < other.to);
  open(block);
  for (const other of document.querySelectorAll(".row.here")) other.classList.remove("here");
  const element = block.list.at(number - block.from);
  element.classList.add("here");
  element.focus({ preventScroll: true });
  element.scrollIntoView({ block: "center" });
  return element;
}
window.addEventListener("beforeprint", () => { if (rows.length <= 5000) blocks.forEach(open); });

let at = -1;
const said = el("span", { class: "quiet", role: "status", id: "place" }, different.length ? plural(different.length, "different item") : "nothing differs");
function go(step) {
  if (!different.length) return;
  at = at < 0 && step < 0 ? different.length - 1 : (at + step + different.length) % different.length;
  said.textContent = `difference ${at + 1} of ${different.length}`;
  show(different[at]);
}
const search = new Search({
  texts: () => rows.map((row) => [row.name, row.text, ...(row.woven || []).map((w) => w[1]), ...(row.places || []).flatMap((p) => [p.path, ...p.woven.map((w) => w[1])])].join(" ")),
  clear: (text) => {
    wanted = text;
    for (const block of blocks) for (const number of Object.keys(block.list?.made || {})) {
      const fresh = drawRow(block.from + Number(number));
      block.list.made[number].replaceWith(fresh);
      block.list.made[number] = fresh;
    }
  },
  show: (number) => { const held = document.activeElement; show(number); held.focus({ preventScroll: true }); },
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && event.target === search.input) return search.input.blur();
  if (typing(event)) return;
  const action = { n: () => go(1), j: () => go(1), p: () => go(-1), k: () => go(-1), "/": () => search.input.focus() }[event.key];
  if (action) { event.preventDefault(); action(); }
});

const totals = el("table", {}, el("caption", { class: "hidden" }, "Totals"), el("thead", {}, el("tr", {}, el("td", {}), ...["A", "B"].map((name) => el("th", { scope: "col", class: "n" }, name)))),
  el("tbody", {}, ...data.totals.map((total) => el("tr", {}, el("th", { scope: "row" }, total.name), el("td", { class: "n" }, total.a), el("td", { class: `n${total.differs ? " differs" : ""}` }, total.b), el("td", { class: "quiet" }, total.counts ? (total.differs ? "differs" : "") : "not counted")))));
document.body.append(
  el("header", {}, data.home ? el("p", { class: "noprint" }, el("a", { href: data.home }, "All runs")) : null,
    el("h1", { id: "verdict", class: data.same ? "same" : null }, data.summary),
    el("div", { class: "sides" }, el("div", {}, el("b", {}, "A"), ...textNodes(data.a.title)), el("div", {}, el("b", {}, "B"), ...textNodes(data.b.title))),
    data.first ? el("p", { class: "quiet" }, "First divergence: ", ...textNodes(data.first)) : null,
    data.unknown.length ? el("p", { class: "quiet" }, `Not compared, as only one side says it: ${data.unknown.join(", ")}`) : null),
  el("section", { class: "bar", "aria-label": "Controls" }, el("div", { role: "toolbar", "aria-label": "Differences" },
    el("button", { id: "previous", onclick: () => go(-1), disabled: !different.length, "aria-keyshortcuts": "p" }, "↑ Previous"), el("button", { id: "next", onclick: () => go(1), disabled: !different.length, "aria-keyshortcuts": "n" }, "↓ Next"), said,
    el("fieldset", { class: "group" }, ...search.elements))),
  el("main", {}, el("section", { class: "panel", "aria-label": "Streams" }, el("h2", { class: "hidden" }, "Items"), body), el("section", { class: "panel", tabindex: "0", "aria-label": "Totals" }, el("h2", {}, "Totals"), totals)),
  el("footer", {}, el("kbd", {}, "n"), el("kbd", {}, "p"), " next and previous difference  ", el("kbd", {}, "/"), " search"));
