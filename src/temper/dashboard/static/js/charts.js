// Live figures: polled once a second, shown as numbers and as charts over the last minutes.

import { fetchWithKey } from "./key.js";

const number = (digits) => (value) => value.toFixed(value !== 0 && Math.abs(value) < 10 ? digits : 0);
const percent = (value) => `${(value * 100).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`;
const bareMillis = (value) => (value < 1000 ? number(1)(value) : `${(value / 1000).toFixed(1)} s`);
const millis = (value) => (value < 1000 ? `${number(1)(value)} ms` : `${(value / 1000).toFixed(2)} s`);

/** Colours are CSS custom properties, so that they follow the colour scheme. */
const CHARTS = {
  throughput: {
    format: number(1),
    least: 10,
    series: [
      { name: "in", colour: "--straw", read: (s) => s.prompt_tokens_per_s },
      { name: "out", colour: "--blue", read: (s) => s.tokens_per_s },
    ],
  },
  requests: {
    format: number(0),
    whole: true,
    least: 4,
    series: [
      { name: "running", colour: "--blue", read: (s) => s.running },
      { name: "waiting", colour: "--rust", read: (s) => s.waiting },
    ],
  },
  cache: {
    format: percent,
    least: 1,
    series: [
      { name: "KV in use", colour: "--blue", read: (s) => s.kv_usage },
      { name: "prefix hits", colour: "--violet", read: (s) => s.prefix_hit_rate },
    ],
  },
  ttft: { format: bareMillis, least: 10, series: percentiles("ttft_ms") },
  itl: { format: bareMillis, least: 10, series: percentiles("inter_token_ms") },
};

const TILES = {
  tokens_per_s: { format: number(1), read: (s) => s.tokens_per_s },
  running: { format: number(0), read: (s) => s.running },
  waiting: { format: number(0), read: (s) => s.waiting },
  kv_usage: { format: percent, read: (s) => s.kv_usage },
  prefix_hit_rate: { format: percent, read: (s) => s.prefix_hit_rate },
  ttft: { format: millis, read: (s) => s.ttft_ms?.p50 },
};

function percentiles(name) {
  return [
    { name: "P50", colour: "--blue", read: (s) => s[name]?.p50 },
    { name: "P90", colour: "--violet", read: (s) => s[name]?.p90 },
    { name: "P99", colour: "--rust", read: (s) => s[name]?.p99 },
  ];
}

const panel = document.getElementById("live");
let samples = [];
let keep_s = 300;
let plots = [];

/** Start polling and drawing. */
export function setUpCharts() {
  buildAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", buildAll);
  const resized = new ResizeObserver(() => {
    for (const { plot, box } of plots) {
      if (box.clientWidth > 0 && box.clientWidth !== plot.width) plot.setSize(sizeOf(box));
    }
  });
  for (const box of panel.querySelectorAll(".plot")) resized.observe(box);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) poll();
  });
  poll();
}

let timer = null;

async function poll() {
  clearTimeout(timer);
  let wait_ms = 1000;
  try {
    const after = samples.at(-1)?.sequence ?? 0;
    const response = await fetchWithKey(`/dashboard/live?after=${after}`);
    if (!response.ok) throw new Error(String(response.status));
    const body = await response.json();
    wait_ms = body.interval_s * 1000;
    keep_s = body.keep * body.interval_s;
    // Numbers that start again mean that the server did: what it said before is history.
    if (body.samples.length && body.samples[0].sequence <= after) samples = [];
    samples = [...samples, ...body.samples].slice(-body.keep);
    panel.classList.remove("stale");
    if (!document.hidden) show();
  } catch {
    // The header says that the server is gone; here the figures only fade.
    panel.classList.add("stale");
    wait_ms = 3000;
  }
  // A hidden tab asks nothing; it catches up when it is looked at again.
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(poll, wait_ms);
}

