"use strict";
// The list of runs, and the hits of a search.

const picked = new Set();
const compare = el("button", { id: "compare", disabled: true, onclick: () => {
  const [a, b] = data.runs.map((run) => run.run).filter((id) => picked.has(id)).reverse(); // the older one is A
  location.href = `${data.home}diff?a=${a}&b=${b}`;
} }, "Compare two");

function address(changes) {
  const params = new URLSearchParams({ ...data.params, ...(data.query ? { q: data.query } : {}) });
  for (const [key, value] of Object.entries(changes)) { if (value === null) params.delete(key); else params.set(key, value); }
  const asked = params.toString();
  return `${data.home}${asked ? `?${asked}` : ""}`;
}
const count = (value) => (value === undefined ? "" : value < 10000 ? value.toLocaleString("en") : value < 1e6 ? `${(value / 1000).toFixed(1)}k` : `${(value / 1e6).toFixed(2)}M`);
function errorsOf(run) {
  return [run.failed ? `${run.failed} of ${run.calls}` : "", run.healed ? `${run.healed} healed` : ""].filter(Boolean).join(", ");
}
function row(run) {
  const partly = run.status === "completed" && run.failed;
  const chip = el("span", { class: `chip ${partly ? "warn" : chipOf(run.status)}` }, run.outcome);
  const box = el("input", { type: "checkbox", "aria-label": `Compare ${run.name}, ${run.run.slice(0, 8)}`, onchange: () => {
    if (box.checked) picked.add(run.run); else picked.delete(run.run);
    compare.disabled = picked.size !== 2;
  } });
  const below = run.error ? run.error.split("\n")[0].slice(0, 200) : run.prompt ? run.prompt.replace(/\s+/g, " ") : "";
  const cell = (name, text, of = "n") => el("td", { class: of, "data-name": name }, ...textNodes(text));
  return el("tr", {}, el("td", { class: "pick" }, box),
    el("td", { class: "name" }, el("a", { href: `${data.home}run/${run.run}` }, ...textNodes(run.name || run.run)), below ? el("div", { class: `quiet prompt${run.error ? " bad" : ""}`, title: below, dir: "auto" }, ...textNodes(below)) : null),
    el("td", { class: "status" }, chip), cell("Errors", errorsOf(run), "errors"), cell("Started", localTime(run.started), "when"), cell("Took", run.took === null ? "" : ms(run.took)),
    cell("Cost", run.cost === undefined || (run.cost === null && !run.input) ? "" : dollars(run.cost)), cell("Tokens", run.input === undefined || !(run.input + run.output) ? "" : `${count(run.input)} / ${count(run.output)}`),
    el("td", { class: "models", "data-name": "Models" }, ...(run.models || []).flatMap((model, at) => [at ? ", " : "", el("span", { class: "nowrap" }, ...textNodes(model.replace(/^claude-/, "")))])), cell("Messages", count(run.messages)), cell("Mode", run.mode, ""), cell("Run", run.run.slice(0, 8), "id"));
}
function hit(found) {
  const said = el("div", { class: "said" });
  for (const [inside, text] of found.parts) said.append(...(inside ? [el("mark", {}, ...textNodes(text))] : textNodes(text.length > 2000 ? `${text.slice(0, 1000)} … ${text.slice(-1000)}` : text)));
  const link = `${data.home}run/${found.run}?q=${encodeURIComponent(data.query)}#seq-${found.seq}`;
  return el("div", { class: "hit" }, el("h3", {}, el("a", { href: link }, ...textNodes(found.name || found.run)), " ", el("span", { class: "quiet" }, ...textNodes(`${found.type}, ${localTime(found.time)}`))), said);
}
const COLUMNS = [["", null], ["Name", "name"], ["Status", null], ["Errors", "errors"], ["Started", "started"], ["Took", "took"], ["Cost", "cost"], ["Tokens in / out", "tokens"], ["Models", null], ["Messages", "messages"], ["Mode", null], ["Run", null]];
function heading([name, sort]) {
  const numbers = /Took|Cost|Tokens|Messages/.test(name) ? "n" : null;
  if (!sort) return name ? el("th", { scope: "col", class: numbers }, name) : el("td", {});
  const now = data.params.sort || "started", mine = now === sort, down = (data.params.order || "desc") === "desc";
  const link = el("a", { href: address(sort === "started" ? { sort: null, order: null, page: null } : { sort, order: mine && down ? "asc" : "desc", page: null }) }, `${name}${mine ? (down ? " ↓" : " ↑") : ""}`);
  return el("th", { scope: "col", class: numbers, "aria-sort": mine ? (down ? "descending" : "ascending") : null }, link);
}
const input = el("input", { type: "search", name: "q", value: data.query, placeholder: 'Search what was said: words, "a phrase", beginn*', "aria-label": "Search what was said in all runs" });
const help = keysDialog([["/", "search"], ["?", "these keys"]]);
document.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  if (event.key === "/") { event.preventDefault(); input.focus(); }
  if (event.key === "?") toggle(help);
});
const field = (name, label, type = "search") => el("input", { type, name, value: data.params[name], placeholder: label, "aria-label": label });
const isFiltered = ["name", "model", "status", "error", "since", "until"].some((name) => data.params[name]);
const statuses = ["", "running", "completed", "failed", "cancelled", "interrupted"];
const filter = el("form", { class: "filter", action: data.home, method: "get" }, field("name", "Name"), field("model", "Model"),
  el("select", { name: "status", "aria-label": "Status" }, ...statuses.map((value) => el("option", { value, selected: value === (data.params.status || "") }, value || "any status"))),
  el("label", {}, el("input", { type: "checkbox", name: "error", value: "1", checked: Boolean(data.params.error) }), " with errors"),
  field("since", "Since, e.g. 7d"), field("until", "Until"), el("button", {}, "Filter"),
  isFiltered ? el("a", { href: data.home }, "all") : null);

document.body.append(
  el("header", {}, el("h1", {}, "Runs"), el("p", { class: "facts" }, ...textNodes(data.log), el("a", { href: `${data.home}log` }, "Costs, errors and times"))),
  el("section", { class: "bar", "aria-label": "Search" }, el("div", {}, el("form", { class: "find", action: data.home, method: "get", role: "search" }, input, el("button", {}, "Search")), compare)),
  el("main", {},
    data.query ? el("section", { class: "panel", id: "hits", "aria-label": "Found" },
      el("div", { role: "status" }, el("h2", {}, data.problem ? "This search cannot be read" : data.hits.length ? plural(data.hits.length, "hit") : "Nothing found")),
      data.problem ? el("p", {}, ...textNodes(data.problem)) : null, ...data.hits.map(hit)) : null,
    el("section", { class: "panel", "aria-label": "Runs" }, filter, data.list_problem ? el("p", { role: "alert", class: "bad" }, ...textNodes(data.list_problem)) : null,
      data.runs.length ? el("table", {}, el("caption", { class: "hidden" }, "Runs"), el("thead", {}, el("tr", {}, ...COLUMNS.map(heading))), el("tbody", {}, ...data.runs.map(row)))
        : el("p", {}, isFiltered || data.page > 1 ? "No run fits." : "The log holds no runs yet. Record or replay one first: retold run WORKFLOW"),
      el("p", { class: "pages" }, data.page > 1 ? el("a", { href: address({ page: data.page - 1 }) }, "← Newer runs") : null, data.page > 1 || data.more ? `page ${data.page}` : null,
        data.more ? el("a", { href: address({ page: data.page + 1 }) }, "Older runs →") : null))), help);
