"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const series = (index) => data.series[index];
const chosen = (legend) => new Set(all(`[data-legend="${legend}"] input:checked`).map((box) => Number(box.value)));

// Figures: each is drawn when it scrolls into view, and again when what it shows has changed.

const axis = { automargin: true, zeroline: false, exponentformat: "e", title: { standoff: 8 } };
const font = { family: "system-ui, sans-serif", size: 12 };
const template = { layout: { xaxis: axis, yaxis: axis, font, hoverlabel: { font } } };
const config = { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"] };
const touch = matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page
let across = 0; // index in data.axes
let singles = false;

// plotly.js takes a second to start, and the page opens without it: it starts when the browser has nothing else to do.
function startPlotly() {
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = document.getElementById("plotly").textContent;
  document.head.append(script);
}
addEventListener("load", () => globalThis.requestIdleCallback?.(startPlotly));

function draw(box) {
  startPlotly();
  const { data: traces, layout } = data.static[box.id] ?? curves(Number(box.dataset.metric));
  const visible = chosen(box.dataset.shows);
  const common = { template, height: 360, margin: { l: 50, r: 12, t: 12, b: 40 }, showlegend: false, hovermode: "closest",
    dragmode: touch ? false : "zoom", paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    modebar: { bgcolor: "transparent" } }; // plotly would take grey, and its buttons are grey
  box.drawn = true;
  return Plotly.react(box, traces.filter((trace) => trace.group === undefined || visible.has(trace.group)),
    { ...common, ...layout }, config);
}

function curves(k) {
  const { log, zero, fraction } = data.metrics[k];
  const visible = chosen("curves");
  const hover = "%{fullData.name}<br>%{text}<br>" +
    `${data.axes[across]} %{x}: %{y:${fraction ? ".2%" : ".4~g"}}<extra></extra>`;
  const lone = [], bands = [], means = [];
  data.configurations.forEach((configuration, group) => {
    if (!visible.has(group)) return;
    const shared = { group, name: configuration.name, line: configuration.line, hovertemplate: hover };
    if (singles) lone.push({ ...shared, showlegend: false, ...joined(data.runs.filter((run) => run.of === group), k),
      meta: "single", mode: "lines", opacity: 0.55, line: { ...configuration.line, width: 1 } });
    const mean = configuration.mean;
    if (!mean) return;
    const x = series(mean.x[across]), y = series(mean.y[k]), sd = mean.sd && series(mean.sd[k]);
    if (sd) {
      const there = [...y.keys()].filter((i) => y[i] !== null && sd[i] !== null);
      const low = there.map((i) => series(mean.low[k])[i]), high = there.map((i) => series(mean.high[k])[i]);
      const along = there.map((i) => x[i]);
      bands.push({ group, showlegend: false, x: [...along, ...along.toReversed()], y: [...high, ...low.toReversed()], mode: "lines",
        fill: "toself", line: { width: 0 }, fillcolor: configuration.line.color + "2e", hoverinfo: "skip" });
    }
    means.push({ ...shared, x, y, meta: "mean", mode: "lines+markers",
      marker: { symbol: configuration.symbol, size: 7, maxdisplayed: 12 }, line: { ...configuration.line, width: 2.2 },
      text: y.map((_, i) => (sd ? `mean of ${mean.n} runs, sd ${sd[i]}` : "one run")) });
  });
  const xaxis = { title: { text: data.axes[across] }, dtick: across === 0 && data.epochs <= 12 ? 1 : undefined };
  const yaxis = { type: log ? "log" : "linear", nticks: log ? 6 : 0, rangemode: zero ? "tozero" : "normal", tickformat: fraction ? "~%" : "" };
  return { data: [...lone, ...bands, ...means], layout: { xaxis, yaxis, uirevision: across } };
}

// One trace for the runs of a configuration, with gaps between them.
function joined(runs, k) {
  return {
    x: runs.flatMap((run) => [...series(run.x[across]), null]),
    y: runs.flatMap((run) => [...series(run.y[k]), null]),
    text: runs.flatMap((run) => Array(series(run.y[k]).length + 1).fill(run.name)),
  };
}

// A figure as it is shown now, with its title and its legend, which on the page are HTML.
async function save(box) {
  if (!box.drawn) await draw(box);
  const title = box.closest(".drawing").querySelector("h3").textContent;
  const rows = Math.ceil(box.data.filter((trace) => trace.name && trace.showlegend !== false).length / 2);
  const { l, r, b } = box._fullLayout._size; // what its axes take on the page; plotly's own guess with a legend may fail
  const plot = (box.layout.height ?? 360) - b, size = { width: 720, height: plot + b + 48 + 26 * rows };
  const layout = { ...box.layout, ...size, autosize: false, showlegend: rows > 0, paper_bgcolor: "white", plot_bgcolor: "white",
    title: { text: title.replace(/&/g, "&amp;").replace(/</g, "&lt;"), font: { size: 15 }, x: 0.02, xanchor: "left" },
    margin: { l: l + 4, r, t: 48, b: b + 26 * rows, autoexpand: false },
    legend: { ...box.layout.legend, orientation: "h", yanchor: "top", y: -b / plot, x: 0 } };
  const words = [title, box.dataset.metric && `by ${data.axes[across]}`].filter(Boolean).join(" ");
  const filename = words.replace(/[^\w.-]+/g, "_").slice(0, 100);
  await Plotly.downloadImage({ data: box.data, layout }, { format: "svg", filename, ...size });
}
all(".save").forEach((button) => button.addEventListener("click", () => save(button.closest(".drawing").querySelector(".figure"))));

const figures = all(".figure");
const redraw = (shows) => figures.filter((box) => box.drawn && box.dataset.shows === shows).forEach(draw);
const watcher = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => {
  if (isIntersecting && !target.drawn) draw(target);
}), { rootMargin: "400px" });
figures.forEach((box) => watcher.observe(box));