function show() {
  const latest = samples.at(-1);
  if (!latest) return;
  for (const [name, { format, read }] of Object.entries(TILES)) {
    const value = read(latest);
    panel.querySelector(`[data-figure="${name}"]`).textContent = value == null ? "–" : format(value);
  }
  document.getElementById("live-note").textContent =
    `${Math.round(keep_s / 60)} min · percentiles over ${latest.window_s} s`;
  for (const { chart, plot, box, legend } of plots) {
    plot.setData(columns(chart));
    showLegend(chart, legend, samples.length - 1);
    box.setAttribute("aria-label", describe(chart, box));
  }
}

function columns(chart) {
  return [samples.map((s) => s.time_s), ...chart.series.map(({ read }) => samples.map((s) => read(s) ?? null))];
}

function showLegend(chart, legend, index) {
  const sample = samples[index];
  chart.series.forEach(({ read }, at) => {
    const value = sample && read(sample);
    legend[at].textContent = value == null ? "–" : chart.format(value);
  });
}

function describe(chart, box) {
  const title = box.parentElement.querySelector("figcaption span").textContent;
  const values = chart.series.map(({ name, read }) => {
    const value = read(samples.at(-1));
    return `${name} ${value == null ? "none" : chart.format(value)}`;
  });
  return `${title}, now: ${values.join(", ")}`;
}

// -- drawing -----------------------------------------------------------------------------------------

function buildAll() {
  for (const { plot } of plots) plot.destroy();
  plots = Object.entries(CHARTS).map(([name, chart]) => build(name, chart));
  show();
}

function build(name, chart) {
  const figure = panel.querySelector(`[data-chart="${name}"]`);
  const box = figure.querySelector(".plot");
  const css = getComputedStyle(document.documentElement);
  const colour = (property) => css.getPropertyValue(property).trim();
  const legend = buildLegend(figure.querySelector(".legend"), chart);
  const axis = { stroke: colour("--faint"), font: "11px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: colour("--line"), width: 1 };
  const options = {
    ...sizeOf(box),
    legend: { show: false },
    padding: [6, 4, 0, 0],
    cursor: { y: false, points: { size: 5 }, drag: { x: false, y: false }, sync: { key: "live" } },
    scales: {
      x: { range: () => [(samples.at(-1)?.time_s ?? 0) - keep_s, samples.at(-1)?.time_s ?? 1] },
      y: { range: (_, __, high) => [0, Math.max(chart.least, (high ?? 0) * (chart.format === percent ? 1 : 1.15))] },
    },
    axes: [
      { ...axis, size: 18, gap: 2, grid: { show: false }, space: 60, incrs: [60, 120], values: (plot, at) => at.map((t) => clock(plot, t)) },
      {
        ...axis,
        size: 40,
        gap: 4,
        grid,
        space: 20,
        incrs: chart.whole ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] : undefined,
        values: (_, at) => at.map((value) => short(chart, value)),
      },
    ],
    series: [
      {},
      ...chart.series.map((series) => ({
        stroke: colour(series.colour),
        width: 1.6,
        points: { show: (_, __, first, last) => last - first < 2, size: 4, fill: colour(series.colour) },
      })),
    ],
    hooks: {
      setCursor: [(plot) => showLegend(chart, legend, plot.cursor.idx ?? samples.length - 1)],
    },
  };
  return { chart, box, legend, plot: new uPlot(options, columns(chart), box) };
}

function buildLegend(element, chart) {
  element.replaceChildren();
  return chart.series.map(({ name, colour }) => {
    const entry = document.createElement("span");
    const mark = document.createElement("i");
    mark.className = `mark ${colour.slice(2)}`;
    const value = document.createElement("b");
    value.textContent = "–";
    entry.append(mark, name, " ", value);
    element.append(entry);
    return value;
  });
}

function sizeOf(box) {
  return { width: box.clientWidth || 260, height: box.clientHeight || 80 };
}

function clock(plot, t) {
  // A label centred this near an edge would be cut, or run into the other axis.
  if (t > plot.scales.x.max - 20 || t < plot.scales.x.min + 20) return "";
  return new Date(t * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
}

function short(chart, value) {
  if (chart.format === percent) return `${Math.round(value * 100)} %`;
  if (value >= 10000) return `${Math.round(value / 1000)}k`;
  return String(Number(value.toPrecision(3)));
}
