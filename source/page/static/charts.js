// Draws what the page's JSON says, and draws it anew when the page is brought up to date.
"use strict";

const drawn = new Map(); // key of a chart -> {plot, shape}
const HEIGHT = 210;
const MANY = 8; // colours for series of a kind

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function colourOf(series, index) {
  return colour(`--c-${series.kind || index % MANY + 1}`);
}

function read() {
  const text = document.getElementById("use-data");
  return text ? JSON.parse(text.textContent).charts : [];
}

// The series that are drawn, each with its number; of a stack the top first, and only parts that are there at all.
function inOrder(chart) {
  const all = chart.series.map((series, index) => ({ series, index }));
  return chart.stacked ? all.filter(({ series }) => series.values.some(Boolean)).reverse() : all;
}

// Of a stack each part reaches from the ground to its top: it is drawn over the one before.
function dataOf(chart) {
  const sums = chart.times.map(() => 0);
  const top = (value, at) => value === null ? null : sums[at] += value;
  const drawn = inOrder(chart);
  if (!chart.stacked) return [chart.times, ...drawn.map(({ series }) => series.values)];
  return [chart.times, ...drawn.reverse().map(({ series }) => series.values.map(top)).reverse()];
}

function said(value, unit) {
  if (value === null || value === undefined) return "–";
  return unit === "tasks" ? String(value) : `${value.toFixed(1)} ${unit}`;
}

function seriesOf(chart) {
  return inOrder(chart).map(({ series, index }) => {
    const ink = colourOf(series, index);
    const shared = {
      label: series.name,
      // what is drawn is a sum, what is said is this part of it
      value: (plot, _, __, at) => at === null || at === undefined ? "" : said(plot.chart.series[index].values[at], chart.unit),
    };
    if (!chart.stacked) return { ...shared, stroke: ink, width: 2, points: { size: 5, fill: ink } };
    return { ...shared, fill: ink, stroke: ink, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [chart.unit === "%" ? 1 : 0.8, Infinity], align: 1, gap: 0 }) };
  });
}

function optionsOf(chart, width) {
  const axis = { stroke: colour("--muted"), font: "12px system-ui, sans-serif", ticks: { show: false }, grid: { stroke: colour("--line"), width: 1 } };
  const span = chart.times.length > 1 ? chart.times[1] - chart.times[0] : 60;
  return {
    width, height: HEIGHT,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"), // as everywhere on the page
    cursor: { y: false, points: { show: !chart.stacked } },
    scales: {
      x: { range: (plot) => [plot.data[0][0], plot.data[0].at(-1) + span] },
      y: { range: (_, __, most) => [0, chart.most || Math.max(most * 1.08, 1e-3)] },
    },
    axes: [
      { ...axis, grid: { show: false }, values: timesOf, space: 64, size: 28 },
      { ...axis, size: 44, incrs: chart.unit === "tasks" ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000] : undefined },
    ],
    series: [{ label: "", value: (_, time) => time === null ? "" : timeText(time, true) }, ...seriesOf(chart)],
  };
}

function timeText(seconds, withDay) {
  const text = new Date(seconds * 1000).toISOString();
  return withDay ? `${text.slice(5, 10)} ${text.slice(11, 16)}` : text.slice(11, 16);
}

function timesOf(_, splits) {
  return splits.map((time) => time % 86400 === 0 ? timeText(time, true).slice(0, 5) : timeText(time));
}

// What must be the same for new data to go into a chart that is there.
function shapeOf(chart) {
  return JSON.stringify([inOrder(chart).map(({ index }) => index), chart.series.map((series) => series.name), chart.most, chart.times.length]);
}

function draw(chart) {
  const place = document.getElementById(`plot-${chart.key}`);
  if (!place) return;
  const before = drawn.get(chart.key);
  if (before && before.shape === shapeOf(chart) && place.contains(before.plot.root)) {
    before.plot.chart = chart;
    before.plot.setData(dataOf(chart));
    return;
  }
  before?.plot.destroy();
  place.replaceChildren();
  const plot = new uPlot(optionsOf(chart, place.clientWidth), dataOf(chart), place);
  plot.chart = chart;
  plot.root.querySelector("canvas").dataset.points = String(chart.series.reduce((sum, each) => sum + each.values.filter((value) => value !== null).length, 0));
  drawn.set(chart.key, { plot, shape: shapeOf(chart) });
}

function drawAll() {
  for (const chart of read()) draw(chart);
}

function drawAnew() {
  for (const { plot } of drawn.values()) plot.destroy();
  drawn.clear();
  drawAll();
}

// what was drawn stays where it is when the rest is replaced
if (window.Idiomorph) {
  Idiomorph.defaults.callbacks.beforeNodeMorphed = (old, fresh) => {
    if (!old.classList?.contains("plot")) return true;
    old.setAttribute("aria-label", fresh.getAttribute("aria-label"));
    return false;
  };
}
new ResizeObserver(() => {
  for (const { plot } of drawn.values()) {
    const width = plot.root.parentElement?.clientWidth;
    if (width && Math.abs(width - plot.width) > 1) plot.setSize({ width, height: HEIGHT });
  }
}).observe(document.getElementById("main"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAnew);
document.addEventListener("htmx:afterSettle", drawAll);
drawAll();
