"use strict";
const NAMES = {
  prompt: "Prompt", text: "Assistant", thinking: "Thinking", tool_use: "Tool call", tool_result: "Tool result", init: "Session",
  result: "Result", system: "System", request: "Request", history: "Earlier answer", server_tool_use: "Server tool call",
  session: "Options",
};
const FOLDED = new Set(["init", "result", "system", "request", "history", "session"]);

const run = data.run;
const exchanges = data.exchanges;
const messages = data.messages;
const frames = { t: [], x: [], k: [], b: [], n: [] }; // t: microseconds since the run began
let kinds = data.kinds;
let total = 0;
const blocks = new Map(); // "exchange/block" -> numbers of its frames
const texts = new Map(); // "exchange/block" -> the message that shows it

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
    if (message.block !== undefined) texts.set(`${message.x}/${message.block}`, number);
  }
}
function takeTotal(value) { total = Math.max(value, 1); }

takeFrames(data.frames);
takeMessages(0);
takeTotal(data.total);

// The head of the page

const facts = el("ul", { class: "facts" });
const status = el("span", { class: "chip" });
function sum(name) { return exchanges.reduce((all, x) => all + ((x.usage && x.usage[name]) || 0), 0); }
function drawFacts() {
  status.textContent = run.status;
  status.className = `chip ${run.status === "completed" ? "good" : run.status === "running" ? "busy" : "bad"}`;
  const costs = exchanges.filter((x) => x.usage).map((x) => x.cost);
  const cost = costs.length && costs.every((c) => c !== null) ? `$${costs.reduce((a, b) => a + b, 0).toFixed(6).replace(/0+$/, "").replace(/\.$/, "")}` : "unknown";
  const first = exchanges.find((x) => x.first !== null);
  facts.replaceChildren(...[
    ["Mode", run.mode], ["Started", run.started.replace("T", " ").replace(/\.\d+Z$/, " UTC")], ["Took", ms(total)],
    ["First token", first ? ms(first.first - first.t) : "unknown"], ["Requests", exchanges.length.toLocaleString("en")],
    ["Frames", frames.t.length.toLocaleString("en")], ["Tokens in", sum("input_tokens").toLocaleString("en")],
    ["Tokens out", sum("output_tokens").toLocaleString("en")], ["Cost", cost], ["Run", run.run],
  ].map(([name, value]) => el("li", {}, `${name} `, el("b", {}, value))));
  problem.hidden = !run.error;
  fill(problem, run.error || "", "");
}
const problem = el("p", { class: "chip bad", role: "alert" });

// The timeline: a lane for each request, and for each tool from its call to its result

let lanes = [];
function makeLanes() {
  const results = new Map(messages.filter((m) => m.kind === "tool_result").map((m) => [m.use, m]));
  lanes = exchanges.map((x, number) => ({ kind: "request", start: x.t, first: x.first, end: x.end ?? total, x, number }));
  messages.forEach((m, number) => {
    if (m.kind !== "tool_use") return;
    const result = results.get(m.use);
    lanes.push({ kind: "tool", start: m.t, first: m.t, end: result ? result.t : m.t, name: m.title, failed: result && result.error, number, result });
  });
  lanes.sort((a, b) => a.start - b.start || (a.kind === "request" ? -1 : 1));
}
const percent = (us) => `${Math.min(100, Math.max(0, (us / total) * 100))}%`;

