"use strict";
// The page works without this script but for the cases of a cell, the filters and the charts.
// Text from results files goes in as text, never as HTML.
const page = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);

function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// --- filters ---------------------------------------------------------------------------------

const words = (id) => get(id).value.trim().toLowerCase().split(/[\s,]+/).filter(Boolean);
const listed = (values) => values.map((value) => value.toLowerCase());

function readFilter() {
  const models = words("by-model"), versions = words("by-version");
  const engine = get("by-engine").value;
  // A model's whole name means that one, and not those that it is a part of.
  const known = listed(page.models);
  const isModel = (model, word) => (known.includes(word) ? model === word : model.includes(word));
  const isVersion = (version, word) => version === word || version.startsWith(word + ".") ||
    (word.split(".").length === 2 && version.startsWith(word));
  return (row) =>
    (row.model === undefined || !models.length ||
      models.some((word) => isModel(row.model.toLowerCase(), word))) &&
    (row.version === undefined || !versions.length ||
      row.version.split(" ").some((version) => versions.some((word) => isVersion(version, word)))) &&
    (!row.engine || !engine || row.engine === engine);
}

let matches = readFilter();

function applyFilter() {
  matches = readFilter();
  const troubled = get("by-trouble").checked;
  for (const element of document.querySelectorAll("[data-model],[data-version],[data-versions],[data-operation]")) {
    const { model, version, versions, engine } = element.dataset;
    const fine = troubled && element.tagName === "TR" && element.dataset.trouble === undefined &&
      element.closest("#verdicts .heat, #routes .routes, #operations .heat");
    element.hidden = fine || !matches({ model, version: versions ?? version, engine });
  }
  const models = page.models.filter((model) => matches({ model })).length;
  const columns = page.columns.filter((column) => matches(column)).length;
  const part = (count, of, name) =>
    `${count === of ? of : `${count} of ${of}`} ${name}${of === 1 ? "" : "s"}`;
  get("shown").textContent = part(models, page.models.length, "model") +
    (page.columns.length ? ", " + part(columns, page.columns.length, "column") : "");
  drawAll();
}

for (const id of ["by-model", "by-version"]) get(id).addEventListener("input", applyFilter);
for (const id of ["by-engine", "by-trouble"]) get(id).addEventListener("change", applyFilter);

// --- charts ----------------------------------------------------------------------------------

function drawBox(box) {
  const { chart, of, group } = box.dataset;
  const all = page.rows[chart].filter((row) =>
    (of === undefined || row.model === of) && (group === undefined || row.group === group));
  return draw(box, chart, all.filter(matches), all);
}

// Colour and shape of a series come from its place among all of them: a filter does not change
// them, and one legend tells both, which Vega-Lite merges for equal domains only.
function nameSeries(spec, rows) {
  for (const { encoding } of spec.layer) {
    for (const channel of [encoding.color, encoding.shape]) {
      if (channel?.field) channel.scale = { domain: [...new Set(rows.map((row) => row[channel.field]))] };
    }
  }
}

async function draw(box, name, rows, all = rows) {
  box.view?.finalize();
  box.view = undefined;
  if (!rows.length) {
    box.replaceChildren(node("p", { class: "empty" }, "nothing to draw with this filter"));
    return;
  }
  const spec = { ...structuredClone(page.charts[name]), data: { values: rows } };
  nameSeries(spec, all);
  // Bars need room; Vega-Lite can't count them where the width is the page's.
  if (spec.height.step) spec.height = 17 * rows.length;
  // One line needs no legend.
  if (new Set(rows.map((row) => row.series ?? row.who ?? row.node)).size < 2)
    spec.config = { ...spec.config, legend: { ...spec.config.legend, disable: true } };
  const options = { mode: "vega-lite", actions: false, renderer: "svg", tooltip: { theme: "custom" } };
  box.view = (await vegaEmbed(box, spec, options)).view;
}

// What is in sight is drawn first, the rest when the browser has nothing else to do.
const idle = window.requestIdleCallback ?? ((run) => setTimeout(run, 30));
let waiting = new Set();
let working = false;
const visible = new IntersectionObserver((entries) => {
  for (const entry of entries) entry.target.visible = entry.isIntersecting;
}, { rootMargin: "300px" });

function drawAll() {
  waiting = new Set([...document.querySelectorAll(".chart[data-chart]")]);
  if (!working) drawNext();
}

function drawNext() {
  const boxes = [...waiting].filter((box) => !box.closest("[hidden]"));
  const box = boxes.find((one) => one.visible) ?? boxes[0];
  working = box !== undefined;
  if (!working) return document.body.setAttribute("data-drawn", "");
  document.body.removeAttribute("data-drawn");
  waiting.delete(box);
  idle(() => drawBox(box).catch(console.error).then(drawNext));
}

for (const box of document.querySelectorAll(".chart[data-chart]")) visible.observe(box);

// --- layer profiles --------------------------------------------------------------------------

