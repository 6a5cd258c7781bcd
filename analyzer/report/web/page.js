// State in the URL fragment, controls, tables and charts.
const byId = (id) => document.getElementById(id);
const pick = (selector) => [...document.querySelectorAll(selector)];
const PAPER = "700px"; // width of A4 or letter within its margins
const ROWS = 10; // of a list, until all are asked for
const unfolded = new Set(["table-watch"]); // lists that show all their rows; no row of the monitor is ever hidden
const initial = () => ({ alpha: DATA.alpha, metric: "set_size_change", scorer: DATA.scorer, protocol: DATA.protocol, run: null, prices: { ...DATA.prices, saving: null } });
let state;
const views = {};

function readFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = initial();
  pick("[data-filter]").forEach(({ dataset, options }) => {
    const value = given.get(dataset.filter);
    if (value && [...options].some((option) => option.value === value)) state[dataset.filter] = value;
  });
  state.find = given.get("find") ?? undefined;
  const alpha = Number(given.get("alpha"));
  if (alpha >= 0.01 && alpha <= 0.99) state.alpha = Math.round(alpha * 100) / 100;
  if ([...byId("metric").options].some((option) => option.value === given.get("metric"))) state.metric = given.get("metric");
  const run = runs.findIndex((one) => one.label === given.get("run"));
  if (run >= 0) state.run = run;
  pick("[data-price]").forEach(({ dataset }) => {
    const text = given.get(`price.${dataset.price}`);
    if (text && Number(text) >= 0) state.prices[dataset.price] = Number(text);
  });
}

function writeFragment() {
  const start = initial();
  const kept = [...FILTERS, "find", "alpha", "metric"].filter((name) => (state[name] ?? "") !== (start[name] ?? "")).map((name) => [name, state[name]]);
  const prices = Object.entries(state.prices).filter(([name, value]) => value !== start.prices[name]).map(([name, value]) => [`price.${name}`, value]);
  const run = state.picked && runs[state.run] ? [["run", runs[state.run].label]] : [];
  history.replaceState(null, "", `#${new URLSearchParams([...kept, ...run, ...prices])}`);
}

/** The runs that can be chosen under the filters; the one whose sets grew most stands first when none is. */
function offerRuns() {
  const compressed = runs.filter((run) => run.dense !== null && passes(run, state, FILTERS));
  const offered = compressed.length ? compressed : runs.filter((run) => passes(run, state, FILTERS));
  if (!offered.some((run) => run.run === state.run)) {
    const grown = tables.pairs.filter((row) => passes(row, state, FILTERS) && !row.unreliable).sort((a, b) => b.set_size_change - a.set_size_change)[0];
    state.run = grown ? grown.run : offered.length ? offered[0].run : null;
    state.picked = false;
  }
  byId("chosen").replaceChildren(...offered.map((run) => new Option(run.label, run.run, false, run.run === state.run)));
}

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text; // never innerHTML: names come from a store
  made.append(...children);
  return made;
}