function laneRow(at) {
  const lane = lanes[at], track = el("span", { class: "track", "aria-hidden": "true" });
  const piece = (name, from, to) => {
    const bar = el("span", { class: name });
    bar.style.left = percent(from);
    bar.style.width = `${Math.max(0, ((to - from) / total) * 100)}%`;
    track.append(bar);
  };
  let name, said, bad = false;
  if (lane.kind === "tool") {
    bad = lane.failed;
    name = `⚙ ${lane.name}`;
    said = `tool ${lane.name}, ${lane.result ? `result after ${ms(lane.end - lane.start)}${bad ? ", an error" : ""}` : "no result"}`;
    piece("stream", lane.start, lane.end);
  } else {
    const x = lane.x;
    bad = !(x.ending === "complete" || x.ending === "closed" || x.ending === null);
    const attempt = x.attempt > 1 ? `, attempt ${x.attempt}` : "";
    name = `${bad ? "✗ " : ""}${lane.number + 1} ${x.model || x.uri.replace(/^[a-z]+:\/\/[^/]*/, "")}${attempt}`;
    const end = x.end === null ? "still open" : bad ? `${x.ending.replace("_", " ")}${x.status >= 400 ? ` ${x.status}` : ""} after ${ms(x.end - x.t)}` : `${x.stop || x.ending} after ${ms(x.end - x.t)}`;
    said = `request ${lane.number + 1}${attempt}, ${x.model || x.method + " " + x.uri}, first token ${x.first === null ? "never" : `after ${ms(x.first - x.t)}`}, ${plural(x.frames, "frame")}, ${end}`;
    piece("wait", x.t, x.first ?? lane.end);
    if (x.first !== null) piece("stream", x.first, lane.end);
  }
  const row = el("li", { class: `lane ${lane.kind}${bad ? " bad" : ""}`, title: said, onclick: () => { seek(lane.kind === "tool" ? lane.start : lane.x.t); showMessage(lane.kind === "tool" ? lane.number : messages.findIndex((m) => m.x === lane.number)); } },
    el("span", { class: "name", "aria-hidden": "true" }, ...textNodes(name)), track, el("span", { class: "hidden" }, ...textNodes(said)));
  if (lane.kind === "request" && lane.x.frames) requestAnimationFrame(() => drawFrames(track, lane));
  return row;
}
// Where frames came, as gaps in the bar of the stream: what is empty was silence.
function drawFrames(track, lane) {
  const canvas = el("canvas", {}), width = Math.max(1, track.clientWidth), scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = 14 * scale;
  const pen = canvas.getContext("2d");
  pen.fillStyle = getComputedStyle(document.body).getPropertyValue("--paper");
  const spots = new Set();
  for (const number of framesOf(lane.number)) spots.add(Math.round((frames.t[number] / total) * width * scale));
  const room = ((lane.end - (lane.first ?? lane.start)) / total) * width * scale;
  if (spots.size > room * 0.5) return; // no room for a gap between them
  for (const spot of spots) pen.fillRect(spot, 0, Math.max(1, scale / 2), 14 * scale);
  track.append(canvas);
}
let byExchange = null;
function framesOf(number) {
  if (byExchange === null) {
    byExchange = [];
    frames.x.forEach((x, at) => (byExchange[x] ||= []).push(at));
  }
  return byExchange[number] || [];
}
const timeline = new VirtualList("Timeline", 24, 0, laneRow);
const scale = el("div", {});
function drawTimeline() {
  makeLanes();
  byExchange = null;
  scale.replaceChildren(...[0, 0.25, 0.5, 0.75, 1].map((share) => {
    const tick = el("span", {}, ms(total * share));
    tick.style.left = `${share * 100}%`;
    return tick;
  }));
  timeline.resize(lanes.length);
  timeline.refresh();
}
const head = el("div", { id: "head" });
window.addEventListener("beforeprint", () => { if (lanes.length <= 2000) timeline.draw(true); });

// The conversation

