// The web console of tenond: login, frame, and which page is shown. SPDX-License-Identifier: GPL-2.0-or-later
import '@xterm/xterm/css/xterm.css';
import 'uplot/dist/uPlot.min.css';
import './style.css';
import { get, listen, setToken, whenDenied } from './api.js';
import { fill, h } from './dom.js';
import { auditPage } from './pages/audit.js';
import { createPage } from './pages/create.js';
import { eventsPage } from './pages/events.js';
import { vmPage } from './pages/vm.js';
import { vmsPage } from './pages/vms.js';

const app = document.querySelector('#app');
const roles = ['viewer', 'operator', 'admin'];
let leave = () => {};
let stream = null;

/** What pages get: who looks, what happens, and how to go elsewhere. */
const context = {
  me: null,
  events: new EventTarget(),
  recent: [],
  may: (role) => roles.indexOf(context.me?.role) >= roles.indexOf(role),
  go: (path) => { location.hash = path; },
};

function loginPage(why = '') {
  const field = h('input', { type: 'password', id: 'token', autocomplete: 'off', required: true, spellcheck: false });
  const problem = h('p.problem', { role: 'alert' }, why);
  const submit = async (event) => {
    event.preventDefault();
    setToken(field.value.trim());
    problem.textContent = '';
    try {
      await start();
    } catch (error) {
      setToken('');
      problem.textContent = error.message;
    }
  };
  fill(app, h('main.login', {}, h('form', { onsubmit: submit },
    h('h1', {}, h('img', { src: '/icon.svg', alt: '', width: 28, height: 28 }), 'Tenon'),
    h('label', { htmlFor: 'token' }, 'Token'), field,
    h('p.hint', {}, 'Made on the host by ', h('code', {}, 'tenon token create'), '.'),
    h('button.primary', { type: 'submit' }, 'Log in'), problem)));
  field.focus();
}

function logOut(why) {
  stream?.abort();
  stream = null;
  leave();
  leave = () => {};
  setToken('');
  context.me = null;
  loginPage(typeof why === 'string' ? why : '');
}

function link(path, text, current) {
  return h('a', { href: `#${path}`, 'aria-current': current ? 'page' : null }, text);
}

function frame(path) {
  const live = h('span.live', { id: 'live', title: 'Connected: states and events come as they happen' }, 'live');
  const content = h('main.content', { id: 'content', tabIndex: -1 });
  fill(app, h('a.skip', { href: '#content', onclick: (event) => { event.preventDefault(); content.focus(); } }, 'To the content'),
    h('header.bar', {},
      h('a.brand', { href: '#/' }, h('img', { src: '/icon.svg', alt: '', width: 22, height: 22 }), 'Tenon'),
      h('nav', { 'aria-label': 'Pages' }, link('/', 'Machines', path === '/' || path.startsWith('/vm')),
        link('/events', 'Events', path === '/events'),
        context.may('admin') && link('/audit', 'Audit', path === '/audit')),
      h('span.spacer'), live,
      h('span.who', { title: `${context.me.name}, ${context.me.role}` }, context.me.name.replace(/^token:/, ''), h('small', {}, context.me.role)),
      h('button.plain', { type: 'button', onclick: logOut }, 'Log out')),
    content, h('div', { id: 'notes', 'aria-live': 'polite' }));
  return content;
}

function route() {
  if (!context.me) return;
  leave();
  leave = () => {};
  const path = location.hash.slice(1) || '/';
  const content = frame(path);
  showLive(context.connected);
  const [, kind, name, tab] = path.split('/').map(decodeURIComponent);
  if (path === '/events') leave = eventsPage(content, context) ?? leave;
  else if (path === '/audit') leave = auditPage(content, context) ?? leave;
  else if (kind === 'vms-new') leave = createPage(content, context) ?? leave;
  else if (kind === 'vm' && name) leave = vmPage(content, context, name, tab || 'overview') ?? leave;
  else leave = vmsPage(content, context) ?? leave;
}

function showLive(connected) {
  context.connected = connected;
  const live = document.querySelector('#live');
  live?.classList.toggle('lost', connected === false);
  if (live) live.textContent = connected === false ? 'reconnecting' : 'live';
}

async function start() {
  context.me = await get('/v1/me');
  stream?.abort();
  stream = new AbortController();
  listen((event) => {
    context.recent.unshift(event);
    context.recent.length = Math.min(context.recent.length, 500);
    context.events.dispatchEvent(new CustomEvent('event', { detail: event }));
  }, showLive, stream.signal);
  route();
}

window.addEventListener('hashchange', route);
whenDenied((why) => { if (context.me) logOut(why ?? 'The token is no longer valid.'); });
if (sessionStorage.getItem('token')) start().catch((error) => logOut(error.message));
else loginPage();
