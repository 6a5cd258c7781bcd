"use strict";
// The page's data as rows, and which of them a panel shows. No drawing here.
let DATA, FILTERS, runs, tables;

const unpack = (columns) =>
  Array.from({ length: columns.n[0] }, (_, i) =>
    Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, values[values.length === 1 ? 0 : i]])));

/** Read the page's data: JSON, deflated to a quarter or less, in base64. */
async function readData() {
  const bytes = Uint8Array.from(atob(document.getElementById("data").textContent), (char) => char.charCodeAt(0));
  DATA = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
  FILTERS = DATA.filters;
  runs = unpack(DATA.runs);
  tables = Object.fromEntries(Object.entries(DATA.tables).map(([name, columns]) =>
    [name, unpack(columns).map((row) => (row.run === null || row.run === undefined ? row : { ...runs[row.run], ...row }))]));
}

const alike = (row, name, wanted) => !wanted || row[name] === undefined || row[name] === null || row[name] === "-" || row[name] === wanted;
const contains = (text, words) => !words || words.toLowerCase().split(/\s+/).every((word) => text.toLowerCase().includes(word));
/** Whether a row passes the filters and has all the words that are sought; a panel that no model filters is not searched either. */
const passes = (row, state, names) => names.every((name) => alike(row, name, state[name])) && (!names.includes("model") || row.label === undefined || contains(row.label, state.find));

/** Rows of a panel under a state, each with its role beside the chosen run; rows.py does the same for the page as it opens. */
function panelRows({ table, shows }, state) {
  const chosen = runs[state.run];
  const role = (row) => (chosen && row.run === chosen.run ? (chosen.dense === null ? "dense" : "compressed") : chosen && row.run === chosen.dense ? "dense" : "other");
  return tables[table].filter((row) => passes(row, state, shows.filters)).map((row) => ({ ...row, role: role(row) }))
    .filter((row) => (shows.pair ? row.role !== "other" : shows.same.every((name) => chosen && row[name] === chosen[name])));
}

/** Rows as the table view and the CSV have them: curves at one alpha, costs at the prices given. */
function tableRows(panel, state) {
  if (panel.table === "costs") return costRows(panelRows(panel, state), state);
  if (panel.table !== "curves") return panelRows(panel, state);
  const at = Math.round(state.alpha * 100) - 1;
  return tables.curves.filter((row) => passes(row, state, FILTERS)).map((row) =>
    ({ ...row, ...Object.fromEntries(["set_size", "set_size_sd", "coverage", "coverage_sd"].map((name) => [name, row[name][at]])) }));
}

/** Columns that name a row, then the panel's own; an interval is two more columns in a CSV. */
const namedBy = (rows) => ["model", "method", "level", "task", "prompt", "scorer", "protocol"].filter((name) => rows.some((row) => (row[name] ?? "") !== ""));

function csv(panel, rows) {
  const fields = panel.columns.flatMap(({ field, interval }) => (interval ? [field, `${field}_low`, `${field}_high`] : [field]));
  const alpha = panel.table === "curves" ? ["alpha"] : [];
  const names = [...namedBy(rows), ...alpha, ...fields, "snapshot"];
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) && value !== "-" ? `'${value}` : String(value); // a spreadsheet would run it as a formula
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const extra = { alpha: state.alpha, snapshot: DATA.snapshot };
  return [names.join(","), ...rows.map((row) => names.map((name) => cell(extra[name] ?? row[name])).join(","))].join("\n") + "\n";
}

/** A number in a column's form: what rounds to 0 has no sign, and one that must not look like 0 gets the decimals that show it. */
function inForm(column, value, mustShow) {
  const scaled = value * (column.times ?? 1);
  const few = column.digits;
  const digits = mustShow && Math.abs(scaled) >= 1e-12 && Number(scaled.toFixed(few)) === 0 ? Math.min(12, -Math.floor(Math.log10(Math.abs(scaled)) + 1e-9)) : few;
  const text = Math.abs(scaled).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  if (Number(scaled.toFixed(digits)) === 0) return text;
  return scaled < 0 ? `-${text}` : column.sign ? `+${text}` : text;
}

function shown(column, row) {
  const value = row[column.field];
  if (value === null || value === undefined || value === "") return "";
  if (column.digits === null || column.digits === undefined) return String(value);
  const [low, high] = [row[`${column.field}_low`], row[`${column.field}_high`]];
  if (!column.interval || low === null || low === undefined) return inForm(column, value, false);
  if (high === null || high === undefined) return `${inForm(column, value, false)} [${inForm(column, low, low > 0)}, ∞)`;
  const mustShow = low > 0 || high < 0;
  return `${inForm(column, value, mustShow)} [${inForm(column, low, mustShow)}, ${inForm(column, high, mustShow)}]`;
}