function figure(value) {
  if (typeof value !== "number") return value ?? "-";
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}

const positive = (value) => (typeof value === "number" && value > 0 ? value : null);

function drawLayers() {
  const model = get("layer-model").value, choice = get("layer-column").value;
  const line = page.layers.find((one) =>
    one.model === model && `${one.column}/${one.variant}` === choice);
  if (!line) {
    get("layer-worst").replaceChildren();
    return draw(get("layer-chart"), "layers", []);
  }
  const [nodes, ops, observed, noise, allowed] =
    ["nodes", "ops", "observed", "noise", "allowed"].map((name) => page.arrays[line[name]]);
  const layers = nodes.map((name, place) => ({
    place: place + 1, node: name, op: ops[place], observed: observed[place], noise: noise[place],
    allowed: allowed[place],
  }));
  const rows = layers.map((layer) => ({
    ...layer, observed: positive(layer.observed), noise: positive(layer.noise),
    allowed: positive(layer.allowed),
  }));
  get("layer-worst").replaceChildren(worstLayers(layers));
  return draw(get("layer-chart"), "layers", rows);
}

function worstLayers(layers) {
  const used = (layer) => typeof layer.observed === "string" ? Infinity
    : layer.allowed ? layer.observed / layer.allowed : -1;
  const worst = layers.filter((layer) => layer.observed !== null)
    .sort((a, b) => used(b) - used(a)).slice(0, 8);
  const row = (layer) => [node("th", { scope: "row" }, layer.node), layer.op,
    ...[layer.observed, layer.noise, layer.allowed].map((v) => node("td", { class: "n" }, figure(v)))];
  const heads = ["node", "operation", "observed", "noise floor", "allowed"];
  return table("The layers that use most of what is allowed", heads, worst.map(row));
}

const FIGURES = ["observed", "noise floor", "allowed", "L1 to float64", "L1 / noise", "ms"];

function table(caption, heads, rows) {
  const cells = (row) => row.map((cell) => (cell.tagName === "TH" || cell.tagName === "TD")
    ? cell : node("td", {}, cell));
  return node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    node("table", { class: "list" }, node("caption", {}, caption),
      node("thead", {}, node("tr", {}, ...heads.map((h) =>
        node("th", { scope: "col", class: FIGURES.includes(h) ? "n" : "" }, h)))),
      node("tbody", {}, ...rows.map((row) => node("tr", {}, ...cells(row))))));
}

if (get("layer-model")) {
  get("layer-model").addEventListener("change", drawLayers);
  get("layer-column").addEventListener("change", drawLayers);
  drawLayers();
}

// --- the cases of a cell ---------------------------------------------------------------------

const SYMBOLS = { failed: "✗", errored: "!", xfailed: "x", skipped: "s", passed: "✓" };
const ORDER = Object.keys(SYMBOLS);

function readCase(row) {
  const text = (place) => (row[place] === undefined || row[place] === null) ? "" : page.texts[row[place]];
  return { outcome: text(0), test: text(1), metric: text(2), observed: row[3], allowed: row[4],
    reason: text(5), command: text(6) };
}

function mark(outcome) {
  return node("span", { class: `mark ${outcome}`, title: outcome },
    node("span", { "aria-hidden": "true" }, SYMBOLS[outcome]),
    node("span", { class: "hidden" }, outcome));
}

function used(one) {
  if (typeof one.observed !== "number" || typeof one.allowed !== "number" || !one.allowed) return "";
  const share = one.observed / one.allowed;
  const bar = node("i", share > 1 ? { class: "over" } : {});
  bar.style.width = `${Math.min(100, share * 100)}%`;
  return node("span", { class: "share" }, node("span", { class: "used", "aria-hidden": "true" }, bar),
    `${share > 9.99 ? share.toPrecision(3) * 100 : Math.round(share * 100)} %`);
}

function commandLine(command) {
  const button = node("button", { type: "button", class: "copy" }, "Copy");
  return node("p", { class: "command" }, node("code", {}, command), button);
}

function troubleOf(one) {
  const parts = [node("h3", {}, mark(one.outcome), ` ${one.test}`)];
  if (one.observed !== undefined && one.observed !== null)
    parts.push(node("p", {}, `observed ${figure(one.observed)}, allowed ${figure(one.allowed)}`));
  if (one.reason) parts.push(node("pre", {}, one.reason));
  if (one.command) parts.push(commandLine(one.command));
  return node("article", {}, ...parts);
}

function caseRow(one) {
  const test = node("th", { scope: "row" }, one.test);
  const figures = [one.observed, one.allowed].map((v) => node("td", { class: "n" }, figure(v)));
  return [mark(one.outcome), test, ...figures, used(one)];
}

