// The figures of bench/report/leaderboard.py, computed from rows of the page. tests/browser holds the two equal.

// rows: positions in the embedded columns; by: ["strategy"], ["backbone"] or both. What needs resamples (P(best), within,
// the interval of the IQM) is missing until `board.resampling`, a generator that works in small steps, has run.
function leaderboard(data, rows, by) {
  const { columns, labels } = data;
  const shared = ["dataset", "backbone", "strategy", "size", "amount"].filter((name) => !by.includes(name));
  const code = (names) => (row) => names.reduce((sum, name) => sum * labels[name].length + columns[name][row], 0);
  const [entryOf, blockOf] = [code(by), code(shared)];
  const entries = new Map();
  const blocksAny = new Set();
  for (const row of rows) {
    const [key, block] = [entryOf(row), blockOf(row)];
    if (!entries.has(key)) {
      const names = by.map((name) => labels[name][columns[name][row]]);
      entries.set(key, { key, names, label: names.join(" · "), first: row, cells: new Map(), runs: 0, runsAny: 0 });
    }
    const entry = entries.get(key);
    entry.runsAny += 1;
    if (columns.auc[row] === null) continue;
    blocksAny.add(block);
    entry.runs += 1;
    if (!entry.cells.has(block)) entry.cells.set(block, []);
    entry.cells.get(block).push(row);
  }
  const table = [...entries.values()].sort((a, b) => a.key - b.key);
  const numbered = [...blocksAny].sort((a, b) => a - b);
  const there = table.map((entry) => {
    const seen = by.includes("strategy") && data.tags[entry.names[0]];
    return Uint8Array.from(numbered, (b) => (!seen && entry.cells.has(b) ? 1 : 0));
  });
  const controls = by.join() === "strategy" ? data.controls.map((name) => table.findIndex((entry) => entry.label === name)).filter((e) => e >= 0) : [];
  const [chosen, complete] = comparable(there, controls, data.minShare);
  const ranked = chosen.map((e) => table[e]);
  const whole = complete.map((b) => numbered[b]);
  const several = whole.filter((b) => ranked.every((entry) => entry.cells.get(b).length > 1));
  const used = several.length >= data.minShare * whole.length ? several : whole;
  for (const entry of table) {
    entry.ranked = ranked.includes(entry);
    entry.blocksUsed = used.filter((b) => entry.cells.has(b)).length;
  }
  const datasetOf = new Map();
  for (const b of used) datasetOf.set(b, columns.dataset[ranked[0].cells.get(b)[0]]);
  const testedOn = new Map([...datasetOf].map(([b, dataset]) => [b, data.testedOn[dataset]]));
  const control = by.includes("strategy") && data.controls.find((name) => ranked.some((entry) => entry.names[0] === name));
  const resampling = ranked.length ? addFigures(data, ranked, used, testedOn, control) : null;
  table.sort((a, b) => b.ranked - a.ranked || (a.ranked && (a.meanRank - b.meanRank || b.auc - a.auc)) || (a.label < b.label ? -1 : 1));
  const counts = ranked.flatMap((entry) => used.map((b) => entry.cells.get(b).length));
  return {
    rowsUsed: ranked.flatMap((entry) => used.flatMap((b) => entry.cells.get(b))), rowsAny: rows.filter((row) => columns.auc[row] !== null),
    by, table, resampling, ranked: table.filter((entry) => entry.ranked), control: control || null,
    blocksUsed: used.length, single: whole.length - used.length, blocksAny: blocksAny.size,
    datasets: [...new Set(datasetOf.values())].sort((a, b) => a - b).map((d) => labels.dataset[d]),
    seeds: counts.reduce((least, n) => Math.min(least, n), counts[0] ?? 0),
  };
}

