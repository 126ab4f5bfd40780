// A serial console, by xterm.js. SPDX-License-Identifier: GPL-2.0-or-later
import { FitAddon } from '@xterm/addon-fit';
import { Terminal } from '@xterm/xterm';
import { socketUrl, vmPath } from '../api.js';
import { attempt, emptyState, fill, h } from '../dom.js';

export function consoleTab(holder, context, vm) {
  const id = vm.consoles.find((console) => console.connected)?.id ?? vm.consoles[0]?.id;
  if (!id) return void fill(holder, emptyState('This machine has no console here.'));
  if (vm.state === 'stopped' || vm.state === 'starting') return void fill(holder, emptyState(`The machine is ${vm.state}.`));
  const may = context.may('operator');
  const status = h('span.count', { id: 'console-status' }, 'connecting');
  const box = h('div.terminal', { id: 'console' });
  const terminal = new Terminal({ cursorBlink: false, disableStdin: !may, fontSize: 13, scrollback: 5000,
    fontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace', theme: { background: '#101417', foreground: '#d7dde0' } });
  const fit = new FitAddon();
  let socket = null;
  let over = false;

  fill(holder, h('div.toolbar', {}, h('span', {}, `Console ${id}`), status), box);
  terminal.loadAddon(fit);
  terminal.open(box);
  fit.fit();
  const resized = new ResizeObserver(() => fit.fit());
  resized.observe(box);
  const encoder = new TextEncoder();
  terminal.onData((text) => { if (may && socket?.readyState === WebSocket.OPEN) socket.send(encoder.encode(text)); });
  attempt(async () => {
    const url = await socketUrl(vmPath(vm.name, `/consoles/${id}`));
    if (over) return;
    socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      status.textContent = may ? 'connected' : 'connected, view only';
      terminal.focus();
    };
    socket.onmessage = (event) => terminal.write(new Uint8Array(event.data));
    socket.onclose = () => { if (!over) status.textContent = 'disconnected'; };
  });
  return () => {
    over = true;
    resized.disconnect();
    socket?.close();
    terminal.dispose();
  };
}
