// Elements, without a framework. SPDX-License-Identifier: GPL-2.0-or-later

/** h('a.big', {href: '/', onclick: f}, 'text', child, null): an element. */
export function h(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split('.');
  const element = document.createElement(tag || 'div');
  element.className = classes.join(' ');
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key in element && key !== 'list' && key !== 'form') element[key] = value;
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Two words for a state: what it is called, and how it looks. */
const looks = {
  running: 'good', starting: 'busy', stopping: 'busy', paused: 'idle', stopped: 'off', 'io-error': 'bad',
  unreachable: 'bad', debug: 'idle', shutdown: 'off',
};

export function stateBadge(state) {
  return h(`span.state.${looks[state] ?? 'idle'}`, { title: `State: ${state}` }, state);
}

export function bytes(n) {
  if (!Number.isFinite(n)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit++;
  }
  return `${n >= 100 || unit === 0 || Number.isInteger(n) ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

export function time(text) {
  if (!text) return '–';
  const date = new Date(text);
  const pad = (n) => String(n).padStart(2, '0');
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
}

/** A message that goes by itself; errors stay until they are closed. */
export function say(text, bad = false) {
  const close = () => note.remove();
  const note = h(`div.note${bad ? '.bad' : ''}`, { role: bad ? 'alert' : 'status' }, h('span', {}, text),
    h('button.plain', { type: 'button', onclick: close, 'aria-label': 'Close' }, '×'));
  document.querySelector('#notes')?.append(note);
  if (!bad) setTimeout(close, 4000);
}

/** Runs what may fail, and says why it did. */
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    say(error.message, true);
    return undefined;
  }
}

/** Asks before something that cannot be undone. */
export function confirmBy(question, word) {
  return new Promise((resolve) => {
    const done = (answer) => {
      dialog.close();
      dialog.remove();
      resolve(answer);
    };
    const dialog = h('dialog', { oncancel: () => done(false) }, h('p', {}, question), h('div.actions', {},
      h('button', { type: 'button', onclick: () => done(false) }, 'Cancel'),
      h('button.danger', { type: 'button', onclick: () => done(true) }, word)));
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function emptyState(title, ...more) {
  return h('div.empty', {}, h('p.title', {}, title), ...more);
}
