// The conversation: one article for each message, under the request that it belongs to.

const NAMES = {
  prompt: "Prompt", text: "Assistant", thinking: "Thinking", tool_use: "Tool call", tool_result: "Tool result", init: "Session",
  result: "Result", system: "System", request: "Request", history: "Earlier answer", server_tool_use: "Server tool call",
  session: "Options", error: "Error", erased: "Erased",
};
const KNOWN = new Set(Object.keys(NAMES));
const FOLDED = new Set(["init", "result", "system", "request", "history", "session"]);
const PROSE = new Set(["text", "prompt", "thinking", "history"]);
const JSON_TEXTS = new Set(["tool_use", "server_tool_use", "request", "init", "result", "system", "session"]);
const BRIEF = {
  init: "Tools, model and permissions", result: "Totals of the session", request: "Model, system prompt, tools and options",
  session: "Options of the session",
};
const conversation = el("div", { id: "conversation" });

// Which messages are shown, and in which order: those of a request together, although answers may come interleaved.

const rows = []; // numbers of messages
let rowOf = []; // the place of a message in `rows`
const KINDS = {
  all: ["Everything", () => true],
  said: ["Prompts and answers", (m) => m.kind === "prompt" || m.kind === "text" || m.kind === "error"],
  errors: ["Errors", (m) => m.error || m.incomplete || m.kind === "error"],
  tools: ["Tools", (m) => /tool_(use|result)$/.test(m.kind)],
};
const placeOf = (m) => [m.step, m.task, m.agent ? `agent ${m.agent}` : ""].filter(Boolean).join(" / ");
const filters = { kind: "all", place: "" };
const kindSelect = el("select", { id: "kinds", "aria-label": "Messages shown", onchange: () => { filters.kind = kindSelect.value; filtered(); } },
  ...Object.entries(KINDS).map(([value, [name]]) => el("option", { value }, name)));
const placeSelect = el("select", { id: "places", "aria-label": "Step, task or agent", onchange: () => { filters.place = placeSelect.value; filtered(); } });
function drawPlaces() {
  const places = [...new Set(messages.map(placeOf).concat(exchanges.map(placeOf)))].filter(Boolean).sort();
  placeSelect.hidden = places.length < 1;
  if (placeSelect.options.length === places.length + 1) return;
  placeSelect.replaceChildren(el("option", { value: "" }, "All steps"), ...places.map((place) => el("option", { value: place }, ...textNodes(place))));
  placeSelect.value = filters.place;
}
const isShown = (m) => KINDS[filters.kind][1](m) && (!filters.place || placeOf(m) === filters.place);

function layOut() {
  const latest = new Map(), uses = new Map(), key = [];
  let newest = -1;
  messages.forEach((m, number) => {
    const place = `${m.step}\n${m.task}`;
    let of = m.x;
    if (of === null) of = (m.kind === "tool_result" ? uses.get(m.use) : undefined) ?? latest.get(place) ?? newest;
    else { latest.set(place, of); newest = Math.max(newest, of); }
    if (m.use !== undefined && m.kind !== "tool_result") uses.set(m.use, of);
    key[number] = of;
  });
  const wantedRows = [...key.keys()].filter((number) => isShown(messages[number])).sort((a, b) => key[a] - key[b] || a - b);
  const grown = rows.length <= wantedRows.length && rows.every((number, at) => wantedRows[at] === number);
  if (!grown) chunks.reset();
  rows.splice(0, rows.length, ...wantedRows);
  rowOf = new Array(messages.length).fill(-1);
  rows.forEach((number, at) => { rowOf[number] = at; });
  chunks.resize(rows.length);
  nothing.hidden = rows.length > 0;
}
const nothing = el("p", { class: "quiet", hidden: true }, "No message fits.");

// One message

