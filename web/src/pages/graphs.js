// Live graphs, and the boot timeline as a chart. SPDX-License-Identifier: GPL-2.0-or-later
import uPlot from 'uplot';
import { metrics } from '../api.js';
import { bytes, emptyState, fill, h, time } from '../dom.js';

const EVERY_MS = 1000;
const KEPT = 180;
const WINDOW_S = 90;
const POWERS = Array.from({ length: 50 }, (_, i) => 2 ** i);
const COLOURS = ['--line-1', '--line-2', '--line-3', '--line-4'];

const sum = (samples, name) => {
  const found = samples.filter((sample) => sample.name === name);
  return found.length ? found.reduce((total, sample) => total + sample.value, 0) : null;
};
/** Sums of a family by one of its labels. */
const by = (samples, name, label) => samples.filter((sample) => sample.name === name)
  .reduce((sums, { labels, value }) => ({ ...sums, [labels[label]]: (sums[labels[label]] ?? 0) + value }), {});
const rate = (n) => (n >= 1e6 ? `${(n / 1e6).toFixed(1)} M/s` : n >= 1e3 ? `${(n / 1e3).toFixed(1)} k/s` : `${Math.round(n)}/s`);

/** What is drawn: values of one moment by name; counters become rates, `binary` ones count in KiB. */
const GRAPHS = [
  { id: 'cpu', title: 'CPU', unit: (n) => `${n.toFixed(n < 10 ? 1 : 0)} %`, counter: true, scale: 100,
    values: (s) => ({ guest: sum(s, 'tenon_vm_cpu_seconds_total'), process: sum(s, 'tenon_vm_process_cpu_seconds_total') }) },
  { id: 'memory', binary: true, title: 'Memory', unit: bytes, values: (s) => ({ resident: sum(s, 'tenon_vm_resident_memory_bytes'), guest: sum(s, 'tenon_vm_memory_bytes') }) },
  { id: 'exits', title: 'Exits by cause', unit: rate, counter: true, values: (s) => by(s, 'tenon_vm_exit_causes_total', 'cause') },
  { id: 'disk', binary: true, title: 'Disk', unit: (n) => `${bytes(n)}/s`, counter: true,
    values: (s) => by(s, 'tenon_disk_bytes_total', 'op') },
  { id: 'network', binary: true, title: 'Network', unit: (n) => `${bytes(n)}/s`, counter: true,
    values: (s) => by(s, 'tenon_net_bytes_total', 'direction') },
];

class Graph {
  constructor(graph) {
    this.graph = graph;
    this.times = [];
    this.series = {};
    this.now = h('div.legend');
    this.box = h('div.plot');
    this.card = h('section.card.graph', { id: `graph-${graph.id}`, hidden: true }, h('h2', {}, graph.title, this.now), this.box);
  }

  add(at, samples, before, seconds) {
    const { counter, scale = 1, values } = this.graph;
    const now = values(samples);
    const then = before ? values(before) : {};
    if (counter && !before) return;
    const point = {};
    for (const [name, value] of Object.entries(now)) {
      if (value === null || (counter && (then[name] === undefined || then[name] === null))) continue;
      point[name] = counter ? Math.max(0, value - then[name]) / seconds * scale : value;
    }
    if (!Object.keys(point).length) return;
    this.times.push(at);
    for (const name of Object.keys(point)) this.series[name] ??= Array(this.times.length - 1).fill(null);
    for (const [name, list] of Object.entries(this.series)) list.push(point[name] ?? null);
    while (this.times.length > KEPT) [this.times, ...Object.values(this.series)].forEach((list) => list.shift());
    this.draw(point);
  }

  draw(point) {
    const names = Object.keys(this.series);
    this.card.hidden = false;
    this.card.dataset.samples = this.times.length;
    fill(this.now, names.map((name, i) => h('span', {}, h(`i.line-${i + 1}`), `${name} ${this.graph.unit(point[name] ?? 0)}`)));
    const data = [this.times, ...Object.values(this.series)];
    if (this.plot && this.plotted === names.length) return this.plot.setData(data);
    this.plot?.destroy();
    this.plotted = names.length;
    const style = getComputedStyle(document.documentElement);
    const axis = { stroke: style.getPropertyValue('--quiet'), grid: { stroke: style.getPropertyValue('--rule'), width: 1 }, ticks: { show: false }, font: '11px system-ui' };
    this.plot = new uPlot({ width: this.box.clientWidth || 400, height: 150, legend: { show: false }, cursor: { show: false },
      scales: { x: { range: (plot, low, high) => [high - WINDOW_S, high] }, y: { range: (plot, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [{ ...axis, space: 90, size: 26, values: (plot, ticks) => ticks.map((tick) => time(tick * 1000).slice(11)) },
        { ...axis, size: 72, space: 32, ...(this.graph.binary ? { incrs: POWERS } : {}), values: (plot, ticks) => ticks.map((tick) => this.graph.unit(tick)) }],
      series: [{}, ...names.map((name, i) => ({ label: name, stroke: style.getPropertyValue(COLOURS[i % COLOURS.length]), width: 1.5, points: { show: false } }))] }, data, this.box);
  }

  resize() {
    this.plot?.setSize({ width: this.box.clientWidth, height: 150 });
  }
}

export function graphsTab(holder, context, vm) {
  if (vm.state === 'stopped') return void fill(holder, emptyState('The machine is stopped.', h('p', {}, 'Graphs are of machines that run.')));
  const graphs = GRAPHS.map((graph) => new Graph(graph));
  let before = null;
  let at = 0;
  let timer = 0;
  fill(holder, h('div.graphs', {}, graphs.map((graph) => graph.card)));
  const resized = new ResizeObserver(() => graphs.forEach((graph) => graph.resize()));
  resized.observe(holder);
  const step = async () => {
    try {
      const samples = await metrics(vm.name);
      const now = performance.now();
      graphs.forEach((graph) => graph.add(Date.now() / 1000, samples, before, (now - at) / 1000));
      [before, at] = [samples, now];
    } catch { /* the next one may do */ }
    if (timer !== null) timer = setTimeout(step, EVERY_MS);
  };
  step();
  return () => {
    clearTimeout(timer);
    timer = null;
    resized.disconnect();
    graphs.forEach((graph) => graph.plot?.destroy());
  };
}

const ms = (n) => (n >= 1000 ? `${(n / 1000).toFixed(2)} s` : `${n.toFixed(n < 10 ? 1 : 0)} ms`);

/** Stages below each other, each as long as it took. */
export function timelineChart(holder, stages) {
  if (!stages.length) return void fill(holder, emptyState('It has not run yet.'));
  const sorted = [...stages].sort((a, b) => a.at_ms - b.at_ms);
  const end = sorted.at(-1).at_ms || 1;
  fill(holder, h('div.timeline', { id: 'timeline' }, sorted.map((stage, i) => {
    const from = i ? sorted[i - 1].at_ms : 0;
    const bar = h('span.span');
    bar.style.left = `${from / end * 100}%`;
    bar.style.width = `${Math.max(0.4, (stage.at_ms - from) / end * 100)}%`;
    return h('div.stage', { title: `${stage.stage}: ${ms(stage.at_ms - from)}, until ${ms(stage.at_ms)}` },
      h('span.what', {}, stage.stage), h('span.track', {}, bar), h('span.took', {}, ms(stage.at_ms - from)), h('span.at', {}, ms(stage.at_ms)));
  })));
}
