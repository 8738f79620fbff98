// The leaderboard that a reader filters: every change computes all figures again from the rows in the page.
{
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("rows").textContent);
  const table = $("board");
  const controls = $("board-controls");
  const heads = [...table.tHead.rows[0].cells];
  const all = data.columns.auc.map((_, row) => row);
  const VIEWS = { strategy: ["strategy"], backbone: ["backbone"], pair: ["strategy", "backbone"] };
  let board;

  // State lives in the form and in the table's head; the address holds a copy of it.
  const view = () => controls.elements.over.value;
  const chosen = (facet) => [...controls.querySelectorAll(`input[name="${facet}"]:checked`)];
  const sorted = () => heads.find((one) => one.hasAttribute("aria-sort"));
  const facets = [...controls.querySelectorAll(".facet")];

  function kept() {
    const tests = facets.map((facet) => [data.columns[facet.dataset.name], new Set(chosen(facet.dataset.name).map((box) => Number(box.dataset.code)))]);
    return all.filter((row) => tests.every(([column, codes]) => !codes.size || codes.has(column[row])));
  }

  function address() {
    const state = new URLSearchParams();
    if (view() !== "strategy") state.append("over", view());
    for (const facet of facets) for (const box of chosen(facet.dataset.name)) state.append(facet.dataset.name, box.value);
    const head = sorted();
    if (head.dataset.key !== "rank" || head.getAttribute("aria-sort") !== "ascending") state.append("sort", `${head.dataset.key} ${head.getAttribute("aria-sort")}`);
    return String(state) ? `#${state}` : "#leaderboard";
  }

  function restore() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const radio of controls.elements.over) radio.checked = radio.value === (state.get("over") ?? "strategy");
    if (!view()) controls.querySelector('input[name="over"]').checked = true;
    for (const facet of facets) {
      const wanted = state.getAll(facet.dataset.name);
      for (const box of facet.querySelectorAll("input")) box.checked = wanted.includes(box.value);
    }
    const [key, order] = (state.get("sort") ?? "rank ascending").split(" ");
    const head = heads.find((one) => one.dataset.key === key) ?? heads.find((one) => one.dataset.key === "rank");
    sortTable(table, head, order === "descending" ? "descending" : "ascending");
    compute();
  }

  // All figures but the resampled ones are shown at once. Those follow when they are ready, without holding up the page.
  async function compute() {
    const mine = (board = leaderboard(data, kept(), VIEWS[view()]));
    let ready = worked(mine.resampling, 50);
    draw(!ready);
    $("board-csv").disabled = !ready;
    while (!ready) {
      await new Promise((resolve) => setTimeout(resolve));
      if (board !== mine) return;
      ready = worked(mine.resampling, 40);
      if (ready) draw();
      $("board-csv").disabled = !ready;
    }
  }

  // Runs a generator for so many milliseconds; true when it has come to its end.
  function worked(generator, budget) {
    const end = performance.now() + budget;
    while (generator && !generator.next().done) if (performance.now() > end) return false;
    return true;
  }

  function draw(pending = false) {
    heads[0].querySelector("button").textContent = { strategy: "Strategy", backbone: "Backbone", pair: "Strategy, backbone" }[view()];
    table.classList.toggle("no-control", !board.control);
    const ends = scale();
    const lines = board.table.map((entry, at) => line(entry, at, ends, pending));
    lines.forEach((one, at) => (one.dataset.at = at));
    table.querySelector(".scale").replaceChildren(...(board.blocksUsed ? ends : []).map((end) => element("span", {}, fixed(end))));
    table.tBodies[0].replaceChildren(...lines);
    sortTable(table, sorted(), sorted().getAttribute("aria-sort"));
    $("board-stands").textContent = standsOn();
    for (const facet of facets) {
      const names = chosen(facet.dataset.name).map((box) => box.parentNode.textContent.trim());
      facet.classList.toggle("active", names.length > 0);
      facet.querySelector(".chosen").textContent = names.length === 0 ? "any" : names.length === 1 ? names[0] : `${names.length} chosen`;
    }
    const limited = facets.some((facet) => facet.classList.contains("active"));
    $("board-reset").hidden = $("board-limited").hidden = !limited;
  }

  function change() {
    compute();
    tell();
  }

  function tell() {
    history.replaceState(null, "", address());
    $("board-link").href = address();
  }

  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const small = (text, className = "") => element("small", { className }, text);
  const figure = (value, text, under = "", className = "n") => {
    const made = element("td", { className }, text);
    made.dataset.v = missing(value) ? "" : Number(value.toPrecision(10));
    if (under) made.append(element("br"), small(under));
    return made;
  };
  const between = ([low, high], write = fixed) => (missing(low) ? "" : `${write(low)} to ${write(high)}`);

  function line(entry, at, ends, pending) {
    const name = element("th", { scope: "row" }, entry.names[0]);
    if (data.tags[entry.names[0]] && view() !== "backbone") name.append(" ", small(data.tags[entry.names[0]], "tag"));
    if (entry.names.length > 1) name.append(element("br"), small(entry.names[1]));
    const runs = figure(entry.runs, `${entry.runs} of ${entry.runsAny}`);
    if (!entry.ranked) {
      const lacking = board.blocksUsed ? `results in ${entry.blocksUsed} of the ${plural(board.blocksUsed, "block")} that the ranking stands on`
        : `results in ${entry.cells.size} of ${plural(board.blocksAny, "block")}, none of which another line has`;
      const why = `Not ranked: ${data.tags[entry.names[0]] && view() !== "backbone" ? data.noRival : lacking}`;
      const wide = figure(null, why, "", "");
      wide.colSpan = heads.filter((head) => board.control || head.dataset.key !== "gain").length - 2;
      return element("tr", { className: "unranked" }, name, wide, runs);
    }
    const isControl = entry.names[0] === board.control;
    return element("tr", {}, name,
      figure(entry.meanRank, fixed(entry.meanRank, 2)),
      figure(entry.auc, fixed(entry.auc), between(entry.auc95)),
      element("td", {}, range(entry, ends)),
      figure(entry.iqm, fixed(entry.iqm), pending ? "…" : between(entry.iqm95)),
      isControl ? figure(null, small("control"), "", "n gain") : figure(entry.gain, signed(entry.gain), between(entry.gain95, signed), "n gain"),
      at === 0 ? figure(entry.behind, small("first")) : figure(entry.behind, fixed(entry.behind), entry.tied && board.seeds > 1 ? "not told apart" : ""),
      figure(entry.pBest, pending ? "…" : chance(entry.pBest)),
      figure(entry.seconds, seconds(entry.seconds)),
      figure(entry.params, count(entry.params)),
      runs);
  }

  // The ends of the scale that the mean AUCs and their intervals are drawn on.
  function scale() {
    const ends = board.ranked.flatMap(({ auc, auc95 }) => [auc, ...auc95]).filter((value) => !missing(value));
    return [Math.min(...ends), Math.max(...ends)];
  }

  function range(entry, [low, high]) {
    const at = (value) => `${(4 + (92 * (value - low)) / Math.max(high - low, 1e-9)).toFixed(2)}%`;
    const [from, to] = missing(entry.auc95[0]) ? [entry.auc, entry.auc] : entry.auc95;
    const made = element("span", { className: "range" });
    for (const [name, value] of [["--mid", entry.auc], ["--lo", from], ["--hi", to]]) made.style.setProperty(name, at(value));
    return made;
  }

  function standsOn() {
    if (!board.table.length) return "No row fits.";
    if (!board.blocksUsed) return "Nothing is ranked.";
    const seeds = board.seeds === 1 ? "Some cells have one seed only, so there are no intervals."
      : `At least ${board.seeds} seeds a cell; intervals are 95 %, over seeds.`;
    const values = (rows, name) => [...new Set(rows.map((row) => data.columns[name][row]))].sort((a, b) => a - b);
    const parts = ["dataset", "backbone", "strategy"].filter((name) => !board.by.includes(name)).map((name) => {
      const [used, any] = [values(board.rowsUsed, name), values(board.rowsAny, name)];
      const whole = used.length === any.length;
      const named = used.length <= 3 && (name === "dataset" || !whole);
      return `${whole ? "" : `${used.length} of `}${plural(any.length, name)}${named ? ` (${used.map((code) => data.labels[name][code]).join(", ")})` : ""}`;
    });
    const settings = values(board.rowsUsed, "amount").map((amount) => {
      const sizes = values(board.rowsUsed.filter((row) => data.columns.amount[row] === amount), "size");
      return `${images(data.labels.amount[amount])} at ${together(sizes.map((size) => String(data.labels.size[size])))} px`;
    });
    const out = board.table.filter((entry) => !entry.ranked && entry.runs && entry.blocksUsed < board.blocksUsed).map((entry) => entry.label).sort();
    const who = out.length > 3 ? plural(out.length, board.by.length > 1 ? "pair" : board.by[0]) : together(out);
    const lacking = out.length ? `; ${who} ${out.length > 1 ? "lack" : "lacks"} results there and ${out.length > 1 ? "are" : "is"} not in it` : "";
    const single = board.single ? ` (${board.single} left out: a cell has one seed only)` : "";
    return `Stands on ${board.blocksUsed} of ${plural(board.blocksAny, "block")} with results${single}: ` +
      `${parts.join(", ")}, ${together(settings)}${lacking}. ${seeds}`;
  }

  const images = (label) => (label === "all" ? "all images" : label.endsWith("%") ? `${label} of the images` : label.replace(" a class", " images a class"));

  function csv() {
    const columns = {
      ...Object.fromEntries(board.by.map((name, n) => [name, (entry) => entry.names[n]])),
      ranked: (e) => e.ranked, mean_rank: (e) => e.meanRank,
      auc: (e) => e.auc, auc_lo: (e) => e.auc95?.[0], auc_hi: (e) => e.auc95?.[1],
      iqm: (e) => e.iqm, iqm_lo: (e) => e.iqm95?.[0], iqm_hi: (e) => e.iqm95?.[1],
      gain: (e) => e.gain, gain_lo: (e) => e.gain95?.[0], gain_hi: (e) => e.gain95?.[1],
      p_best: (e) => e.pBest, within: (e) => e.within, behind: (e) => e.behind, behind_lo: (e) => e.behind95?.[0], behind_hi: (e) => e.behind95?.[1],
      tied: (e) => e.tied ?? true, wins: (e) => e.wins, seconds: (e) => e.seconds, params_trained: (e) => e.params,
      blocks: (e) => e.cells.size, blocks_any: () => board.blocksAny, blocks_used: (e) => e.blocksUsed, runs: (e) => e.runs, runs_any: (e) => e.runsAny,
    };
    // A spreadsheet would run a name that starts like a formula.
    const text = (value) => (/^[=+\-@\t\r\n＝＋－＠]/.test(value) ? `'${value}` : value);
    const field = (value) => {
      if (value === undefined || missing(value)) return "";
      const plain = typeof value === "string" ? text(value) : String(value);
      return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
    };
    const shown = [...table.tBodies[0].rows].map((row) => board.table[row.dataset.at]);
    return [Object.keys(columns), ...shown.map((entry) => Object.values(columns).map((value) => value(entry)))]
      .map((fields) => fields.map(field).join(",") + "\n").join("");
  }

  function download() {
    const link = element("a", { download: "leaderboard.csv", href: URL.createObjectURL(new Blob([csv()], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  controls.addEventListener("change", change);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("reset", () => setTimeout(change));
  table.addEventListener("sorted", tell);
  $("board-csv").addEventListener("click", download);
  // A list of choices closes when the reader goes elsewhere.
  addEventListener("keydown", (event) => {
    const facet = event.key === "Escape" && facets.find((one) => one.open);
    if (facet) { facet.open = false; facet.querySelector("summary").focus(); }
  });
  addEventListener("click", (event) => facets.forEach((facet) => { if (!facet.contains(event.target)) facet.open = false; }));
  controls.addEventListener("focusout", ({ relatedTarget }) => facets.forEach((facet) => { if (relatedTarget && !facet.contains(relatedTarget)) facet.open = false; }));
  addEventListener("hashchange", () => { if (location.hash.includes("=")) restore(); });

  controls.hidden = false;
  restore();
  $("board-link").href = address();
  if (location.hash.includes("=")) $("leaderboard").scrollIntoView();
}
