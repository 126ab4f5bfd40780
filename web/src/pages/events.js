// What happens, as it happens. SPDX-License-Identifier: GPL-2.0-or-later
import { emptyState, fill, h, stateBadge, time } from '../dom.js';

function what(event) {
  const data = event.data ?? {};
  if (data.state) return [stateBadge(data.state), data.previous ? h('span.quiet', {}, ` after ${data.previous}`) : null];
  return [h('code', {}, Object.keys(data).length ? JSON.stringify(data) : '')];
}

export function eventsPage(content, context) {
  const body = h('tbody');
  const holder = h('section');
  const table = h('table.list', { id: 'events' }, h('thead', {}, h('tr', {}, ['Time', 'Machine', 'Event', 'What'].map((name) => h('th', {}, name)))), body);
  const draw = () => {
    fill(body, context.recent.map((event) => h('tr', {}, h('td.fixed', {}, time(event.time)),
      h('td', {}, event.vm ? h('a', { href: `#/vm/${encodeURIComponent(event.vm)}` }, event.vm) : '–'), h('td', {}, event.type), h('td', {}, what(event)))));
    fill(holder, context.recent.length ? table : emptyState('Nothing has happened since this page was opened.'));
  };
  fill(content, h('div.head', {}, h('h1', {}, 'Events')), holder);
  context.events.addEventListener('event', draw);
  draw();
  return () => context.events.removeEventListener('event', draw);
}