let wanted = "";
const conversation = el("div", { id: "conversation" });
function article(number) {
  const message = messages[number];
  const where = [message.step, message.task].filter(Boolean).join(" / ");
  const name = `${NAMES[message.kind] || message.kind}${message.title ? ` ${message.title}` : ""}${message.incomplete ? " (incomplete)" : ""}${message.error ? " (error)" : ""}`;
  const said = el("div", { class: `said${message.kind === "text" || message.kind === "prompt" || message.kind === "thinking" ? " prose" : ""}`, dir: "auto" });
  fill(said, message.text, wanted);
  const body = FOLDED.has(message.kind) ? el("details", { open: message.kind === "prompt" }, el("summary", {}, brief(message)), said) : said;
  const element = el("article", { class: `${KNOWN.has(message.kind) ? message.kind : "other"}${message.error || message.incomplete ? " bad" : ""}`, tabindex: "-1" },
    el("h3", {}, el("span", {}, ...textNodes(name)), where ? el("span", {}, ...textNodes(where)) : null, el("span", { class: "t" }, ms(message.start))), body);
  element.said = said;
  element.hidden = message.start > now;
  return element;
}
const KNOWN = new Set(Object.keys(NAMES));
function brief(message) {
  return { init: "Tools, model and permissions", result: "Totals of the session", request: "Model, system prompt, tools and options", session: "Options of the session" }[message.kind] || "Show";
}
let chunks = null;
function showMessage(number) {
  if (number < 0) return;
  const element = chunks.at(number);
  for (const other of document.querySelectorAll("article.here")) other.classList.remove("here");
  const folded = element.querySelector("details");
  if (folded) folded.open = true;
  element.classList.add("here");
  element.scrollIntoView({ block: "center" });
  return element;
}

// Frames

function frameText(number) {
  const key = `${frames.x[number]}/${frames.b[number]}`, of = texts.get(key);
  if (!frames.n[number] || of === undefined) return "";
  let before = 0;
  for (const other of blocks.get(key)) { if (other === number) break; before += frames.n[other]; }
  const message = messages[of];
  return (message.raw ?? message.text).slice(before, before + frames.n[number]).replace(/\n/g, "⏎");
}
function frameRow(number) {
  const gap = number ? frames.t[number] - frames.t[number - 1] : frames.t[0];
  return el("li", { class: `frame${number === frameNow ? " now" : ""}`, onclick: () => seek(frames.t[number]) },
    el("span", {}, (frames.t[number] / 1000).toFixed(1)), el("span", {}, `+${(gap / 1000).toFixed(1)}`),
    el("span", {}, el("span", { class: "quiet" }, `${kinds[frames.k[number]].replace(/^content_block_/, "").replace("_", " ")} `), ...textNodes(frameText(number))));
}
let frameNow = -1;
const frameList = new VirtualList("Frames", 22, 0, frameRow);

// The player: `now` is the moment that is shown. Everything that began later is hidden, what was still coming is cut there.

