"use strict";
// The page of a log: charts as SVG, each bar a link that lists its runs below.

const SVG = "http://www.w3.org/2000/svg";
function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
const models = [...new Set(data.lines.map((line) => line.model))];
const colour = (model) => `m${models.indexOf(model) % 5}`;
const nameOf = (model) => model || "no model";
const days = filled([...new Set(data.lines.map((line) => line.day))].sort());
function filled(found) { // the days without a call between them, too
  const dayOf = (day) => Date.parse(`${day}T00:00:00Z`) / 864e5, from = dayOf(found[0]), to = dayOf(found.at(-1));
  return to - from > 180 || Number.isNaN(from) ? found : Array.from({ length: to - from + 1 }, (_, at) => new Date((from + at) * 864e5).toISOString().slice(0, 10));
}
const sum = (lines, of) => lines.reduce((all, line) => all + (of(line) || 0), 0);
const short = (value) => (value < 10000 ? String(Math.round(value)) : value < 1e6 ? `${(value / 1000).toFixed(1)}k` : `${(value / 1e6).toFixed(2)}M`);
const time = (value) => (value < 1000 ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms` : value < 60000 ? `${(value / 1000).toFixed(value < 10000 ? 1 : 0)} s` : `${(value / 60000).toFixed(0)} min`);

// Bars in columns. A column is {label, parts: [{value, class, said, link}]}; parts are stacked.
function chart(title, columns, { shown, total, note }) {
  const W = 520, H = 190, left = 52, bottom = 24, top = 8, room = W - left - 6;
  const most = Math.max(...columns.map((column) => sum(column.parts, (part) => part.value)), 0);
  const drawing = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": title });
  for (const share of [0, 0.5, 1]) {
    const y = top + (H - top - bottom) * (1 - share);
    drawing.append(svg("line", { class: "axis", x1: left, x2: W - 6, y1: y, y2: y }), svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, most ? shown(most * share) : share ? "" : "0"));
  }
  const step = room / Math.max(columns.length, 1), every = Math.ceil(columns.length / 6);
  columns.forEach((column, at) => {
    const x = left + at * step, wide = Math.max(1, Math.min(step * 0.8, 60));
    let y = H - bottom;
    for (const part of column.parts) {
      if (!part.value) continue;
      const height = Math.max(1, (part.value / most) * (H - top - bottom));
      y -= height;
      drawing.append(svg("a", { href: part.link, "aria-label": part.said }, svg("title", {}, part.said), svg("rect", { class: part.class, x: x + (step - wide) / 2, y, width: wide, height, rx: 1 })));
    }
    if (at % every === 0) drawing.append(svg("text", { x: x + step / 2, y: H - 7, "text-anchor": "middle" }, column.label));
  });
  return el("section", { class: "panel", "aria-label": title }, el("h2", {}, title, " ", total ? el("span", { class: "total" }, total) : null), drawing, note ? el("p", { class: "quiet" }, note) : null);
}
const hash = (values) => `#${new URLSearchParams(values)}`;
const of = (day) => data.lines.filter((line) => line.day === day);
function byDay(title, value, options) {
  return chart(title, days.map((day) => ({ label: day.slice(5), parts: of(day).map((line) => ({
    value: value(line) || 0, class: colour(line.model), link: hash({ day, model: line.model }), said: `${day}, ${nameOf(line.model)}: ${options.shown(value(line) || 0)}`,
  })) })), options);
}
const money = (value) => (value >= 1 || value === 0 ? `$${value.toFixed(2)}` : `$${value.toPrecision(2)}`);
const unpriced = sum(data.lines, (line) => line.unpriced);
const tokens = (line) => line.input_tokens + line.output_tokens + line.cache_creation_input_tokens + line.cache_read_input_tokens;
const counts = [["errors", "bad", "errors"], ["retries", "retry", "retries"]];
const trouble = chart("Errors and retries by day", days.map((day) => ({ label: day.slice(5), parts: counts.map(([key, name, said]) => {
  const value = sum(of(day), (line) => line[key]);
  return { value, class: name, link: hash({ day, errors: 1 }), said: `${day}: ${value} ${said}` };
}) })), { shown: short, total: `${plural(sum(data.lines, (line) => line.errors), "error")}, ${sum(data.lines, (line) => line.retries)} retried` });
// A distribution: columns double in width, so that milliseconds and minutes fit.
function distribution(title, key) {
  const pairs = models.flatMap((model) => (data.times[model]?.[key] || []).map(([value, count]) => ({ model, value, count, at: Math.floor(Math.log2(value) * 2) })));
  const first = Math.min(...pairs.map((pair) => pair.at)), last = Math.max(...pairs.map((pair) => pair.at)), columns = [];
  for (let at = first; at <= last; at++) {
    const low = 2 ** (at / 2), high = 2 ** ((at + 1) / 2);
    columns.push({ label: time(low), parts: models.map((model) => {
      const value = sum(pairs.filter((pair) => pair.at === at && pair.model === model), (pair) => pair.count);
      return { value, class: colour(model), link: hash({ [key]: `${low.toFixed(3)}-${high.toFixed(3)}`, model }), said: `${time(low)} to ${time(high)}, ${nameOf(model)}: ${plural(value, "call")}` };
    }) });
  }
  const sorted = pairs.sort((a, b) => a.value - b.value), all = sum(sorted, (pair) => pair.count);
  const at = (share) => { let due = share * all; for (const pair of sorted) { due -= pair.count; if (due <= 0) return time(pair.value); } return "-"; };
  return chart(title, columns, { shown: short, total: all ? `half within ${at(0.5)}, 95 % within ${at(0.95)}` : "nothing measured" });
}
const legend = el("ul", { class: "legend" }, ...models.map((model) => el("li", {}, el("i", { class: colour(model) }), ...textNodes(nameOf(model)))),
  el("li", {}, el("i", { class: "bad" }), "errors"), el("li", {}, el("i", { class: "retry" }), "retries"));

// The runs of a bar

const box = el("div", {});
const list = el("section", { class: "panel", id: "runs", "aria-label": "Runs" }, box);
function drawRuns() {
  const asked = new URLSearchParams(location.hash.slice(1)), day = asked.get("day"), model = asked.get("model");
  const within = (values, text) => { const [low, high] = text.split("-").map(Number); return (values || []).some((value) => value >= low * 0.98 - 1 && value <= high * 1.02 + 1); };
  const fit = data.runs.filter((run) => (!day || run.day === day || (run.days || []).includes(day)) && (!asked.has("model") || (run.models || []).includes(model)) && (!asked.get("errors") || run.errors)
    && ["first", "took"].every((key) => !asked.get(key) || within(run[key], asked.get(key))));
  const what = [day, asked.has("model") ? nameOf(model) : "", asked.get("errors") ? "with errors" : "", ...["first", "took"].map((key) => (asked.get(key) ? `${key === "first" ? "first token" : "answer"} after ${asked.get(key).split("-").map((value) => time(Number(value))).join(" to ")}` : ""))].filter(Boolean).join(", ");
  box.replaceChildren(...[el("div", { role: "status" }, el("h2", {}, ...textNodes(`${plural(fit.length, "run")}${what ? `: ${what}` : ""}`), " ", what ? el("a", { href: "#" }, "all") : null)),
    data.cut ? el("p", { class: "quiet" }, `Of the newest ${plural(data.runs.length, "run")}.`) : null,
    el("table", {}, el("caption", { class: "hidden" }, "Runs"), el("thead", {}, el("tr", {}, ...["Day", "Name", "Outcome", "Models", "Cost", "Run"].map((name) => el("th", { scope: "col", class: name === "Cost" ? "n" : name.toLowerCase() }, name)))),
      el("tbody", {}, ...fit.slice(0, 200).map((run) => el("tr", {}, el("td", { class: "day" }, run.day), el("td", { class: "name" }, data.home ? el("a", { href: `${data.home}run/${run.run}` }, ...textNodes(run.name)) : el("span", {}, ...textNodes(run.name))),
        el("td", {}, el("span", { class: `chip ${run.outcome !== run.status ? "warn" : chipOf(run.status)}` }, run.outcome)), el("td", { class: "models" }, ...textNodes((run.models || []).join(", "))), el("td", { class: "n" }, run.cost === undefined ? "" : dollars(run.cost)), el("td", {}, run.run.slice(0, 8)))))),
    fit.length > 200 ? el("p", { class: "quiet" }, `and ${fit.length - 200} more`) : null].filter(Boolean));
  for (const bar of document.querySelectorAll("svg a")) bar.classList.toggle("here", location.hash !== "" && bar.getAttribute("href") === location.hash);
}
window.addEventListener("hashchange", () => { drawRuns(); if (location.hash) list.scrollIntoView({ block: "nearest" }); });

document.body.append(
  el("header", {}, data.home ? el("p", {}, el("a", { href: data.home }, "All runs")) : null, el("h1", {}, "Costs, errors and times"), el("p", { class: "facts" }, ...textNodes(data.log)), legend),
  el("main", {}, data.lines.length ? el("div", { class: "charts" },
    byDay("Cost by day and model", (line) => line.cost, { shown: money, total: money(sum(data.lines, (line) => line.cost)), note: unpriced ? `The cost of ${plural(unpriced, "call")} is not known and not in the sums.` : null }),
    byDay("Tokens by day and model", tokens, { shown: short, total: `${short(sum(data.lines, (line) => tokens(line) - line.output_tokens))} in, ${short(sum(data.lines, (line) => line.output_tokens))} out` }),
    trouble, byDay("Calls by day and model", (line) => line.exchanges, { shown: short, total: plural(sum(data.lines, (line) => line.exchanges), "call") }),
    distribution("Time to the first token", "first"), distribution("Duration of answers", "took")) : el("p", { class: "panel" }, "The log holds no calls to count. Replays do not count."), list));
drawRuns();
