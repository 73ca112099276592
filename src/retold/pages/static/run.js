// The page of a run: its head, its parts, links into it, and news while it goes on.

// The head of the page

const facts = el("ul", { class: "facts" });
const status = el("span", { class: "chip", id: "status" });
function sum(name) { return exchanges.reduce((all, x) => all + ((x.usage && x.usage[name]) || 0), 0); }
function calls() {
  const last = new Map();
  // A retry that is still open has not failed, and neither has its call.
  exchanges.forEach((x, number) => last.set(x.call ? `${x.step}\n${x.task}\n${x.call}` : `#${number}`, isBad(x)));
  return { count: last.size, failed: [...last.values()].filter(Boolean).length, attempts: exchanges.filter(isBad).length };
}
function drawFacts() {
  const { count, failed, attempts } = calls();
  const partly = failed && run.status !== "failed";
  status.textContent = partly ? `${run.status}, ${failed} of ${count} calls failed` : run.status;
  status.className = `chip ${partly ? "warn" : chipOf(run.status)}`;
  const costs = exchanges.filter((x) => x.usage).map((x) => x.cost);
  const cost = costs.length && costs.every((c) => c !== null) ? dollars(costs.reduce((a, b) => a + b, 0)) : "unknown";
  const first = exchanges.find((x) => x.first !== null);
  facts.replaceChildren(...[
    ["Mode", run.mode], ["Started", localTime(run.started)], ["Took", ms(total)],
    ...(exchanges.length ? [["First token", first ? ms(first.first - first.t) : "unknown"], ["Requests", exchanges.length.toLocaleString("en")]] : []),
    attempts > failed ? ["Healed retries", String(attempts - failed)] : null,
    ...(exchanges.length ? [["Models", [...new Set(exchanges.map((x) => x.model).filter(Boolean))].join(", ") || "unknown"],
    ["Frames", frames.t.length.toLocaleString("en")], ["Tokens in", sum("input_tokens").toLocaleString("en")],
    ["Tokens out", sum("output_tokens").toLocaleString("en")], ["Cost", cost]] : []), ["Run", run.run],
  ].filter(Boolean).map(([name, value]) => el("li", {}, `${name} `, el("b", {}, ...textNodes(value)))));
  problem.hidden = !run.error;
  fill(problem, run.error || "", "");
}
const problem = el("p", { class: "chip bad", role: "alert" });

const search = new Search({
  texts: () => messages.map((m) => `${m.title || ""} ${textOf(m)}`),
  clear: (text) => { wanted = text; for (const element of Object.values(chunks.made)) whole(element); },
  show: (number, text) => {
    wanted = text;
    const element = showMessage(number), mark = element.querySelector("mark");
    if (mark) mark.classList.add("here");
  },
});

// The page

const wrap = el("div", { id: "wrap" }, el("div", { class: "scale", "aria-hidden": "true" }, el("div", {}), scale), timeline.element, head);
const nav = data.home ? el("p", { class: "noprint" }, el("a", { href: data.home }, "All runs")) : null;
const more = el("details", { id: "more", open: window.innerWidth > 640 }, el("summary", {}, "About this run"), facts);
const frameBox = el("section", { class: "panel frames", "aria-label": "Frames" }, el("h2", {}, "Frames ", el("span", { class: "quiet" }, "ms, gap, kind")), frameList.element);
const timelineBox = el("section", { class: "panel", id: "timeline", "aria-label": "Timeline" },
  el("div", { class: "head" }, el("h2", {}, "Timeline"), el("span", { class: "noprint" }, zoomIn, " ", zoomOut, " ", wholeRun)), wrap,
  el("ul", { class: "legend", "aria-hidden": "true" }, ...[["wait", "waiting for the first token"], ["stream", "streaming, a gap for each frame"], ["tool", "tool"], ["bad", "error"]].map(([name, said]) => el("li", { class: name }, el("i", {}), said))));
document.body.append(
  el("header", {}, nav, el("h1", {}, ...textNodes(run.name), " ", status), problem, more),
  el("section", { class: "bar", "aria-label": "Controls" }, el("div", { role: "toolbar", "aria-label": "Player" }, button, scrub, clock, speeds, el("label", {}, following, " follow"),
    el("fieldset", { class: "group" }, kindSelect, placeSelect), el("fieldset", { class: "group" }, ...search.elements),
    el("button", { "aria-label": "Keys", title: "Keys (?)", onclick: () => toggle(help) }, "?"))),
  el("main", {},
    timelineBox,
    el("div", { class: "columns" },
      el("section", { class: "panel talk", "aria-label": "Conversation" }, el("h2", {}, "Conversation"), nothing, conversation), frameBox)),
  help);

chunks = new ChunkedList(conversation, article);
function drawAll() {
  indexMessages();
  drawFacts();
  drawPlaces();
  layOut();
  drawTimeline();
  timelineBox.hidden = !exchanges.length && !lanes.length && filters.kind === "all" && !filters.place;
  frameBox.hidden = !frames.t.length;
  frameList.resize(frames.t.length);
  shownUpTo = -1;
  draw();
}
function filtered() {
  layOut();
  drawTimeline();
  shownUpTo = -1;
  draw();
}
drawAll();
window.addEventListener("resize", () => { timeline.refresh(); draw(); });

// Links: `?q=` marks words, `?t=` is a moment in seconds, and `#seq-12` or `#seq-12-2` a message.

function followLink() {
  const asked = new URLSearchParams(location.search), named = /^#seq-(\d+)(?:-(\d+))?$/.exec(location.hash);
  const query = (asked.get("q") || "").trim(), at = Number(asked.get("t"));
  if (asked.get("t") && at >= 0) seek(at * 1e6);
  if (!named) return;
  const number = numberOf(Number(named[1]), Number(named[2] || 1), query);
  const element = showMessage(number);
  const range = element && query ? markHit(element, query) : null;
  if (range) settle(element, range);
}
window.addEventListener("hashchange", followLink);
followLink();

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
