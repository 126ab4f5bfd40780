// The screen, by noVNC. SPDX-License-Identifier: GPL-2.0-or-later
import RFB from '@novnc/novnc';
import { post, socketUrl, vmPath } from '../api.js';
import { attempt, emptyState, fill, h } from '../dom.js';

export function screenTab(holder, context, vm) {
  if (!vm.config.vga) return void fill(holder, emptyState('This machine has no screen.', h('p', {}, 'Add ', h('code', {}, 'vga: true'), ' to its description.')));
  if (vm.state === 'stopped' || vm.state === 'starting') return void fill(holder, emptyState(`The machine is ${vm.state}.`));
  const may = context.may('operator');
  const canvas = h('div.screen', { id: 'screen' });
  const status = h('span.count', { id: 'screen-status' }, 'connecting');
  const keys = (...names) => () => attempt(() => post(vmPath(vm.name, '/keys'), { keys: names }));
  let rfb = null;
  let over = false;

  const full = () => canvas.requestFullscreen?.();
  fill(holder, h('div.toolbar', {}, status, h('span.spacer'),
    may && h('button', { type: 'button', onclick: keys('ctrl-alt-delete') }, 'Ctrl+Alt+Del'),
    h('button', { type: 'button', onclick: full }, 'Full screen')), canvas);
  attempt(async () => {
    const url = await socketUrl(vmPath(vm.name, '/screen'));
    if (over) return;
    rfb = new RFB(canvas, url, { shared: true });
    rfb.viewOnly = !may;
    rfb.scaleViewport = true;
    rfb.background = 'transparent';
    rfb.addEventListener('connect', () => {
      status.textContent = may ? 'connected' : 'connected, view only';
      if (may) rfb.focus();
    });
    rfb.addEventListener('disconnect', () => { if (!over) status.textContent = 'disconnected'; });
  });
  return () => {
    over = true;
    rfb?.disconnect();
  };
}
