// The REST API of tenond. SPDX-License-Identifier: GPL-2.0-or-later

let token = sessionStorage.getItem('token') ?? '';
let onDenied = () => {};

export function setToken(text) {
  token = text;
  if (text) sessionStorage.setItem('token', text);
  else sessionStorage.removeItem('token');
}

/** Called when the token is no longer good. */
export function whenDenied(callback) {
  onDenied = callback;
}

function headers(more = {}) {
  return token ? { Authorization: `Bearer ${token}`, ...more } : more;
}

/** A reply that is an error becomes one with the server's own sentence. */
async function request(method, path, body) {
  const options = { method, headers: headers() };
  if (body !== undefined) {
    options.headers['Content-Type'] = 'application/json';
    options.body = JSON.stringify(body);
  }
  const reply = await fetch(path, options);
  if (reply.ok) return reply;
  const problem = await reply.json().catch(() => ({}));
  if (reply.status === 401) onDenied(problem.detail);
  const error = new Error(problem.detail ?? `${reply.status} ${reply.statusText}`);
  error.status = reply.status;
  throw error;
}

export const get = async (path) => (await request('GET', path)).json();
export const getText = async (path) => (await request('GET', path)).text();
export const post = async (path, body) => {
  const text = await (await request('POST', path, body)).text();
  return text ? JSON.parse(text) : null;
};
export const put = async (path, body) => (await request('PUT', path, body)).json();
export const remove = (path) => request('DELETE', path);
export const vmPath = (name, rest = '') => `/v1/vms/${encodeURIComponent(name)}${rest}`;

/** The address of a WebSocket, with a ticket in place of the token. */
export async function socketUrl(path) {
  const { path: withTicket } = await post(`${path}/tickets`);
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${withTicket}`;
}

/**
 * Events as they happen, until the signal. EventSource sends no token, so the stream is read by hand; after a
 * break it goes on with the last event.
 */
export async function listen(onEvent, onState, signal) {
  let last = '';
  while (!signal.aborted) {
    try {
      const reply = await fetch('/v1/events', { headers: headers(last ? { 'Last-Event-ID': last } : {}), signal });
      if (reply.status === 401) return onDenied();
      onState(true);
      const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ''; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        const parts = (text + value).split('\n\n');
        text = parts.pop();
        for (const part of parts) {
          const data = part.split('\n').find((line) => line.startsWith('data: '));
          last = part.split('\n').find((line) => line.startsWith('id: '))?.slice(4) ?? last;
          if (data) onEvent(JSON.parse(data.slice(6)));
        }
      }
    } catch (error) {
      if (signal.aborted) return;
    }
    onState(false);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

/** Samples of Prometheus text about one VM: [{name, labels, value}]. */
export async function metrics(vm) {
  const samples = [];
  for (const line of (await getText('/v1/metrics')).split('\n')) {
    const found = /^([a-z_]+)\{([^}]*)\} (\S+)/.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...found[2].matchAll(/(\w+)="([^"]*)"/g)].map((pair) => pair.slice(1)));
    if (labels.vm === vm) samples.push({ name: found[1], labels, value: Number(found[3]) });
  }
  return samples;
}
