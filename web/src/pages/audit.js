// The audit log: who did what. SPDX-License-Identifier: GPL-2.0-or-later
import { get } from '../api.js';
import { attempt, fill, h, time } from '../dom.js';

const ROWS = 200;

export function auditPage(content) {
  const body = h('tbody');
  const check = h('span.count');
  fill(content, h('div.head', {}, h('h1', {}, 'Audit'), check), h('table.list', { id: 'audit' }, h('thead', {}, h('tr', {},
    ['Time', 'Who', 'Action', 'Target'].map((name) => h('th', {}, name)), h('th.number', {}, 'Status'), h('th', {}, 'From'))), body));
  attempt(async () => {
    const verdict = await get('/v1/audit/verify');
    check.textContent = verdict.intact ? `${verdict.good} entries, the chain is intact` : verdict.problem;
    check.classList.toggle('problem', !verdict.intact);
    const { entries } = await get(`/v1/audit?limit=${ROWS}&after=${Math.max(0, verdict.good - ROWS)}`);
    fill(body, entries.reverse().map((entry) => h('tr', {}, h('td.fixed', {}, time(entry.time)), h('td', {}, entry.who), h('td', {}, entry.action),
      h('td', {}, [entry.target, entry.detail].filter(Boolean).join(' / ') || '–'),
      h('td.number', {}, h(`span${entry.status >= 400 ? '.problem' : ''}`, {}, String(entry.status))), h('td.quiet', {}, entry.from))));
  });
}