let now = Infinity, playing = null, shownUpTo = -1;
const partial = new Set();
const order = []; // numbers of messages by when they began
function indexMessages() {
  order.length = 0;
  for (let number = 0; number < messages.length; number++) order.push(number);
  order.sort((a, b) => messages[a].start - messages[b].start || a - b);
}
function lastFrame(at) { // the number of the last frame that had come, by bisection
  let low = 0, high = frames.t.length;
  while (low < high) { const middle = (low + high) >> 1; if (frames.t[middle] <= at) low = middle + 1; else high = middle; }
  return low - 1;
}
function draw() {
  const at = Math.min(now, total);
  let upTo = shownUpTo;
  while (upTo + 1 < order.length && messages[order[upTo + 1]].start <= now) { upTo++; reveal(order[upTo], true); }
  while (upTo >= 0 && messages[order[upTo]].start > now) { reveal(order[upTo], false); upTo--; }
  shownUpTo = upTo;
  for (const number of [...partial]) typed(number);
  for (let back = upTo; back >= 0 && back > upTo - 40; back--) if (messages[order[back]].t > now && messages[order[back]].start <= now) { partial.add(order[back]); typed(order[back]); }
  scrub.value = String(Math.round((at / total) * 10000));
  scrub.setAttribute("aria-valuetext", `${ms(at)} of ${ms(total)}`);
  clock.textContent = `${ms(at)} / ${ms(total)}`;
  const track = timeline.element.querySelector(".track");
  if (track) {
    const box = track.getBoundingClientRect(), outer = wrap.getBoundingClientRect();
    head.style.left = `${box.left - outer.left + (at / total) * box.width}px`;
  }
  head.hidden = at >= total;
  if (at < total) timeline.reveal(Math.max(0, lanes.findLastIndex((lane) => lane.start <= at)));
  const before = frameNow;
  frameNow = at >= total ? -1 : lastFrame(at);
  if (frameNow !== before) {
    for (const number of [before, frameNow]) if (frameList.shown.has(number)) frameList.shown.get(number).classList.toggle("now", number === frameNow);
    if (frameNow >= 0) frameList.reveal(frameNow);
  }
}
function reveal(number, shown) {
  const element = chunks.made[number];
  if (element) element.hidden = !shown;
  if (!shown) { partial.add(number); typed(number); partial.delete(number); }
}
// The text of a message as far as it had come. A tool's input is raw JSON until it is whole.
function typed(number) {
  const message = messages[number], element = chunks.made[number];
  const coming = message.t > now && message.start <= now;
  if (!coming) partial.delete(number);
  if (!element) return;
  element.classList.toggle("typing", coming && playing !== null);
  if (!coming) return fill(element.said, message.text, wanted);
  let size = 0;
  for (const frame of blocks.get(`${message.x}/${message.block}`) || []) { if (frames.t[frame] > now) break; size += frames.n[frame]; }
  fill(element.said, (message.raw ?? message.text).slice(0, size), "");
}
function seek(at) {
  now = Math.max(0, Math.min(at, total));
  if (now >= total) now = Infinity;
  if (playing) { playing.from = now; playing.began = performance.now(); if (now === Infinity) stop(); }
  draw();
}
function play() {
  if (now >= total) now = 0;
  const speed = Number(speeds.value);
  if (speed === 0) return seek(total);
  playing = { from: now, began: performance.now() };
  button.textContent = "Pause";
  const step = () => {
    if (!playing) return;
    now = playing.from + (performance.now() - playing.began) * 1000 * Number(speeds.value);
    if (now >= total || Number(speeds.value) === 0) { now = Infinity; stop(); }
    draw();
    if (following.checked && shownUpTo >= 0 && playing) {
      const element = chunks.at(order[shownUpTo]);
      element.hidden = false;
      const box = element.getBoundingClientRect();
      if (box.bottom > window.innerHeight - 40) window.scrollBy(0, box.bottom - window.innerHeight + 80);
    }
    if (playing) playing.next = requestAnimationFrame(step);
  };
  step();
}
function stop() {
  if (playing) cancelAnimationFrame(playing.next);
  playing = null;
  button.textContent = "Play";
  draw();
}
function speedTo(value) {
  speeds.value = value;
  if (playing) { playing.from = now; playing.began = performance.now(); }
}
const button = el("button", { id: "play", "aria-keyshortcuts": "Space", onclick: () => (playing ? stop() : play()) }, "Play");
const speeds = el("select", { id: "speed", "aria-label": "Speed", onchange: () => speedTo(speeds.value) },
  ...[["1", "Original"], ["2", "2×"], ["10", "10×"], ["0", "Instant"]].map(([value, name]) => el("option", { value }, name)));
const scrub = el("input", { id: "scrub", type: "range", min: "0", max: "10000", value: "10000", "aria-label": "Moment", oninput: () => seek((Number(scrub.value) / 10000) * total) });
const clock = el("span", { id: "now" });
const following = el("input", { type: "checkbox", id: "follow", checked: true });