function table(heads, rows) {
  const head = element("tr", null, ...heads.map((text) => Object.assign(element("th", text), { scope: "col" })));
  const body = rows.map((cells) => element("tr", null, ...cells.map((text) => Object.assign(element("td", text), { className: /^[+-]?[\d.,]+( \[|$)/.test(text) ? "number" : "" }))));
  return element("table", null, element("thead", null, head), element("tbody", null, ...body));
}

/** Fill a table; a text that all rows share is said once above them. */
function fillTable(panel) {
  const box = byId(`table-${panel.id}`);
  if (!box?.open) return;
  const rows = tableRows(panel, state);
  const columns = [...namedBy(rows).map((name) => ({ field: name, title: name })), ...panel.columns];
  const isShared = ({ field, digits }) => rows.length > 1 && (digits ?? null) === null && new Set(rows.map((row) => row[field] ?? "")).size === 1;
  const shared = columns.filter((column) => isShared(column) && shown(column, rows[0]));
  const own = columns.filter((column) => !isShared(column));
  const few = unfolded.has(box.id) ? rows : rows.slice(0, ROWS);
  offerMore(box.querySelector(".more"), box.id, few.length, rows.length);
  const said = shared.map((column) => element("span", null, `${column.title} `, element("b", shown(column, rows[0]))));
  box.querySelector(".shared").replaceChildren(...(shared.length ? ["All rows: ", ...said] : []));
  box.querySelector("div").replaceChildren(table(own.map((column) => column.title), few.map((row) => own.map((column) => shown(column, row)))));
}

/** Say how many rows of a list are shown, with a button for all. */
function offerMore(place, list, count, total) {
  place.replaceChildren();
  if (count === total) return;
  const button = Object.assign(element("button", `Show all ${total}`), { type: "button" });
  button.dataset.more = list;
  place.append(`${count} of ${total} `, button);
}

/** The rows of a chart that is a list, in its order; the first lines of them, until all are asked for. */
function listedRows(panel, rows) {
  if (!panel.listed) return rows;
  const { field, order, falls } = panel.listed;
  const place = (row) => (row[order] === null || row[order] === undefined ? Infinity : falls ? -row[order] : row[order]);
  const sorted = [...rows].sort((a, b) => (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0));
  const lines = [...new Set(sorted.map((row) => row[field]))];
  const few = new Set(unfolded.has(panel.id) ? lines : lines.slice(0, ROWS));
  offerMore(byId(`more-${panel.id}`), panel.id, few.size, lines.length);
  return sorted.filter((row) => few.has(row[field]));
}

/** Mark boxes that are wider than their place, so that what is hidden is announced. */
function cueBoxes() {
  pick(".scroll").forEach((box) => {
    box.classList.toggle("wide-box", box.scrollWidth > box.clientWidth + 1);
    box.classList.toggle("at-end", box.scrollLeft + box.clientWidth >= box.scrollWidth - 1);
  });
}

function fillFlipped() {
  const box = byId("flipped");
  if (!box.open) return;
  const texts = new Map(tables.texts.map((row) => [`${row.task} ${row.item}`, row]));
  const all = tables.items.filter((row) => row.run === state.run);
  const few = unfolded.has(box.id) ? all : all.slice(0, ROWS);
  offerMore(box.querySelector(".more"), box.id, few.length, all.length);
  const rows = few.map((row) => {
    const text = texts.get(`${row.task} ${row.item}`);
    const change = `${inForm({ digits: 0, sign: true, times: 100 }, row.answer_prob_change, false)} %`;
    return [row.id, text?.question ?? "(no text in the store)", text?.options ?? "", row.subject, row.answer, row.dense, row.compressed, change];
  });
  box.querySelector("div").replaceChildren(table(["id", "question", "options", "subject", "answer", "dense run chose", "compressed run chose", "change in the answer's prob"], rows));
}

async function draw(panel) {
  const rows = listedRows(panel, panel.table === "costs" ? comparedCosts(state) : panelRows(panel, state));
  const section = byId(`panel-${panel.id}`);
  if (!section) return;
  section.classList.toggle("bare", !rows.length);
  section.querySelector(".empty")?.toggleAttribute("hidden", rows.length > 0);
  const wide = panel.id === "heat" ? 110 + 84 * new Set(rows.map((row) => row.column)).size : 0;
  for (const [name, spec] of Object.entries(panel.charts)) {
    const box = byId(`chart-${name}`);
    box.hidden = !rows.length;
    box.style.minWidth = `${wide}px`;
    if (!rows.length) continue;
    if (!views[name]) {
      views[name] = vegaEmbed(box, { ...spec, datasets: { ...spec.datasets, rows } }, { actions: false, ast: true, renderer: "svg", defaultStyle: false, logLevel: 1, tooltip: { disableDefaultStyle: true } }).then((made) => made.view);
    }
    const view = await views[name];
    view.data("rows", rows.map((row) => ({ ...row })));
    for (const signal of ["alpha", "metric"]) if (spec.params?.some((param) => param.name === signal)) view.signal(signal, state[signal]);
    await view.resize().runAsync();
  }
}

function say() {
  const chosen = runs[state.run];
  pick("[data-chosen]").forEach((box) => { box.textContent = chosen ? `Shown: ${chosen.label}` : ""; });
  const at = Math.round(state.alpha * 100) - 1;
  const sizes = Object.fromEntries(panelRows({ table: "curves", shows: { filters: ["scorer", "protocol"], pair: true } }, state).map((row) => [row.role, row.set_size[at].toFixed(2)]));
  byId("alpha-said").textContent = `${state.alpha.toFixed(2)}: ` + (sizes.dense ? `${sizes.dense} options dense` : "") + (sizes.compressed ? `, ${sizes.compressed} compressed` : "");
  byId("cost-said").textContent = cheapest(comparedCosts(state).filter((row) => !row.unreliable));
}

/** The cheapest run of every task, among those of compressed models that may ship, as a change from its dense run. */
function cheapest(rows) {
  const compared = rows.some((row) => row.change);
  const passed = new Set(pick(".card").filter((card) => card.dataset.result === "pass").map(({ dataset }) => [dataset.model, dataset.method, dataset.level].join("\n")));
  const allowed = compared ? rows.filter((row) => passed.has([row.model, row.method, row.level].join("\n"))) : rows;
  if (compared && !allowed.length) return "None of these compressed models may ship yet, so none is called the cheapest.";
  const least = new Map();
  for (const row of allowed) if (!(least.get(row.where)?.cost <= row.cost)) least.set(row.where, row);
  const amount = (row, name, sign) => shown({ field: name, digits: 2, interval: true, sign }, row);
  const parts = [...least.values()].map((row) => `on ${row.where} ${row.model} ${row.name}, ${compared ? `${amount(row, "cost_change", true)} compared with its dense run` : amount(row, "cost", false)}`);
  return parts.length ? `Cheapest${compared ? " that may ship" : ""}, per 1,000 questions: ${parts.join("; ")}.` : "";
}

/** Whether a compressed model, as an element of the page describes it, is left by the filters and the words that are sought. */
const keeps = ({ model, method, tasks, label }) =>
  alike({ model }, "model", state.model) && alike({ method }, "method", state.method) && (!state.task || tasks.split("\n").includes(state.task)) && contains(label, state.find);

/** The lists of the verdict: how many models, and the first of them. */
function showSummary() {
  pick(".column").forEach((column) => {
    const all = [...column.querySelectorAll(".one")];
    const kept = all.filter((one) => keeps(one.querySelector(".chip").dataset));
    all.forEach((one) => {
      one.hidden = !kept.includes(one);
      one.classList.toggle("late", kept.indexOf(one) >= ROWS);
    });
    column.querySelectorAll(".of-model").forEach((model) => {
      model.hidden = !model.querySelector(".one:not([hidden])");
      model.classList.toggle("late", !model.querySelector(".one:not([hidden], .late)"));
    });
    column.querySelector(".count").textContent = kept.length === all.length ? all.length : `${kept.length} of ${all.length}`;
    const button = column.querySelector(".unfold");
    button.textContent = `Show all ${kept.length}`;
    button.hidden = kept.length <= ROWS || !column.classList.contains("folded");
  });
}

function showCards() {
  const kept = {};
  const results = new Set(pick(".card").map((card) => card.dataset.result)).size;
  pick(".card").forEach((card) => {
    const { result } = card.dataset;
    const keep = keeps(card.dataset);
    card.hidden = !keep;
    if (keep) kept[result] = (kept[result] ?? 0) + 1;
    card.classList.toggle("late", keep && kept[result] > Math.ceil(6 / results));
  });
  byId("unfold")?.toggleAttribute("hidden", !document.querySelector(".folded .late"));
}

function setControls() {
  pick("[data-filter]").forEach((select) => { select.value = state[select.dataset.filter] ?? ""; });
  if (document.activeElement !== byId("find")) byId("find").value = state.find ?? "";
  byId("metric").value = state.metric;
  byId("alpha").value = state.alpha;
  pick("[data-price]").forEach((input) => { if (document.activeElement !== input) input.value = state.prices[input.dataset.price] ?? ""; });
}

let drawing = Promise.resolve();
let waiting = 0;
function update() {
  offerRuns();
  setControls();
  showSummary();
  showCards();
  say();
  DATA.panels.forEach(fillTable);
  fillFlipped();
  const turn = ++waiting;
  document.body.toggleAttribute("data-drawing", true);
  drawing = drawing.then(async () => {
    for (const panel of DATA.panels) if (turn === waiting) await draw(panel); // a newer state makes this one superfluous
    cueBoxes();
    if (turn === waiting) document.body.toggleAttribute("data-drawing", false);
  });
}

function changed() {
  update();
  writeFragment();
}

function choose(id) {
  state.run = id;
  state.picked = true;
}

/** Show a compressed model of the verdict: its card, and its run wherever one run is shown. */
function showModel({ model, method, level }) {
  const run = runs.find((one) => one.model === model && one.method === method && one.level === level && one.dense !== null);
  if (run) choose(run.run);
  byId("cards").classList.remove("folded");
  changed();
  const card = pick(".card").find((one) => one.dataset.model === model && one.dataset.method === method && one.dataset.level === level);
  card?.scrollIntoView({ block: "center" });
  card?.focus({ preventScroll: true });
}

function download(panel) {
  const link = element("a", null);
  link.href = URL.createObjectURL(new Blob([csv(panel, tableRows(panel, state))], { type: "text/csv" }));
  link.download = `hedgemark-${panel.id}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function start() {
  document.addEventListener("input", ({ target }) => {
    const { filter, price } = target.dataset;
    if (filter) state[filter] = target.value || undefined;
    else if (price) state.prices[price] = target.value === "" ? (price === "saving" ? null : DATA.prices[price]) : Number(target.value);
    else if (target.id === "alpha") state.alpha = Number(target.value);
    else if (target.id === "find") state.find = target.value.trim() || undefined;
    else if (target.id === "metric") state.metric = target.value;
    else if (target.id === "chosen") choose(Number(target.value));
    changed();
  });
  document.addEventListener("click", ({ target }) => {
    if (target.matches(".chip")) showModel(target.dataset);
    if (target.dataset.csv) download(DATA.panels.find((panel) => panel.id === target.dataset.csv));
    if (target.id === "reset") { state = initial(); changed(); }
    if (target.matches(".unfold")) { target.closest(".column").classList.remove("folded"); showSummary(); }
    if (target.dataset.more) { unfolded.add(target.dataset.more); update(); }
    if (target.id === "unfold") { byId("cards").classList.remove("folded"); showCards(); }
  });
  document.addEventListener("toggle", () => { DATA.panels.forEach(fillTable); fillFlipped(); cueBoxes(); }, true);
  document.addEventListener("scroll", ({ target }) => { if (target.matches?.(".scroll")) cueBoxes(); }, true);
  addEventListener("resize", cueBoxes);
  for (const [event, width] of [["beforeprint", PAPER], ["afterprint", ""]]) {
    addEventListener(event, () => { // charts are drawn again for the width of paper, so that their words keep their size
      document.body.style.width = width;
      pick(".panel details.on-paper").forEach((box) => { box.open = true; unfolded.add(box.id); });
      DATA.panels.forEach(fillTable);
      dispatchEvent(new Event("resize"));
    });
  }
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => { if (location.hash && !location.hash.includes("=")) return; readFragment(); state.picked = state.run !== null; update(); });
  readFragment();
  state.picked = state.run !== null;
  update();
}

document.body.dataset.drawing = "";
readData().then(start, (error) => byId("main").prepend(element("p", `This browser cannot unpack the figures of this page; one of 2023 or later can. (${error.message})`)));