let wanted = "";
function erasedText(m) {
  const { time, by, why } = m.erased;
  return `[erased${time ? ` on ${localTime(time)}` : ""}${by ? `, by ${by}` : ""}${why ? `: ${why}` : ""}]`;
}
function textOf(m) { return m.erased ? erasedText(m) : m.text; }
function article(row) {
  const number = rows[row], m = messages[number];
  const name = `${NAMES[m.kind] || m.kind}${m.title ? ` ${m.title}` : ""}${m.incomplete ? " (incomplete)" : ""}${m.error && m.kind !== "error" ? " (error)" : ""}`;
  const said = el("div", { class: `said${PROSE.has(m.kind) ? " prose" : ""}`, dir: "auto" });
  const images = (m.images || []).map(([type, bytes]) => el("img", { src: `data:${type};base64,${bytes}`, alt: `Image in this message (${type})`, loading: "lazy" }));
  const headers = m.x !== null && firstOf.get(m.x) === number ? headersOf(m.x) : null;
  const body = FOLDED.has(m.kind) ? el("details", {}, el("summary", {}, BRIEF[m.kind] || "Show"), said) : said;
  const element = el("article", { class: `${KNOWN.has(m.kind) ? m.kind : "other"}${m.error || m.incomplete ? " bad" : ""}`, tabindex: "-1" },
    el("div", { class: "head" }, el("h3", {}, ...textNodes(name)), placeOf(m) ? el("span", {}, ...textNodes(placeOf(m))) : null, tools(number)), body, ...images, ...(headers ? [headers] : []));
  element.said = said;
  element.number = number;
  whole(element);
  element.hidden = m.start > now;
  return element;
}
function tools(number) {
  const m = messages[number];
  const raw = el("button", { class: "small", "aria-pressed": "false", onclick: () => {
    const element = elementOf(number);
    element.raw = !element.raw;
    raw.setAttribute("aria-pressed", String(element.raw));
    whole(element);
  } }, "Raw");
  const copy = el("button", { class: "small", onclick: () => copyText(textOf(m)).then((done) => {
    copy.textContent = done ? "Copied" : "Cannot copy";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  }) }, "Copy");
  return el("span", { class: "tools" },
    m.x === null ? null : el("button", { class: "small bar-of noprint", title: "Show its bar in the timeline", onclick: () => showLane(number) }, `request ${m.x + 1}`),
    m.tree || (m.raw && m.raw !== m.text) ? raw : null, m.text || m.erased ? copy : null,
    el("a", { class: "quiet noprint", href: `#${anchorOf(number)}`, title: "Link to this message" }, `#${m.seq}`),
    el("span", { class: "t" }, ms(m.start)));
}
function headersOf(number) {
  const table = (title, pairs) => (pairs && pairs.length ? [el("h4", {}, title), el("table", { class: "headers" }, el("tbody", {},
    ...pairs.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, ...textNodes(name)), el("td", {}, ...textNodes(value))))))] : []);
  const details = el("details", { class: "headers", ontoggle: () => {
    const x = exchanges[number];
    if (details.open) details.replaceChildren(details.firstChild, el("p", { class: "quiet" }, ...textNodes(`${x.method} ${x.uri}${x.status ? `, status ${x.status}` : ""}`)), ...table("Request headers", x.asked), ...table("Response headers", x.answered));
  } }, el("summary", {}, "Headers of the request and the response"));
  return details;
}
// The whole text of a message: rendered, as highlighted JSON, or raw.
function whole(element) {
  const m = messages[element.number], said = element.said, text = textOf(m), short = text.length <= LONG;
  said.classList.toggle("rich", Boolean(m.tree && !element.raw && short));
  if (element.raw) fill(said, m.raw ?? text, wanted);
  else if (m.tree && short) said.replaceChildren(...treeNodes(m.tree, wanted));
  else if (JSON_TEXTS.has(m.kind) && short) said.replaceChildren(...jsonNodes(text, wanted));
  else fill(said, text, wanted);
}
function elementOf(number) { return rowOf[number] >= 0 ? chunks.made[rowOf[number]] : undefined; }
let chunks = null;

// Links to messages. Several messages may share an event: the second one has `-2`.

function anchorOf(number) {
  let before = 0;
  for (let other = number - 1; other >= 0 && messages[other].seq === messages[number].seq; other--) before++;
  return `seq-${messages[number].seq}${before ? `-${before + 1}` : ""}`;
}
function numberOf(seq, part, query) {
  const first = messages.findIndex((m) => m.seq === seq);
  if (first < 0 || part > 1) return first < 0 ? -1 : first + part - 1;
  const words = query.toLowerCase().match(/[\p{L}\p{N}_]+/gu) || [];
  for (let number = first; number < messages.length && messages[number].seq === seq; number++) {
    if (words.length && words.some((word) => textOf(messages[number]).toLowerCase().includes(word))) return number;
  }
  return first;
}
function showMessage(number) {
  if (number < 0) return null;
  if (rowOf[number] < 0) {
    filters.kind = kindSelect.value = "all";
    filters.place = placeSelect.value = "";
    filtered();
  }
  if (messages[number].start > now) seek(messages[number].t);
  const element = chunks.at(rowOf[number]);
  for (const other of document.querySelectorAll("article.here")) other.classList.remove("here");
  for (const folded of element.querySelectorAll("details:not(.headers)")) folded.open = true;
  element.classList.add("here");
  current = number;
  settle(element);
  return element;
}
let current = -1, settling = 0;
// Mark the words of a search in a message, and return the range of the first one. The text itself stays as it is.
function markHit(element, query) {
  const phrase = query.replaceAll('"', " ").replace(/\b(?:AND|OR|NOT)\b|[()*]/g, " ").trim().toLowerCase(), ranges = [];
  const nodes = [], walker = document.createTreeWalker(element.said, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) nodes.push([walker.currentNode, walker.currentNode.data.toLowerCase()]);
  const mark = (word) => {
    for (const [node, text] of nodes) for (let at = text.indexOf(word); word && at >= 0 && ranges.length < 500; at = text.indexOf(word, at + word.length)) {
      const range = new Range();
      range.setStart(node, at);
      range.setEnd(node, at + word.length);
      ranges.push(range);
    }
  };
  mark(phrase);
  if (!ranges.length) phrase.split(/\s+/).forEach(mark);
  if (window.Highlight) CSS.highlights.set("hit", new Highlight(...ranges));
  return ranges[0] || null;
}
// Rows above the target get their heights only when they come near the view: scroll until the target stays.
function settle(element, range = null) {
  const mine = ++settling;
  let left = 40;
  const stop = () => { left = 0; };
  for (const kind of ["wheel", "touchstart", "pointerdown", "keydown"]) window.addEventListener(kind, stop, { once: true, passive: true });
  const step = () => {
    if (left-- <= 0 || mine !== settling) return; // a later target has taken over
    const target = element.querySelector("mark.here") || element.querySelector("mark") || element;
    if (range) window.scrollBy(0, range.getBoundingClientRect().top - window.innerHeight / 2);
    else target.scrollIntoView({ block: target.offsetHeight > window.innerHeight * 0.6 ? "start" : "center" });
    requestAnimationFrame(step);
  };
  left++;
  step();
}
