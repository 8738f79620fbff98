// What bench/report/comparable.py chooses: `there` holds an Uint8Array over blocks of each entry, 1 where it has a result.
// Gives the positions of the entries that are compared, in order, and those of the blocks that all of them have.
function comparable(there, controls, minShare) {
  const known = [...there.keys()].filter((e) => there[e].includes(1));
  const sharedBy = (entries) => (entries.length ? [...there[entries[0]].keys()].filter((b) => entries.every((e) => there[e][b])) : []);
  let entries = known.length === 1 ? known : largest(there, undefined, minShare);
  const blocks = sharedBy(entries);
  if (known.length > 1 && blocks.length) {
    const control = controls.find((e) => blocks.filter((b) => there[e][b]).length >= minShare * blocks.length);
    if (control !== undefined) entries = largest(there, control, minShare);
  }
  return [entries.sort((a, b) => a - b), sharedBy(entries)];
}

function largest(there, control, minShare) {
  const inBlock = there[0] ? Array.from(there[0], (_, b) => there.reduce((n, has) => n + has[b], 0)) : [];
  const rivals = there.map((has) => has.reduce((n, one, b) => n + one * (inBlock[b] - 1), 0));
  const left = [...there.keys()].sort((a, b) => rivals[b] - rivals[a] || a - b);
  const [taken, sizes] = [[], []];
  let shared = [...inBlock.keys()];
  while (left.length) {
    const kept = left.map((e) => shared.reduce((n, b) => n + there[e][b], 0));
    const at = taken.length ? kept.indexOf(Math.max(...kept)) : control === undefined ? 0 : left.indexOf(control);
    if (!kept[at]) break;
    const [next] = left.splice(at, 1);
    taken.push(next);
    sizes.push(kept[at]);
    shared = shared.filter((b) => there[next][b]);
  }
  const comparisons = sizes.map((size, others) => size * (control === undefined ? (others * (others + 1)) / 2 : others));
  const most = comparisons.indexOf(Math.max(...comparisons));
  return comparisons[most] > 0 ? taken.slice(0, sizes.findLastIndex((size) => size >= minShare * sizes[most]) + 1) : [];
}
