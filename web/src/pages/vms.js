// The list of VMs. SPDX-License-Identifier: GPL-2.0-or-later
import { get, post, vmPath } from '../api.js';
import { attempt, bytes, emptyState, fill, h, stateBadge, time } from '../dom.js';

/** The one thing that is most likely wanted of a VM in this state. */
function action(vm, context, refresh) {
  if (!context.may('operator')) return null;
  const run = (name) => (event) => {
    event.preventDefault();
    attempt(() => post(vmPath(vm.name, `/actions/${name}`))).then(refresh);
  };
  if (vm.state === 'stopped') return h('button', { type: 'button', onclick: run('start') }, 'Start');
  if (vm.state === 'paused') return h('button', { type: 'button', onclick: run('resume') }, 'Resume');
  if (vm.state === 'running') return h('button', { type: 'button', onclick: run('powerdown') }, 'Power down');
  return null;
}

function row(vm, context, refresh) {
  const href = `#/vm/${encodeURIComponent(vm.name)}`;
  return h('tr', {},
    h('td', {}, h('a.name', { href }, vm.name)),
    h('td', {}, stateBadge(vm.state)),
    h('td.number', { 'data-label': 'CPUs' }, String(vm.config.cpus)),
    h('td.number', { 'data-label': 'Memory' }, bytes(vm.config.memory)),
    h('td', { 'data-label': 'Engine' }, vm.engine ?? '–'),
    h('td.fixed', { 'data-label': 'Since' }, time(vm.started_at ?? vm.last?.ended_at)),
    h('td.end', {}, action(vm, context, refresh)));
}

export function vmsPage(content, context) {
  const body = h('tbody');
  const table = h('table.list', { id: 'vms' }, h('thead', {}, h('tr', {}, ['Name', 'State'].map((text) => h('th', {}, text)),
    h('th.number', {}, 'CPUs'), h('th.number', {}, 'Memory'), h('th', {}, 'Engine'), h('th', {}, 'Since'), h('th'))), body);
  const holder = h('section');
  const create = context.may('admin') && h('a.button.primary', { href: '#/vms-new' }, 'Create');
  const count = h('span.count');
  fill(content, h('div.head', {}, h('h1', {}, 'Machines'), count, h('span.spacer'), create), holder);

  const refresh = () => attempt(async () => {
    const { vms } = await get('/v1/vms');
    count.textContent = vms.length ? `${vms.filter((vm) => vm.state !== 'stopped').length} of ${vms.length} run` : '';
    fill(body, vms.map((vm) => row(vm, context, refresh)));
    fill(holder, vms.length ? table : emptyState('No machine yet.', h('p', {}, context.may('admin')
      ? 'Create one from an image or a kernel; it keeps running when this page is closed.' : 'Nobody has created one that you may see.')));
  });
  const onEvent = (event) => { if (event.detail.type.startsWith('vm.')) refresh(); };
  context.events.addEventListener('event', onEvent);
  refresh();
  return () => context.events.removeEventListener('event', onEvent);
}