function showCell(index, model) {
  const cell = page.cells[index]?.[model], column = page.columns[index];
  if (!cell) return;
  const cases = cell.cases.map(readCase)
    .sort((a, b) => ORDER.indexOf(a.outcome) - ORDER.indexOf(b.outcome));
  const runs = cell.runs.map(([variant, ms, mib]) =>
    `${variant ? variant + ": " : ""}${figure(ms)} ms a forward, peak ${Math.round(mib)} MiB`);
  get("cases-heading").textContent =
    [`${model} on OpenCV ${column.label}`, column.group].filter(Boolean).join(", ");
  get("cases-body").replaceChildren(
    node("p", { class: "small" }, [column.distribution, column.file, ...runs].join(" · ")),
    ...cases.filter((one) => one.outcome !== "passed").map(troubleOf),
    table(`All ${cases.length} cases`, ["", "case", "observed", "allowed", "used"],
      cases.map(caseRow)));
  if (!get("cases").open) get("cases").showModal();
  get("cases").scrollTop = 0;
}

// The routes of a cell: which conform, how near and how fast each is, what is wrong with the others.
const STATES = { "conforms": "passed", "conforms, one image at a time": "single", "does not conform": "failed" };

function routeRow(row, model) {
  const [title, state, deviation, noise, ms, column, bad, reason] = row;
  const text = (place) => (place === null ? "" : page.texts[place]);
  const figures = [figure(deviation ?? undefined), deviation !== null && noise ? figure(deviation / noise) : "-", figure(ms ?? undefined)];
  const cases = node("a", { href: `#c${column}/${model}` }, bad ? `${bad} not passed` : "all passed");
  const why = node("div", { class: "small" }, text(reason).split("\n")[0]);
  return [node("th", { scope: "row", class: "route" }, text(title)),
    node("span", { class: `mark ${STATES[text(state)] ?? "not-run"}`, "aria-hidden": "true" }, { failed: "✗", passed: "✓", single: "✓" }[STATES[text(state)]] ?? "-"),
    text(state), ...figures.map((one) => node("td", { class: "n" }, one)), node("td", {}, cases, reason === null ? "" : why)];
}

function showRoutes(number, place, model) {
  const shown = page.routes[number], rows = shown?.rows[model]?.[place];
  if (!rows) return;
  get("cases-heading").textContent =
    [`${model} on OpenCV ${shown.versions[place]}: routes`, shown.name].filter(Boolean).join(", ");
  const heads = ["route", "", "verdict", "L1 to float64", "L1 / noise", "ms", "cases"];
  get("cases-body").replaceChildren(table("L1: median input; ms: median of the forwards made while judging", heads,
    rows.map((row) => routeRow(row, model))));
  if (!get("cases").open) get("cases").showModal();
  get("cases").scrollTop = 0;
}

// The findings of an operation's cell, copied from the list below the tables.
function showFindings(cell) {
  const [, place, operation] = /^#o([\d.]+)\/(.+)$/.exec(cell.hash);
  const [table, column] = place.split(".").map(Number);
  get("cases-heading").textContent = `${operation} on ${page.operations[table][column]}`;
  const copies = cell.dataset.findings.split(" ").map((id) => {
    const copy = get(`f-${id}`).cloneNode(true);
    copy.removeAttribute("id");
    copy.hidden = false;
    copy.open = true;
    return node("div", {}, copy, node("p", { class: "small" },
      node("a", { href: `#f-${id}` }, "in the list of findings")));
  });
  get("cases-body").replaceChildren(node("p", {}, cell.title), ...copies);
  if (!get("cases").open) get("cases").showModal();
  get("cases").scrollTop = 0;
}

function showFinding(finding) {
  get("cases").close();
  finding.hidden = false;
  for (let one = finding; one; one = one.parentElement.closest("details")) one.open = true;
  finding.scrollIntoView();
}

function followHash() {
  const hash = decodeURIComponent(location.hash);
  const [, index, model] = /^#c(\d+)\/(.+)$/.exec(hash) ?? [];
  const [, number, place, routed] = /^#r(\d+)\.(\d+)\/(.+)$/.exec(hash) ?? [];
  const cell = hash.startsWith("#o") && document.querySelector(`a[href="${CSS.escape(hash)}"]`);
  const finding = hash.startsWith("#f-") && get(hash.slice(1));
  if (model) showCell(Number(index), model);
  else if (routed) showRoutes(Number(number), Number(place), routed);
  else if (cell) showFindings(cell);
  else if (finding) showFinding(finding);
  else if (get("cases").open) get("cases").close();
}

get("cases").addEventListener("close", () => {
  if (/^#[cor]\d/.test(location.hash)) history.replaceState(null, "", location.pathname + location.search);
});
get("cases").addEventListener("click", (event) => {
  if (event.target === get("cases")) get("cases").close();
});
window.addEventListener("hashchange", followHash);

document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy");
  if (!button) return;
  const code = button.previousElementSibling;
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});

// A model's name in the summary chooses that model.
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-pick]");
  if (!link) return;
  get("by-model").value = link.dataset.pick;
  applyFilter();
});

window.addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("#failures details, #operations .importer, .findings")) one.open = true;
});

applyFilter();
followHash();