const search = new Search({
  texts: () => messages.map((m) => `${m.title || ""} ${m.text}`),
  clear: (text) => { wanted = text; for (const number of Object.keys(chunks.made)) fill(chunks.made[number].said, messages[number].text, wanted); },
  show: (number, text) => {
    wanted = text;
    if (messages[number].start > now) seek(messages[number].t);
    const element = showMessage(number), mark = element.querySelector("mark");
    if (mark) { mark.classList.add("here"); mark.scrollIntoView({ block: "center" }); }
  },
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && event.target === search.input) return search.input.blur();
  if (typing(event)) return;
  const at = Math.min(now, total), onButton = event.target.tagName === "BUTTON" || event.target.tagName === "SUMMARY";
  const keys = {
    " ": () => (onButton ? null : playing ? stop() : play()),
    ArrowLeft: () => seek(at - (event.shiftKey ? 1e7 : 1e6)), ArrowRight: () => seek(at + (event.shiftKey ? 1e7 : 1e6)),
    ",": () => seek(frames.t[Math.max(0, lastFrame(at) - 1)] ?? 0), ".": () => seek(frames.t[lastFrame(at) + 1] ?? total),
    Home: () => seek(0), End: () => seek(total), 1: () => speedTo("1"), 2: () => speedTo("2"), 3: () => speedTo("10"), 4: () => speedTo("0"),
    "/": () => search.input.focus(), n: () => search.go(1), N: () => search.go(-1),
  };
  const action = keys[event.key];
  if (!action || (event.key === " " && onButton) || (event.target === scrub && /^(Arrow|Home|End)/.test(event.key))) return;
  event.preventDefault();
  action();
});

// The page

const wrap = el("div", { id: "wrap" }, el("div", { class: "scale", "aria-hidden": "true" }, el("div", {}), scale), timeline.element, head);
const nav = data.home ? el("p", { class: "noprint" }, el("a", { href: data.home }, "All runs")) : null;
document.body.append(
  el("header", {}, nav, el("h1", {}, ...textNodes(run.name), " ", status), facts, problem),
  el("div", { class: "bar", role: "toolbar", "aria-label": "Player" }, el("div", {}, button, speeds, scrub, clock, el("label", {}, following, " follow"), el("fieldset", { class: "group" }, ...search.elements))),
  el("main", {},
    el("section", { class: "panel", "aria-label": "Timeline" }, el("h2", {}, "Timeline"), wrap,
      el("ul", { class: "legend", "aria-hidden": "true" }, ...[["wait", "waiting for the first token"], ["stream", "streaming, a gap for each frame"], ["tool", "tool"], ["bad", "error"]].map(([name, said]) => el("li", { class: name }, el("i", {}), said)))),
    el("div", { class: "columns" },
      el("section", { class: "panel", "aria-label": "Conversation" }, el("h2", {}, "Conversation"), conversation),
      el("section", { class: "panel frames", "aria-label": "Frames" }, el("h2", {}, "Frames ", el("span", { class: "quiet" }, "ms, gap, kind")), frameList.element))),
  el("footer", {}, el("kbd", {}, "Space"), " play  ", el("kbd", {}, "←"), el("kbd", {}, "→"), " 1 s, with Shift 10 s  ", el("kbd", {}, ","), el("kbd", {}, "."), " frame  ",
    el("kbd", {}, "1"), "–", el("kbd", {}, "4"), " speed  ", el("kbd", {}, "/"), " search  ", el("kbd", {}, "n"), " next match"));

chunks = new ChunkedList(conversation, article);
function drawAll() {
  indexMessages();
  drawFacts();
  drawTimeline();
  chunks.resize(messages.length);
  frameList.resize(frames.t.length);
  shownUpTo = -1;
  draw();
}
drawAll();
window.addEventListener("resize", () => { timeline.refresh(); draw(); });

// A link from a search names an event.

const named = /^#seq-(\d+)$/.exec(location.hash);
if (named) showMessage(messages.findIndex((m) => m.seq === Number(named[1])));

// A run that is still going on: what is new comes as server-sent events.

if (data.live) {
  const source = new EventSource(data.live);
  let waiting = null;
  source.onmessage = (event) => {
    const news = JSON.parse(event.data);
    Object.assign(run, news.run);
    const from = messages.length, atBottom = window.innerHeight + window.scrollY > document.body.scrollHeight - 200;
    for (const [number, exchange] of news.exchanges) exchanges[number] = exchange;
    messages.push(...news.messages);
    kinds = news.kinds;
    takeFrames(news.frames);
    takeMessages(from);
    takeTotal(news.total);
    waiting ||= setTimeout(() => {
      waiting = null;
      drawAll();
      if (following.checked && atBottom && !playing) window.scrollTo(0, document.body.scrollHeight);
    }, 100);
  };
  source.addEventListener("end", () => source.close());
}
