// The web console in a real browser. Started by test_web.py with a JSON of what it needs in TENON_WEB; says
// "step: ..." for each thing that holds, and ends with a sentence and status 1 at the first that does not.
// SPDX-License-Identifier: GPL-2.0-or-later
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const given = JSON.parse(process.env.TENON_WEB);
const { chromium } = createRequire(`${given.modules}/`)('playwright-core');
const PATIENCE = given.patience * 1000;
const pictureUrl = (path) => `data:image/png;base64,${readFileSync(path).toString('base64')}`;
const menu = pictureUrl(given.menu);
const framebuffer = pictureUrl(given.framebuffer);
mkdirSync(given.artefacts, { recursive: true });

const step = (text) => console.log(`step: ${text}`);
const strangers = [];
const complaints = [];

async function open(browser, scheme = 'light') {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: scheme });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.on('request', (request) => { if (!/^(data|blob):/.test(request.url()) && new URL(request.url()).host !== given.host) strangers.push(request.url()); });
  // What the policy stops, and what the page does wrong. That the API refuses something is its right: a machine may
  // end or be deleted in the moment in which the page asks for it.
  page.on('console', (message) => { if (message.type() === 'error' && !/responded with a status of 4\d\d/.test(message.text())) complaints.push(message.text()); });
  page.on('pageerror', (error) => complaints.push(String(error)));
  return page;
}

/** Pictures of the page at both widths; nothing may stick out on the right. */
async function picture(page, name, widths = [1440, 390]) {
  for (const width of widths) {
    await page.setViewportSize({ width, height: width > 1000 ? 900 : 844 });
    // Two frames: the layout, and what observes it, have come to rest.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${name} at ${width}: ${wide} px stick out`);
    await page.screenshot({ path: `${given.artefacts}/${name}-${width}.png`, fullPage: true });
  }
  await page.setViewportSize({ width: 1440, height: 900 });
}

async function logIn(page, token) {
  await page.goto(`http://${given.host}/`);
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Log in' }).click();
}

const goTo = (page, view) => page.getByRole('navigation', { name: 'Views' }).getByRole('link', { name: view }).click();

/** Does the canvas show the picture, but for the rows that tell GRUB's version? */
const shows = (page, url, ignored) => page.evaluate(async ({ url, ignored }) => {
  const canvas = document.querySelector('#screen canvas');
  const image = new Image();
  image.src = url;
  await image.decode();
  if (!canvas || canvas.width !== image.width || canvas.height !== image.height) return false;
  const copy = new OffscreenCanvas(image.width, image.height).getContext('2d');
  copy.drawImage(image, 0, 0);
  const wanted = copy.getImageData(0, 0, image.width, image.height).data;
  const shown = canvas.getContext('2d').getImageData(0, 0, image.width, image.height).data;
  const row = image.width * 4;
  return shown.every((value, i) => value === wanted[i] || (i >= ignored[0] * row && i < ignored[1] * row));
}, { url, ignored });

/** Does the canvas show what the API's screenshot shows, and something at all? */
const isCurrent = (page) => page.evaluate(async (name) => {
  const reply = await fetch(`/v1/vms/${name}/screenshot?format=ppm`, { headers: { Authorization: `Bearer ${sessionStorage.getItem('token')}` } });
  const file = new Uint8Array(await reply.arrayBuffer());
  const canvas = document.querySelector('#screen canvas');
  const header = `P6\n${canvas.width} ${canvas.height}\n255\n`;
  if (new TextDecoder().decode(file.subarray(0, header.length)) !== header) return false;
  const shown = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const pixels = file.subarray(header.length);
  return pixels.some((value) => value) && pixels.every((value, i) => value === shown[Math.floor(i / 3) * 4 + i % 3]);
}, given.vm);

async function until(condition, what, between = async () => {}) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; await between()) if (await condition()) return;
  assert.fail(`waited ${given.patience} s for ${what}`);
}
const breathe = (page) => page.evaluate(() => new Promise((done) => setTimeout(done, 100)));
const terminal = (page) => page.locator('#console .xterm-rows').innerText();

