// Cost per 1,000 questions: prices times rates of set sizes, with the interval that the rates' covariance gives.
const THOUSAND = 1000;

/** Price of each rate: sets of 0, 1, .. K options, then the share with one wrong option. */
function priced(prices, count) {
  const ofSize = (size) => (size === 0 ? prices.abstain : size === 1 ? prices.answer : size <= prices.ask_again_up_to ? prices.ask_again : prices.review);
  return Array.from({ length: count }, (_, i) => THOUSAND * (i === count - 1 ? prices.wrong : ofSize(i)));
}

/** Standard error of a weighted sum; `upper` is the upper triangle of the covariance, row by row. */
function spread(weights, upper) {
  let sum = 0;
  let place = 0;
  for (let i = 0; i < weights.length; i++) {
    for (let j = i; j < weights.length; j++) sum += (i === j ? 1 : 2) * weights[i] * weights[j] * upper[place++];
  }
  return Math.sqrt(Math.max(sum, 0));
}

const dot = (one, other) => one.reduce((sum, value, i) => sum + value * other[i], 0);
const interval = (name, value, half) => ({ [name]: value, [`${name}_low`]: value - half, [`${name}_high`]: value + half });

function costOf(row, prices) {
  const weights = priced(prices, row.rates.length);
  const found = interval("cost", dot(weights, row.rates), row.t * spread(weights, row.covariance));
  found.cost_low = Math.max(found.cost_low, 0);
  if (!row.change) return found;
  const change = dot(weights, row.change);
  const half = row.t * Math.hypot(spread(weights, row.change_covariance), 1 / row.n_items);
  Object.assign(found, interval("cost_change", change, half), { dense_cost: found.cost - change });
  const saving = prices.saving ?? row.saving;
  if (saving === null || saving === undefined) return found;
  const total = interval("total_change", change - saving, half);
  const pays = total.total_change_high <= 0 ? "saves" : total.total_change_low > 0 ? "costs more" : "inconclusive";
  return Object.assign(found, total, { pays }, breakEven(row, prices, weights, total.total_change));
}

/** The review price at which compression neither saves nor costs, with Fieller's interval; null where reviews may not grow at all. */
function breakEven(row, prices, weights, total) {
  const review = weights.map((_, size) => (size < weights.length - 1 && size > Math.max(prices.ask_again_up_to, 1) ? THOUSAND : 0));
  const grown = dot(review, row.change);
  const error = Math.hypot(spread(review, row.change_covariance), THOUSAND / row.n_items);
  const none = { break_even: null, break_even_low: null, break_even_high: null };
  if (!(grown - row.t * error > 0)) return none;
  const variance = (sign) => spread(weights.map((weight, i) => weight + sign * review[i]), row.change_covariance) ** 2;
  const both = (variance(1) - variance(-1)) / 4;
  const ofTotal = Math.hypot(spread(weights, row.change_covariance), 1 / row.n_items);
  const [a, b, c] = [grown ** 2 - (row.t * error) ** 2, grown * total - row.t ** 2 * both, total ** 2 - (row.t * ofTotal) ** 2];
  const half = Math.sqrt(Math.max(b * b - a * c, 0)) / a;
  const price = prices.review - total / grown;
  if (!(price > 0)) return none;
  return { break_even: price, break_even_low: Math.max(prices.review - b / a - half, 0), break_even_high: prices.review - b / a + half };
}

const costRows = (rows, state) => rows.map((row) => ({ ...row, ...costOf(row, state.prices) }));

/** Costs of the compressed runs under the filters; of all runs where none is compressed. */
function comparedCosts(state) {
  const rows = costRows(panelRows({ table: "costs", shows: { filters: FILTERS, same: [] } }, state), state);
  const compared = rows.filter((row) => row.change);
  return compared.length ? compared : rows;
}