all("[data-legend]").forEach((legend) => {
  const boxes = all("input", legend);
  legend.addEventListener("change", () => redraw(legend.dataset.legend));
  all("button", legend).forEach((button) => button.addEventListener("click", () => {
    boxes.forEach((box) => (box.checked = button.value === "all"));
    redraw(legend.dataset.legend);
  }));
});
all("[name=across]").forEach((radio) => radio.addEventListener("change", () => {
  across = Number(radio.value);
  redraw("curves");
}));
document.getElementById("singles")?.addEventListener("click", ({ currentTarget: button }) => {
  singles = !singles;
  button.setAttribute("aria-pressed", singles);
  redraw("curves");
});

// Paper is narrower than the screen, and shows every figure.
addEventListener("beforeprint", () => figures.forEach((box) => {
  if (!box.drawn) draw(box);
  Plotly.relayout(box, { width: 490 });
}));
addEventListener("afterprint", () => figures.forEach((box) => Plotly.relayout(box, { width: null, autosize: true })));

// Tables: a click on a header sorts, numbers as numbers, what is missing last.

const words = new Intl.Collator(undefined, { numeric: true });

function order(table, column, ascending) {
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => {
    const cell = row.cells[column];
    const text = cell.dataset.key ?? cell.textContent.trim();
    return { row, key: cell.dataset.key ? Number(text) : text };
  });
  const sign = ascending ? 1 : -1;
  keyed.sort(({ key: a }, { key: b }) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (typeof a === "number" && typeof b === "number" ? a - b || 0 : words.compare(a, b));
  });
  body.append(...keyed.map(({ row }) => row));
}

all("table.sortable").forEach((table) => all("thead th", table).forEach((head, column, heads) => {
  head.addEventListener("click", () => {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    order(table, column, ascending);
  });
}));

const filter = document.getElementById("filter");
let rows = null; // read at the first word: that of a thousand runs takes a while
filter.addEventListener("input", () => {
  rows ??= all("#runs tbody tr").map((row) => ({ row, text: row.textContent.toLowerCase() }));
  const wanted = filter.value.toLowerCase().split(/\s+/);
  rows.forEach(({ row, text }) => (row.hidden = !wanted.every((word) => text.includes(word))));
  const left = rows.filter(({ row }) => !row.hidden).length;
  document.getElementById("left").textContent = left < rows.length ? `${left} of ${rows.length} runs` : "";
});

document.getElementById("runs").addEventListener("click", async ({ target }) => {
  if (!target.matches("button.copy")) {
    if (getSelection().isCollapsed) target.closest("tbody tr")?.classList.toggle("open");
    return;
  }
  const code = target.nextElementSibling;
  getSelection().selectAllChildren(code); // seen, and copied by hand where the browser refuses
  await navigator.clipboard.writeText(code.textContent).then(() => (target.textContent = "copied"), () => {});
});

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