// Adds the figures to each ranked entry; gives the resampling that is left to do, or null. `used` are the complete
// blocks, in order; `testedOn` numbers the test images of each.
function addFigures(data, ranked, used, testedOn, control) {
  const { auc, error, seconds, params } = data.columns;
  const datasets = [...new Set(used.map((b) => testedOn.get(b)))].sort((a, b) => a - b);
  const place = used.map((b) => datasets.indexOf(testedOn.get(b)));
  // A dataset's blocks share its weight.
  const share = place.map((d) => 1 / place.filter((other) => other === d).length);
  const weights = share.map((part) => part / datasets.length);
  const weighted = (values) => values.reduce((sum, value, b) => sum + weights[b] * value, 0);
  const byDataset = (values) => datasets.map((_, d) => values.reduce((sum, v, b) => (place[b] === d ? sum + share[b] * v : sum), 0));

  const scores = ranked.map((entry) => used.map((b) => entry.cells.get(b).map((row) => auc[row])));
  const means = scores.map((blocks) => blocks.map(mean));
  const ranks = new Float64Array(ranked.length);
  weights.forEach((weight, b) => addRanks(means.map((blocks) => blocks[b]), Uint32Array.from(ranked.keys()), weight, ranks));
  const onDatasets = means.map(byDataset);
  const highest = datasets.map((_, d) => Math.max(...onDatasets.map((values) => values[d])));
  ranked.forEach((entry, e) => {
    // A mean over some of the runs is no mean: a missing value makes it NaN.
    const average = (column) => weighted(used.map((b) => mean(entry.cells.get(b).map((row) => column[row] ?? NaN))));
    Object.assign(entry, {
      auc: weighted(means[e]), meanRank: rounded(ranks[e]), iqm: iqm(scores[e].flat()), tied: true,
      wins: onDatasets[e].filter((value, d) => value === highest[d]).length,
      seconds: average(seconds), params: average(params),
    });
  });
  const better = (a, b) => a.meanRank - b.meanRank || b.auc - a.auc;
  const first = ranked.indexOf(ranked.reduce((best, entry) => (better(entry, best) < 0 ? entry : best)));
  const rival = ranked.map(({ names: [strategy, backbone] }) =>
    strategy === control ? -1 : ranked.findIndex(({ names }) => names[0] === control && names[1] === backbone));
  ranked.forEach((entry, e) => {
    entry.behind = ranked[first].auc - entry.auc;
    entry.gain = rival[e] < 0 ? NaN : entry.auc - ranked[rival[e]].auc;
    entry.auc95 = entry.iqm95 = entry.gain95 = entry.behind95 = [NaN, NaN];
    entry.pBest = entry.within = NaN;
  });
  if (scores.some((blocks) => blocks.some((seeds) => seeds.length < 2))) return null;

  const seedNoise = scores.map((blocks) => noiseOf(blocks, weights));
  const imageNoise = ranked.map((entry) => {
    const errors = byDataset(used.map((b) => mean(entry.cells.get(b).map((row) => error[row] ?? NaN))));
    return { variance: sum(errors.map((one) => one ** 2)) / errors.length ** 2, spread: 0 };
  });
  const halfWidth = (...noises) => {
    const variance = sum(noises.map((one) => one.variance));
    return studentT(variance ** 2 / sum(noises.map((one) => one.spread)), data.t975) * Math.sqrt(variance);
  };
  ranked.forEach((entry, e) => {
    const noise = seedNoise[e];
    entry.auc95 = within01(around(entry.auc, halfWidth(noise)));
    entry.behind95 = around(entry.behind, e === first ? 0 : halfWidth(noise, seedNoise[first]));
    if (rival[e] >= 0) entry.gain95 = around(entry.gain, halfWidth(noise, seedNoise[rival[e]]));
    entry.tied = !(entry.behind > halfWidth(noise, seedNoise[first], imageNoise[e], imageNoise[first]));
  });
  const quantiles = seedNoise.map((noise) => studentT(noise.variance ** 2 / noise.spread, data.t975));
  return resample(ranked, scores, weights, first, quantiles, data);
}

const around = (centre, half) => [centre - half, centre + half];
const within01 = (ends) => ends.map((end) => Math.min(Math.max(end, 0), 1));

// Variance of the weighted mean over blocks that seeds cause, and how well it is known: intervals.seed_noise.
function noiseOf(blocks, weights) {
  const parts = blocks.map((seeds, b) => {
    const centre = mean(seeds);
    return (weights[b] ** 2 * sum(seeds.map((value) => (value - centre) ** 2))) / (seeds.length - 1) / seeds.length;
  });
  return { variance: sum(parts), spread: sum(parts.map((part, b) => part ** 2 / (blocks[b].length - 1))) };
}

