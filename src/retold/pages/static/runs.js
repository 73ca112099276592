"use strict";
const when = (iso) => iso.replace("T", " ").replace(/\.\d+Z$/, " UTC");
const picked = new Set();
const compare = el("button", { id: "compare", disabled: true, onclick: () => {
  const [a, b] = data.runs.map((run) => run.run).filter((id) => picked.has(id)).reverse(); // the older one is A
  location.href = `${data.home}diff?a=${a}&b=${b}`;
} }, "Compare two");

function row(run) {
  const chip = el("span", { class: `chip ${run.status === "completed" ? "good" : run.status === "running" ? "busy" : "bad"}` }, run.status);
  const box = el("input", { type: "checkbox", "aria-label": `Compare ${run.name}, ${run.run.slice(0, 8)}`, onchange: () => {
    if (box.checked) picked.add(run.run); else picked.delete(run.run);
    compare.disabled = picked.size !== 2;
  } });
  return el("tr", {}, el("td", { class: "pick" }, box),
    el("td", { class: "name" }, el("a", { href: `${data.home}run/${run.run}` }, ...textNodes(run.name || run.run)), run.error ? el("div", { class: "quiet" }, ...textNodes(run.error.split("\n")[0].slice(0, 200))) : null),
    el("td", {}, chip), el("td", {}, run.mode), el("td", {}, when(run.started)), el("td", { class: "n" }, run.took === null ? "" : ms(run.took)),
    el("td", { class: "n" }, run.messages.toLocaleString("en")), el("td", { class: "n" }, run.exchanges.toLocaleString("en")), el("td", {}, run.run.slice(0, 8)));
}
function hit(found) {
  const said = el("div", { class: "said" });
  for (const [inside, text] of found.parts) said.append(...(inside ? [el("mark", {}, ...textNodes(text))] : textNodes(text.length > 2000 ? `${text.slice(0, 1000)} … ${text.slice(-1000)}` : text)));
  return el("div", { class: "hit" }, el("h3", {}, el("a", { href: `${data.home}run/${found.run}#seq-${found.seq}` }, ...textNodes(found.name || found.run)), " ", el("span", { class: "quiet" }, ...textNodes(`${found.type}, ${when(found.time)}`))), said);
}
const input = el("input", { type: "search", name: "q", value: data.query, placeholder: 'Search what was said: words, "a phrase", beginn*', "aria-label": "Search what was said in all runs" });
document.addEventListener("keydown", (event) => { if (event.key === "/" && !typing(event)) { event.preventDefault(); input.focus(); } });

document.body.append(
  el("header", {}, el("h1", {}, "Runs"), el("p", { class: "facts" }, ...textNodes(data.log))),
  el("div", { class: "bar" }, el("div", {}, el("form", { class: "find", action: data.home, method: "get", role: "search" }, input, el("button", {}, "Search")), compare)),
  el("main", {},
    data.query ? el("section", { class: "panel", id: "hits", "aria-label": "Found" },
      el("h2", { role: "status" }, data.problem ? "This search cannot be read" : data.hits.length ? plural(data.hits.length, "hit") : "Nothing found"),
      data.problem ? el("p", {}, ...textNodes(data.problem)) : null, ...data.hits.map(hit)) : null,
    el("section", { class: "panel", "aria-label": "Runs" }, data.runs.length ? el("table", {}, el("caption", { class: "hidden" }, "Runs, newest first"),
      el("thead", {}, el("tr", {}, ...["", "Name", "Status", "Mode", "Started", "Took", "Messages", "Requests", "Run"].map((name) => el("th", { scope: "col", class: /Took|Messages|Requests/.test(name) ? "n" : null }, name)))),
      el("tbody", {}, ...data.runs.map(row))) : el("p", {}, "The log holds no runs yet. Record or replay one first: retold run WORKFLOW"),
    data.more ? el("p", {}, el("a", { href: `${data.home}?n=${data.runs.length * 5}` }, "Older runs")) : null)));