async function run(browser) {
  const page = await open(browser);
  await logIn(page, 'nonsense');
  await page.getByRole('alert').filter({ hasText: 'unknown' }).waitFor();
  await picture(page, 'login');
  await logIn(page, given.admin);
  await page.getByText('No machine yet.').waitFor();
  await picture(page, 'empty');
  step('logged in');

  await page.getByRole('link', { name: 'Create' }).click();
  await page.getByLabel('Name').fill(given.vm);
  await page.getByLabel('Disk image').fill(given.image);
  await page.getByLabel('Memory').fill('256M');
  await page.getByLabel('Firmware').selectOption('bios');
  await page.getByLabel('Engine').selectOption('soft');
  await picture(page, 'create');
  await page.getByRole('tab', { name: 'YAML' }).click();
  assert.match(await page.locator('#yaml').inputValue(), new RegExp(`name: ${given.vm}`));
  await picture(page, 'create-yaml');
  await page.getByRole('tab', { name: 'Form' }).click();
  await page.locator('#submit').click();

  // A key that comes early stops the menu's clock; the second entry is the last one.
  await page.locator('#screen-status', { hasText: /^connected/ }).waitFor();
  await until(() => shows(page, menu, [16, 32]), "GRUB's menu", async () => {
    await page.keyboard.press('ArrowDown');
    await breathe(page);
  });
  await picture(page, 'screen-grub');
  step('GRUB is on the screen');
  await page.locator('#screen canvas').click();
  await page.keyboard.press('Enter');

  await goTo(page, 'Console');
  await until(async () => (await terminal(page)).includes('disk: a shell'), 'a shell', () => breathe(page));
  await page.locator('#console').click();
  await page.keyboard.type('echo $((6*7))-is-the-answer\n');
  await until(async () => (await terminal(page)).includes('42-is-the-answer'), 'the answer', () => breathe(page));
  step('the console answers');
  await page.keyboard.type("printf '\\033[2J\\033[HWhat now? ' >/dev/tty1; read word </dev/tty1; echo heard: $word.\n");
  await picture(page, 'console');

  await goTo(page, 'Screen');
  await page.locator('#screen-status', { hasText: /^connected/ }).waitFor();
  await page.keyboard.type('typed-here');
  await page.keyboard.press('Shift+Digit1');
  await page.keyboard.press('Enter');
  await until(() => isCurrent(page), 'the kernel on the screen', () => breathe(page));
  await picture(page, 'screen-linux');
  await goTo(page, 'Console');
  await until(async () => (await terminal(page)).includes('heard: typed-here!.'), 'what was typed', () => breathe(page));
  step('the screen takes keys, and shows what the kernel does');

  await goTo(page, 'Overview');
  await page.locator('#timeline .stage', { hasText: 'kernel entry' }).waitFor();
  await page.locator('.shot img').waitFor();
  await picture(page, 'overview');
  await goTo(page, 'Graphs');
  for (const graph of ['cpu', 'memory', 'exits', 'disk', 'network']) {
    await page.waitForFunction((id) => document.querySelector(id)?.dataset.samples >= 4, `#graph-${graph}`);
  }
  await picture(page, 'graphs');
  await goTo(page, 'Config');
  assert.match(await page.locator('#yaml').inputValue(), /vga: true/);
  await picture(page, 'config');
  step('timeline and graphs');

  const visitor = await open(browser, 'dark');
  await logIn(visitor, given.viewer);
  await visitor.getByRole('link', { name: given.vm }).click();
  await visitor.locator('#timeline').waitFor();
  assert.equal(await visitor.locator('#do-reset, #do-stop, #do-delete').count(), 0);
  await picture(visitor, 'visitor-overview');
  await goTo(visitor, 'Screen');
  await visitor.locator('#screen-status', { hasText: 'view only' }).waitFor();
  await until(() => isCurrent(visitor), 'the same screen', () => breathe(visitor));
  await goTo(visitor, 'Console');
  await visitor.locator('#console-status', { hasText: 'view only' }).waitFor();
  await until(async () => (await terminal(visitor)).includes('heard: typed-here!.'), 'what others typed', () => breathe(visitor));
  await visitor.locator('#console').click();
  await visitor.keyboard.type('echo from-a-visitor\n');
  // Not by the page's own restraint alone: what is sent to the socket types nothing either.
  const refused = await visitor.evaluate(async (name) => (await fetch(`/v1/vms/${name}/consoles/c0/input`, { method: 'POST',
    headers: { Authorization: `Bearer ${sessionStorage.getItem('token')}` }, body: '{"text": "echo from-a-visitor\\n"}' })).status, given.vm);
  assert.equal(refused, 403);
  await goTo(page, 'Console');
  await page.locator('#console-status', { hasText: /^connected$/ }).waitFor();
  await page.locator('#console').click();
  await page.keyboard.type('echo after-$((1+1))\n');
  await until(async () => (await terminal(page)).includes('after-2'), 'the console', () => breathe(page));
  assert.ok(!(await terminal(page)).includes('from-a-visitor'));
  await picture(visitor, 'visitor-console');
  await visitor.context().close();
  step('a viewer looks and does not type');

  await goTo(page, 'Screen');
  await page.locator('#screen-status', { hasText: /^connected/ }).waitFor();
  await page.locator('#do-reset').click();
  await until(() => shows(page, menu, [16, 32]), "GRUB's menu after the reset", async () => {
    await page.locator('#screen canvas').focus();
    await page.keyboard.press('ArrowDown');
    await breathe(page);
  });
  step('reset');

  await page.getByRole('link', { name: 'Machines' }).click();
  await page.getByRole('row', { name: given.vm }).getByText('running').waitFor();
  await picture(page, 'machines');
  await page.getByRole('link', { name: given.vm }).click();
  await page.locator('#do-delete').click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await page.getByText('No machine yet.').waitFor();
  await page.getByRole('link', { name: 'Events' }).click();
  await page.getByRole('row', { name: 'vm.state' }).first().waitFor();
  await picture(page, 'events');
  await page.getByRole('link', { name: 'Audit' }).click();
  await page.getByText('the chain is intact').waitFor();
  await page.getByRole('row', { name: 'deleteVm' }).waitFor();
  await picture(page, 'audit');
  step('deleted; events and audit tell it');

  await page.getByRole('link', { name: 'Machines' }).click();
  await page.getByRole('link', { name: 'Create' }).click();
  await page.getByRole('tab', { name: 'YAML' }).click();
  await page.locator('#yaml').fill(given.kernel);
  await page.locator('#submit').click();
  await page.locator('#screen-status', { hasText: /^connected/ }).waitFor();
  await until(() => shows(page, framebuffer, [0, 0]), "the kernel's framebuffer", () => breathe(page));
  await picture(page, 'screen-framebuffer');
  step("the kernel's framebuffer");
  assert.deepEqual(strangers, [], 'requests to somebody else');
  assert.deepEqual(complaints, [], 'complaints of the browser');
}

const browser = await chromium.launch({ executablePath: given.chromium, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
let status = 0;
try {
  await run(browser);
} catch (error) {
  console.log(`failed: ${error.message}\n${error.stack}`);
  const [page] = browser.contexts().at(-1)?.pages() ?? [];
  await page?.screenshot({ path: `${given.artefacts}/failed.png` }).catch(() => {});
  status = 1;
}
await browser.close();
process.exit(status);
