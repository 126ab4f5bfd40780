// One VM: overview, screen, console, graphs, description. SPDX-License-Identifier: GPL-2.0-or-later
import { parse, stringify } from 'yaml';
import { get, getText, post, put, remove, vmPath } from '../api.js';
import { attempt, bytes, confirmBy, emptyState, fill, h, say, stateBadge, time } from '../dom.js';
import { consoleTab } from './console.js';
import { graphsTab, timelineChart } from './graphs.js';
import { screenTab } from './screen.js';

const TABS = { overview: 'Overview', screen: 'Screen', console: 'Console', graphs: 'Graphs', log: 'Log', config: 'Config' };
const UP = ['running', 'paused', 'io-error', 'debug'];

function actions(vm, context, refresh) {
  const run = (name) => () => attempt(() => post(vmPath(vm.name, `/actions/${name}`))).then(refresh);
  const button = (name, text, on, kind = '') => h(`button${kind}`, { type: 'button', onclick: run(name), disabled: !on, id: `do-${name}` }, text);
  const erase = async () => {
    const running = vm.state !== 'stopped';
    if (!await confirmBy(running ? `“${vm.name}” is ${vm.state}. End it at once and delete it? Its disks stay.`
      : `Delete “${vm.name}”? Its disks stay.`, 'Delete')) return;
    await attempt(async () => {
      await remove(vmPath(vm.name, running ? '?force=true' : ''));
      say(`“${vm.name}” is deleted.`);
      context.go('/');
    });
  };
  const up = UP.includes(vm.state);
  return h('div.actions', {}, context.may('operator') && [
    vm.state === 'stopped' ? button('start', 'Start', true, '.primary') : null,
    vm.state === 'paused' ? button('resume', 'Resume', true, '.primary') : button('pause', 'Pause', vm.state === 'running'),
    button('reset', 'Reset', up), button('powerdown', 'Power down', vm.state === 'running'), button('stop', 'Stop', vm.state !== 'stopped')].filter(Boolean),
  context.may('admin') && h('button.danger', { type: 'button', id: 'do-delete', onclick: erase }, 'Delete'));
}

function fact(name, value) {
  return [h('dt', {}, name), h('dd', {}, value)];
}

function overviewTab(holder, context, vm) {
  const { config } = vm;
  const shot = h('a.shot', { href: `#/vm/${encodeURIComponent(vm.name)}/screen` });
  const chart = h('div');
  fill(holder, h('div.overview', {},
    h('section.card', {}, h('h2', {}, 'Machine'), h('dl.facts', {},
      fact('CPUs', `${config.cpus}`), fact('Memory', bytes(config.memory)), fact('Board', config.board),
      fact('Engine', vm.engine ?? '–'), fact('Firmware', config.firmware ?? 'direct boot'),
      fact('Disks', config.disks.length ? config.disks.map((disk) => h('span.line', { title: disk.path }, `${disk.id}: ${disk.path.split('/').pop()}`)) : 'none'),
      fact('Networks', config.nets.length ? config.nets.map((net) => `${net.id}: ${net.kind}`).join(', ') : 'none'),
      fact('Created', time(vm.created_at)), fact('Started', time(vm.started_at)),
      vm.last ? fact('Last run', `${vm.last.result}${vm.last.reason ? `: ${vm.last.reason}` : ''}`) : [])),
    config.vga && UP.includes(vm.state) ? h('section.card', {}, h('h2', {}, 'Screen'), shot) : null,
    h('section.card.wide', {}, h('h2', {}, 'Boot timeline'), chart)));
  attempt(async () => timelineChart(chart, (await get(vmPath(vm.name, '/timeline'))).stages));
  if (!config.vga || !UP.includes(vm.state)) return;
  // A picture that changes needs no address of its own: it is shown as what it is, bytes.
  fetchImage(vm.name).then((url) => shot.replaceChildren(h('img', { src: url, alt: `Screen of ${vm.name}`, onload: () => URL.revokeObjectURL(url) }))).catch(() => {});
}

async function fetchImage(name) {
  const reply = await fetch(vmPath(name, '/screenshot'), { headers: { Authorization: `Bearer ${sessionStorage.getItem('token')}` } });
  if (!reply.ok) throw new Error(reply.statusText);
  return URL.createObjectURL(await reply.blob());
}

function configTab(holder, context, vm) {
  const may = context.may('admin') && vm.state === 'stopped';
  const text = h('textarea.code', { id: 'yaml', rows: 26, spellcheck: false, readOnly: !may, value: stringify(vm.config), 'aria-label': 'Description as YAML' });
  const save = () => attempt(async () => {
    await put(vmPath(vm.name), parse(text.value));
    say('Saved: it holds from the next start.');
  });
  fill(holder, text, may ? h('div.actions.left', {}, h('button.primary', { type: 'button', onclick: save }, 'Save'))
    : h('p.hint', {}, context.may('admin') ? 'It can be changed while the machine is stopped.' : 'Only an admin may change it.'));
}

function logTab(holder, context, vm) {
  attempt(async () => {
    const text = await getText(vmPath(vm.name, '/log'));
    fill(holder, text ? h('pre.code', {}, text) : emptyState('Nothing was said.'));
  });
}

export function vmPage(content, context, name, tab) {
  const title = h('div.head');
  const holder = h('div.tab', { id: 'tab' });
  const path = (key) => `#/vm/${encodeURIComponent(name)}/${key}`;
  let close = () => {};
  let shown = '';
  let vm = null;

  const draw = (kind) => {
    close();
    close = () => {};
    const tabs = { overview: overviewTab, screen: screenTab, console: consoleTab, graphs: graphsTab, log: logTab, config: configTab };
    close = (tabs[kind] ?? overviewTab)(holder, context, vm) ?? close;
  };
  const refresh = () => attempt(async () => {
    vm = await get(vmPath(name)).catch((error) => {
      if (error.status !== 404) throw error;
    });
    if (!vm) return context.go('/'); // somebody has deleted it
    fill(title, h('h1', {}, vm.name), stateBadge(vm.state), h('span.spacer'), actions(vm, context, refresh));
    // Screen and console stay open while states change; the rest is drawn anew.
    const now = ['screen', 'console', 'graphs'].includes(tab) ? String(UP.includes(vm.state)) : vm.state;
    if (now !== shown) draw(tab);
    shown = now;
    return undefined;
  });
  const onEvent = (event) => { if (event.detail.vm === name && event.detail.type !== 'vm.deleted') refresh(); };
  fill(content, title, h('nav.tabs', { 'aria-label': 'Views' }, Object.entries(TABS).map(([key, text]) =>
    h('a', { href: path(key), 'aria-current': key === tab ? 'page' : null }, text))), holder);
  context.events.addEventListener('event', onEvent);
  refresh();
  return () => {
    context.events.removeEventListener('event', onEvent);
    close();
  };
}
