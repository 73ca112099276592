// The timeline: a lane for each request, and for each tool from its call to its result. A part of it can be enlarged.

let lanes = [];
const span = { from: 0, to: Infinity }; // the visible part, in microseconds
const spanEnd = () => Math.min(span.to, total);
const share = (us) => (us - span.from) / Math.max(1, spanEnd() - span.from);
const percent = (us) => `${Math.min(100, Math.max(0, share(us) * 100))}%`;
const isBad = (x) => !(x.ending === "complete" || x.ending === "closed" || x.ending === null);

function makeLanes() {
  const results = new Map(messages.filter((m) => m.kind === "tool_result").map((m) => [m.use, m]));
  lanes = exchanges.map((x, number) => ({ kind: "request", start: x.t, first: x.first, end: x.end ?? total, x, number, failed: isBad(x), place: placeOf(x) }));
  messages.forEach((m, number) => {
    if (m.kind !== "tool_use") return;
    const result = results.get(m.use);
    lanes.push({ kind: "tool", start: m.t, first: m.t, end: result ? result.t : m.t, name: m.title, failed: result && result.error, number, result, place: placeOf(m) });
  });
  const fits = { all: () => true, said: (lane) => lane.kind === "request", errors: (lane) => lane.failed, tools: (lane) => lane.kind === "tool" }[filters.kind];
  lanes = lanes.filter((lane) => fits(lane) && (!filters.place || lane.place === filters.place) && lane.end >= span.from && lane.start <= spanEnd());
  lanes.sort((a, b) => a.start - b.start || (a.kind === "request" ? -1 : 1));
}
function described(lane) {
  if (lane.kind === "tool") {
    const took = lane.result ? ms(lane.end - lane.start) : "no result";
    return { name: `⚙ ${lane.name}`, label: took, said: `tool ${lane.name}, ${lane.result ? `result after ${took}${lane.failed ? ", an error" : ""}` : took}` };
  }
  const x = lane.x, attempt = x.attempt > 1 ? `, attempt ${x.attempt}` : "", bad = lane.failed;
  const end = x.end === null ? "still open" : bad ? `${x.ending.replace("_", " ")}${x.status >= 400 ? ` ${x.status}` : ""} after ${ms(x.end - x.t)}` : `${x.stop || x.ending} after ${ms(x.end - x.t)}`;
  const tokens = x.usage && x.usage.output_tokens ? `, ${plural(x.usage.output_tokens, "token")}` : "";
  return {
    name: `${bad ? "✗ " : ""}${lane.number + 1}${x.attempt > 1 ? ` (attempt ${x.attempt})` : ""} ${x.model || x.to || x.uri.replace(/^[a-z]+:\/\/[^/]*/, "")}`,
    label: bad ? x.error || x.ending : x.end === null ? "" : `${ms(x.end - x.t)}${tokens}`,
    said: `request ${lane.number + 1}${attempt}, ${x.model || x.method + " " + x.uri}, first token ${x.first === null ? "never" : `after ${ms(x.first - x.t)}`}, ${plural(x.frames, "frame")}, ${end}`,
  };
}
function laneRow(at) {
  const lane = lanes[at], track = el("span", { class: "track", "aria-hidden": "true" }), { name, label, said } = described(lane);
  const piece = (kind, from, to) => {
    if (to < span.from || from > spanEnd()) return;
    const bar = el("span", { class: kind }), left = Math.max(0, share(from)), right = Math.min(1, share(to));
    bar.style.left = `${left * 100}%`;
    bar.style.width = `${Math.max(0, right - left) * 100}%`;
    track.append(bar);
  };
  if (lane.kind === "tool") piece("stream", lane.start, lane.end);
  else {
    piece("wait", lane.x.t, lane.x.first ?? lane.end);
    if (lane.x.first !== null) piece("stream", lane.x.first, lane.end);
  }
  const open = () => {
    const of = lane.kind === "tool" ? lane.number : messages.findIndex((m) => m.x === lane.number && m.kind !== "request");
    showMessage(of < 0 ? messages.findIndex((m) => m.x === lane.number) : of);
  };
  const row = el("li", { class: `lane ${lane.kind}${lane.failed ? " bad" : ""}${at === laneHere ? " here" : ""}`, title: said, onclick: open },
    el("button", { class: "name", onclick: (event) => { event.stopPropagation(); open(); } }, ...textNodes(name), el("span", { class: "hidden" }, ...textNodes(`: ${said}`))), track);
  if (lane.kind === "request" && lane.x.frames) requestAnimationFrame(() => drawFrames(track, lane));
  if (label) track.append(labelOf(lane, label));
  return row;
}
// The label stands beside its bar, on the side that has room.
function labelOf(lane, label) {
  const element = el("span", { class: "label" }, ...textNodes(label.length > 60 ? `${label.slice(0, 60)}…` : label));
  const right = Math.min(1, Math.max(0, share(lane.end)));
  if (right < 0.7) element.style.left = `calc(${right * 100}% + .4rem)`;
  else if (share(lane.start) > 0.3) element.style.right = `calc(${(1 - share(lane.start)) * 100}% + .4rem)`;
  else { element.classList.add("inside"); element.style.left = `calc(${Math.max(0, share(lane.start)) * 100}% + .4rem)`; }
  return element;
}
// Where frames came, as gaps in the bar of the stream: what is empty was silence.
function drawFrames(track, lane) {
  const canvas = el("canvas", {}), width = Math.max(1, track.clientWidth), scale = window.devicePixelRatio || 1, height = track.clientHeight;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.fillStyle = getComputedStyle(document.body).getPropertyValue("--paper");
  const spots = new Set();
  for (const number of framesOf(lane.number)) spots.add(Math.round(share(frames.t[number]) * width * scale));
  const room = (share(lane.end) - share(lane.first ?? lane.start)) * width * scale;
  if (spots.size > room * 0.25) return; // no room for a gap between them
  for (const spot of spots) pen.fillRect(spot, 0, Math.max(1, scale / 2), height * scale);
  track.insertBefore(canvas, track.querySelector(".label"));
}
let byExchange = null;
function framesOf(number) {
  if (byExchange === null) {
    byExchange = [];
    frames.x.forEach((x, at) => (byExchange[x] ||= []).push(at));
  }
  return byExchange[number] || [];
}
let laneHere = -1;
const timeline = new VirtualList("Lanes of the timeline", 26, 0, laneRow);
const scale = el("div", { id: "ruler", title: "Drag to enlarge a part; double-click for the whole run" });
const head = el("div", { id: "head" });
const brush = el("div", { id: "brush", hidden: true });
function drawTimeline() {
  makeLanes();
  byExchange = null;
  laneHere = -1;
  scale.replaceChildren(brush, ...[0, 0.25, 0.5, 0.75, 1].map((part) => {
    const tick = el("span", {}, ms(span.from + (spanEnd() - span.from) * part));
    tick.style.left = `${part * 100}%`;
    return tick;
  }));
  timeline.resize(lanes.length);
  timeline.refresh();
  zoomOut.disabled = wholeRun.disabled = span.from <= 0 && span.to >= total;
}
function zoomTo(from, to) {
  if (to - from < 1000) return;
  span.from = Math.max(0, from);
  span.to = to >= total ? Infinity : to;
  drawTimeline();
  draw();
}
function zoomBy(factor, at = (span.from + spanEnd()) / 2) {
  const size = (spanEnd() - span.from) * factor, before = share(at);
  if (size >= total) return zoomTo(0, total);
  const from = Math.min(Math.max(0, at - size * before), total - size);
  zoomTo(from, from + size);
}
const zoomIn = el("button", { id: "zoom-in", title: "Enlarge (z)", "aria-label": "Enlarge the timeline", onclick: () => zoomBy(0.5) }, "+");
const zoomOut = el("button", { id: "zoom-out", title: "Reduce (Z)", "aria-label": "Reduce the timeline", onclick: () => zoomBy(2) }, "−");
const wholeRun = el("button", { id: "zoom-all", onclick: () => zoomTo(0, total) }, "Whole run");
const usAt = (x) => { const box = scale.getBoundingClientRect(); return span.from + Math.min(1, Math.max(0, (x - box.left) / box.width)) * (spanEnd() - span.from); };
scale.addEventListener("pointerdown", (event) => {
  const began = usAt(event.clientX);
  scale.setPointerCapture(event.pointerId);
  const move = (moved) => {
    const here = usAt(moved.clientX);
    brush.hidden = false;
    brush.style.left = percent(Math.min(began, here));
    brush.style.width = `${Math.abs(share(here) - share(began)) * 100}%`;
  };
  const up = (ended) => {
    scale.removeEventListener("pointermove", move);
    brush.hidden = true;
    const here = usAt(ended.clientX);
    if (Math.abs(share(here) - share(began)) > 0.01) zoomTo(Math.min(began, here), Math.max(began, here));
    else seek(here);
  };
  scale.addEventListener("pointermove", move);
  scale.addEventListener("pointerup", up, { once: true });
});
scale.addEventListener("dblclick", () => zoomTo(0, total));
timeline.element.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  zoomBy(event.deltaY > 0 ? 1.25 : 0.8, usAt(event.clientX));
}, { passive: false });
// From a message back to its bar
function showLane(number) {
  const m = messages[number], isLane = (lane) => (lane.kind === "tool" ? lane.number === number : m.kind !== "tool_use" && lane.number === m.x);
  if (!lanes.some(isLane)) { Object.assign(span, { from: 0, to: Infinity }); drawTimeline(); }
  laneHere = lanes.findIndex(isLane);
  timeline.reveal(Math.max(0, laneHere));
  timeline.refresh();
  document.querySelector("#timeline").scrollIntoView({ block: "nearest" });
  timeline.element.querySelector(".lane.here button")?.focus({ preventScroll: true });
}
window.addEventListener("beforeprint", () => { if (lanes.length <= 2000) timeline.draw(true); });
