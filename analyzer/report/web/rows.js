"use strict";
// The page's data as rows, and which of them a panel shows. No drawing here.
const DATA = JSON.parse(document.getElementById("data").textContent);
const SINGLE = ["scorer", "protocol"];
const FILTERS = ["model", "method", "task", "prompt", ...SINGLE];

const unpack = (columns) =>
  Array.from({ length: columns.n[0] }, (_, i) =>
    Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, values[values.length === 1 ? 0 : i]])));

const runs = unpack({ n: [DATA.runs.model.length], ...DATA.runs });
const manyPrompts = new Set(runs.map((run) => run.prompt)).size > 1;
runs.forEach((run, id) => {
  run.id = id;
  run.name = (run.level === "-" ? run.method : `${run.method} ${run.level}`) + (run.twin ? ` #${run.twin}` : "");
  run.place = manyPrompts ? `${run.task} · ${run.prompt}` : run.task;
  run.column = `${run.model} · ${run.place}`;
  run.label = `${run.model} · ${run.name} · ${run.place}`;
  run.kind = run.level.includes(":") ? "n:m" : /^[\d.e+-]+$/.test(run.level) ? "share" : "bits";
});
const tables = Object.fromEntries(Object.entries(DATA.tables).map(([name, columns]) =>
  [name, unpack(columns).map((row) => (row.run === null || row.run === undefined ? row : { ...runs[row.run], ...row }))]));

const alike = (row, name, wanted) => !wanted || row[name] === undefined || row[name] === null || row[name] === "-" || row[name] === wanted;
const passes = (row, state, names) => names.every((name) => alike(row, name, state[name]));
const sameGroup = (row, chosen, names) => chosen && names.every((name) => row[name] === chosen[name]);

/** Rows of a panel under a state, each with its role beside the chosen run. */
function panelRows(panel, state) {
  const chosen = runs[state.run];
  const role = (row) => (chosen && row.run === chosen.id ? (chosen.dense === null ? "dense" : "compressed") : chosen && row.run === chosen.dense ? "dense" : "other");
  const rows = tables[panel.table].filter((row) => {
    if (panel.follows === "pair") return passes(row, state, SINGLE) && role(row) !== "other";
    if (panel.follows === "neighbours") return passes(row, state, SINGLE) && sameGroup(row, chosen, ["model", "task", "prompt"]);
    if (panel.follows === "sweep") return passes(row, state, SINGLE) && sameGroup(row, chosen, ["model", "task", "prompt", "kind"]);
    if (panel.follows === "task") return passes(row, state, FILTERS.filter((name) => name !== "task" && name !== "prompt")) && sameGroup(row, chosen, ["task", "prompt"]);
    return passes(row, state, FILTERS);
  });
  return rows.map((row) => ({ ...row, role: role(row) }));
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
const namedBy = (rows) => ["model", "method", "level", "task", "prompt", ...SINGLE].filter((name) => rows.some((row) => row[name] !== undefined));

function csv(panel, rows) {
  const fields = panel.figures.flatMap((figure) => (figure.interval ? [figure.field, `${figure.field}_low`, `${figure.field}_high`] : [figure.field]));
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

function shown(figure, row) {
  const number = (value) => {
    const text = (value * (figure.times ?? 1)).toLocaleString("en-US", { minimumFractionDigits: figure.digits, maximumFractionDigits: figure.digits });
    return figure.sign && value > 0 ? `+${text}` : text;
  };
  const value = row[figure.field];
  if (value === null || value === undefined || value === "") return "";
  if (figure.digits === null || figure.digits === undefined) return String(value);
  const [low, high] = [row[`${figure.field}_low`], row[`${figure.field}_high`]];
  return figure.interval && low !== null && low !== undefined && high !== null ? `${number(value)} [${number(low)}, ${number(high)}]` : number(value);
}
