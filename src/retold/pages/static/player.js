// The player: `now` is the moment that is shown. Everything that began later is hidden, what was still coming is cut there.

let now = Infinity, playing = null, shownUpTo = -1;
const SPEEDS = [["0.5", "0.5×"], ["1", "Original"], ["2", "2×"], ["10", "10×"], ["0", "Instant"]];
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
  clock.href = `?t=${(at / 1e6).toFixed(3)}`;
  drawHead(at);
  if (at < total) timeline.reveal(Math.max(0, lanes.findLastIndex((lane) => lane.start <= at)));
  const before = frameNow;
  frameNow = at >= total ? -1 : lastFrame(at);
  if (frameNow !== before) {
    for (const number of [before, frameNow]) if (frameList.shown.has(number)) frameList.shown.get(number).classList.toggle("now", number === frameNow);
    if (frameNow >= 0) frameList.reveal(frameNow);
  }
}
function drawHead(at) {
  const box = scale.getBoundingClientRect(), outer = wrap.getBoundingClientRect();
  head.style.left = `${box.left - outer.left + share(at) * box.width}px`;
  head.hidden = at >= total || share(at) < 0 || share(at) > 1;
}
function reveal(number, shown) {
  const element = elementOf(number);
  if (element) element.hidden = !shown;
  if (!shown) { partial.add(number); typed(number); partial.delete(number); }
}
// The text of a message as far as it had come. A tool's input is raw JSON until it is whole.
function typed(number) {
  const message = messages[number], element = elementOf(number);
  const coming = message.t > now && message.start <= now;
  if (!coming) partial.delete(number);
  if (!element) return;
  element.classList.toggle("typing", coming && playing !== null);
  if (!coming) return whole(element);
  let size = 0;
  for (const frame of blocks.get(`${message.x}/${message.block}`) || []) { if (frames.t[frame] > now) break; size += frames.n[frame]; }
  element.said.classList.remove("rich");
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
  if (Number(speeds.value) === 0) return seek(total);
  playing = { from: now, began: performance.now() };
  button.textContent = "Pause";
  const step = () => {
    if (!playing) return;
    now = playing.from + (performance.now() - playing.began) * 1000 * Number(speeds.value);
    if (now >= total || Number(speeds.value) === 0) { now = Infinity; stop(); }
    draw();
    if (following.checked && shownUpTo >= 0 && playing && rowOf[order[shownUpTo]] >= 0) {
      const element = chunks.at(rowOf[order[shownUpTo]]);
      element.hidden = false;
      const box = element.getBoundingClientRect();
      if (box.bottom > window.innerHeight - 40 || box.top < 0) window.scrollBy(0, box.bottom - window.innerHeight + 80);
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
function faster(step) {
  const at = SPEEDS.findIndex(([value]) => value === speeds.value) + step;
  if (SPEEDS[at]) speedTo(SPEEDS[at][0]);
}
// The next or previous message that is shown, and fits.
function step(by, fits = () => true) {
  let row = current >= 0 && rowOf[current] >= 0 ? rowOf[current] + by : by > 0 ? 0 : rows.length - 1;
  while (row >= 0 && row < rows.length && !fits(messages[rows[row]])) row += by;
  if (row >= 0 && row < rows.length) showMessage(rows[row]);
}
const button = el("button", { id: "play", "aria-keyshortcuts": "Space", onclick: () => (playing ? stop() : play()) }, "Play");
const speeds = el("select", { id: "speed", "aria-label": "Speed", onchange: () => speedTo(speeds.value) }, ...SPEEDS.map(([value, name]) => el("option", { value }, name)));
speeds.value = "1";
const scrub = el("input", { id: "scrub", type: "range", min: "0", max: "10000", value: "10000", "aria-label": "Moment", oninput: () => seek((Number(scrub.value) / 10000) * total) });
const clock = el("a", { id: "now", title: "Link to this moment" });
const following = el("input", { type: "checkbox", id: "follow", checked: true });

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
const frameList = new VirtualList("List of frames", 22, 0, frameRow);

// Keys: those of asciinema where it has one

const KEYS = [
  ["Space", "play, pause"], ["← →", "5 seconds back, forward"], ["Shift ← →", "a tenth of the run back, forward"], ["0 – 9", "to 0 %, 10 %, … of the run"],
  [", .", "previous, next frame"], ["[ ]", "previous, next message"], ["e E", "next, previous error"], ["Home End", "to the beginning, the end"],
  ["- +", "slower, faster"], ["f", "full screen"], ["z Z w", "enlarge, reduce, show the whole timeline"], ["b", "from a message to its bar"],
  ["/", "search"], ["n N", "next, previous match"], ["?", "these keys"],
];
const help = keysDialog(KEYS);
const isError = (m) => m.error || m.kind === "error";
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && event.target === search.input) return search.input.blur();
  if (typing(event) || (help.open && event.key !== "?")) return;
  const at = Math.min(now, total), onButton = /^(BUTTON|SUMMARY|A)$/.test(event.target.tagName), long = event.shiftKey ? total / 10 : 5e6;
  const keys = {
    " ": () => (playing ? stop() : play()), ArrowLeft: () => seek(at - long), ArrowRight: () => seek(at + long),
    ",": () => seek(frames.t[Math.max(0, lastFrame(at) - 1)] ?? 0), ".": () => seek(frames.t[lastFrame(at) + 1] ?? total),
    Home: () => seek(0), End: () => seek(total), "[": () => step(-1), "]": () => step(1), e: () => step(1, isError), E: () => step(-1, isError),
    "+": () => faster(1), "=": () => faster(1), "-": () => faster(-1), z: () => zoomBy(0.5), Z: () => zoomBy(2), w: () => zoomTo(0, total),
    b: () => (current >= 0 ? showLane(current) : null), "/": () => search.input.focus(), n: () => search.go(1), N: () => search.go(-1),
    f: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()), "?": () => toggle(help),
  };
  const action = /^\d$/.test(event.key) ? () => seek((Number(event.key) / 10) * total) : keys[event.key];
  if (!action || (event.key === " " && onButton) || (event.target === scrub && /^(Arrow|Home|End)/.test(event.key))) return;
  event.preventDefault();
  action();
});