// The .975 quantile of Student's t, from the Chebyshev series of its logarithm in 1 / freedom.
function studentT(freedom, series) {
  const x = Number.isNaN(freedom) ? -1 : 2 / freedom - 1; // 0 / 0: nothing varies, as with infinite freedom
  let [now, before] = [0, 0];
  for (const coefficient of series.slice(1).reverse()) [now, before] = [2 * x * now - before + coefficient, now];
  return Math.exp(x * now - before + series[0]);
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;
const rounded = (value) => Math.round(value * 1e9) / 1e9;

function iqm(values) {
  const ordered = Float64Array.from(values).sort();
  const cut = Math.floor(ordered.length / 4);
  return mean(ordered.subarray(cut, ordered.length - cut));
}

// Adds to `ranks` each entry's rank among `scores`, 1 for the highest, ties sharing theirs, times `weight`. `order` is
// left as it was sorted: the next draw of the same block is sorted quickly from there.
function addRanks(scores, order, weight, ranks) {
  const E = order.length;
  for (let i = 1; i < E; i++) {
    const e = order[i];
    const score = scores[e];
    let j = i;
    for (; j > 0 && scores[order[j - 1]] < score; j--) order[j] = order[j - 1];
    order[j] = e;
  }
  for (let i = 0, j = 1; i < E; i = j++) {
    const score = scores[order[i]];
    while (j < E && scores[order[j]] === score) j++;
    const rank = weight * ((i + 1 + j) / 2);
    for (let k = i; k < j; k++) ranks[order[k]] += rank;
  }
}

// Adds what the resamples of stats.resamples show: the interval of the IQM, by its standard error; and the shares in
// which an entry has the best mean rank, and in which its mean AUC is within `rope` of the first's.
function* resample(ranked, scores, weights, first, quantiles, { draws, rope }) {
  const [E, B] = [scores.length, weights.length];
  const cells = arrayOfCells(scores);
  const orders = weights.map(() => Uint32Array.from(scores.keys()));
  const means = weights.map(() => new Float64Array(E));
  const weight = Float64Array.from(weights);
  const [aucs, ranks, best, within] = [0, 0, 0, 0].map(() => new Float64Array(E));
  for (let r = 0; r < draws; r++) {
    for (let e = 0; e < E; e++) aucs[e] = drawMeans(cells, r, e, weight, means);
    ranks.fill(0);
    for (let b = 0; b < B; b++) addRanks(means[b], orders[b], weight[b], ranks);
    const limit = ranks.reduce((a, b) => Math.min(a, b)) + 1e-9;
    const sharing = ranks.reduce((n, rank) => n + (rank <= limit), 0);
    for (let e = 0; e < E; e++) {
      if (ranks[e] <= limit) best[e] += 1 / sharing / draws;
      if (aucs[first] - aucs[e] <= rope + 1e-12) within[e] += 1 / draws;
    }
    yield;
  }
  for (let e = 0; e < E; e++) {
    ranked[e].iqm95 = within01(around(ranked[e].iqm, quantiles[e] * iqmError(cells, e, draws)));
    yield;
  }
  ranked.forEach((entry, e) => Object.assign(entry, { pBest: best[e], within: within[e] }));
}

// Scores as one array with S places a cell, each cell's moved away from its mean by sqrt(n / (n - 1)).
function arrayOfCells(scores) {
  const [E, B] = [scores.length, scores[0].length];
  const counts = Uint32Array.from(scores.flatMap((blocks) => blocks.map((seeds) => seeds.length)));
  const S = counts.reduce((a, b) => Math.max(a, b));
  const values = new Float64Array(E * B * S);
  scores.forEach((blocks, e) => blocks.forEach((seeds, b) => {
    const [n, centre] = [seeds.length, mean(seeds)];
    const wider = Math.sqrt(n / (n - 1));
    seeds.forEach((value, s) => (values[(e * B + b) * S + s] = centre + wider * (value - centre)));
  }));
  return { values, counts, B, S };
}

// The place in its cell of the n-th number, of `count` places.
const indexOf = (n, count) => Math.floor((hashed(n) * count) / 4294967296);

// One draw of an entry: sets its mean in each block, and gives its mean AUC.
function drawMeans({ values, counts, B, S }, r, e, weight, means) {
  let auc = 0;
  for (let b = 0; b < B; b++) {
    const count = counts[e * B + b];
    const start = (e * B + b) * S;
    const number = r * values.length + start;
    let total = 0;
    for (let s = 0; s < count; s++) total += values[start + indexOf(number + s, count)];
    means[b][e] = total / count;
    auc += weight[b] * means[b][e];
  }
  return auc;
}

// Standard error of an entry's IQM. Its values are sorted once; a draw counts how often each is drawn.
function iqmError({ values, counts, B, S }, e, draws) {
  const slots = [];
  for (let b = 0; b < B; b++) for (let s = 0; s < counts[e * B + b]; s++) slots.push((e * B + b) * S + s);
  slots.sort((a, b) => values[a] - values[b]);
  const ordered = Float64Array.from(slots, (slot) => values[slot]);
  const places = new Uint32Array(B * S);
  slots.forEach((slot, place) => (places[slot - e * B * S] = place));
  const times = new Uint32Array(slots.length);
  const drawn = new Float64Array(draws);
  for (let r = 0; r < draws; r++) {
    countDraws(counts, e, r * values.length, B, S, places, times);
    drawn[r] = iqmOfDrawn(ordered, times);
  }
  const centre = mean(drawn);
  return Math.sqrt(mean(drawn.map((value) => (value - centre) ** 2)));
}

function countDraws(counts, e, number, B, S, places, times) {
  for (let b = 0; b < B; b++) {
    const count = counts[e * B + b];
    const start = (e * B + b) * S;
    for (let s = 0; s < count; s++) times[places[b * S + indexOf(number + start + s, count)]] += 1;
  }
}

// The n-th number of bench/report/draws.py, below 2 ** 32.
function hashed(n) {
  let x = (n + 0x9e3779b9) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

// Interquartile mean of ordered values that were drawn so many `times` each; sets those back to 0.
function iqmOfDrawn(ordered, times) {
  const cut = Math.floor(ordered.length / 4);
  const end = ordered.length - cut;
  let [total, at] = [0, 0];
  for (let i = 0; i < ordered.length; i++) {
    const next = at + times[i];
    times[i] = 0;
    if (next > cut && at < end) total += (Math.min(next, end) - Math.max(at, cut)) * ordered[i];
    at = next;
  }
  return total / (end - cut);
}
