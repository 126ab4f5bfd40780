// Create a VM: by form, or as YAML. SPDX-License-Identifier: GPL-2.0-or-later
import { parse, stringify } from 'yaml';
import { get, post } from '../api.js';
import { attempt, bytes, fill, h } from '../dom.js';

const STANDARD = { name: '', cpus: 1, memory: '1G', disks: [{ path: '' }], vga: true, 'usb-tablet': true, nets: [{ kind: 'user' }] };

function field(label, input, hint) {
  input.id = `field-${input.name}`;
  return h('div.field', {}, h('label', { htmlFor: input.id }, label), input, hint && h('p.hint', {}, hint));
}

/** The form's values as a description; what was left empty is left out. */
function describe(form) {
  const value = (name) => form.elements[name].value.trim();
  const config = { name: value('name'), cpus: Number(value('cpus')), memory: value('memory') };
  if (value('kernel')) config.kernel = value('kernel');
  if (value('append')) config.append = value('append');
  if (value('image')) config.disks = [{ path: value('image'), ...(form.elements.readonly.checked ? { readonly: true } : {}) }];
  if (form.elements.vga.checked) Object.assign(config, { vga: true, 'usb-tablet': true });
  if (form.elements.net.checked) config.nets = [{ kind: 'user' }];
  if (value('firmware')) config.firmware = value('firmware');
  if (value('accel') !== 'auto') config.accel = value('accel');
  return config;
}

function buildForm(images) {
  const input = (name, more = {}) => h('input', { name, spellcheck: false, autocomplete: 'off', ...more });
  const select = (name, values) => h('select', { name }, values.map(([value, text]) => h('option', { value }, text)));
  const check = (name, label, checked) => h('label.check', {}, h('input', { type: 'checkbox', name, checked }), label);
  return h('form.sheet', { id: 'create' },
    h('fieldset', {}, h('legend', {}, 'Machine'),
      field('Name', input('name', { required: true, pattern: '[A-Za-z0-9][A-Za-z0-9._\\-]{0,63}' }), 'Letters, digits, “.”, “_” and “-”.'),
      h('div.columns', {}, field('CPUs', input('cpus', { type: 'number', min: 1, max: 255, value: 1, required: true })),
        field('Memory', input('memory', { value: '1G', required: true })), field('Engine', select('accel', [['auto', 'automatic'], ['kvm', 'KVM'], ['soft', 'software']])))),
    h('fieldset', {}, h('legend', {}, 'Boot'),
      field('Disk image', input('image', { list: 'images', placeholder: '/srv/images/debian.qcow2' }), 'A file of the host, or an image of the pool.'),
      h('datalist', { id: 'images' }, images.map((image) => h('option', { value: image.path }, `${image.name} ${bytes(image.size)}`))),
      check('readonly', 'Read only', false),
      field('Firmware', select('firmware', [['', 'automatic'], ['bios', 'BIOS'], ['uefi', 'UEFI'], ['secure', 'UEFI with Secure Boot']])),
      h('details', {}, h('summary', {}, 'Boot a kernel directly'), field('Kernel', input('kernel', { placeholder: '/srv/vmlinuz' })),
        field('Command line', input('append', { placeholder: 'console=ttyS0' })))),
    h('fieldset', {}, h('legend', {}, 'Devices'), check('vga', 'Screen, keyboard and pointer', true), check('net', 'Network (NAT)', true)));
}

export function createPage(content, context) {
  const text = h('textarea.code', { id: 'yaml', spellcheck: false, rows: 22, 'aria-label': 'Description as YAML' });
  const startNow = h('input', { type: 'checkbox', id: 'start-now', checked: true });
  const holder = h('div');
  let form = buildForm([]);
  let byYaml = false;

  const submit = (event) => {
    event?.preventDefault();
    if (!byYaml && !form.reportValidity()) return;
    attempt(async () => {
      const config = byYaml ? parse(text.value) : describe(form);
      const vm = await post(`/v1/vms${startNow.checked ? '?start=true' : ''}`, config);
      context.go(`/vm/${encodeURIComponent(vm.name)}${vm.config.vga ? '/screen' : ''}`);
    });
  };
  const show = (yaml) => {
    if (yaml) text.value = stringify(form.elements.name.value ? describe(form) : STANDARD);
    byYaml = yaml;
    tabs.forEach((tab, i) => tab.setAttribute('aria-selected', String(Boolean(i) === yaml)));
    fill(holder, yaml ? text : form);
    form.onsubmit = submit;
  };
  const tabs = ['Form', 'YAML'].map((name, i) => h('button', { type: 'button', role: 'tab', onclick: () => show(Boolean(i)) }, name));
  fill(content, h('div.head', {}, h('h1', {}, 'New machine'), h('div.tabs', { role: 'tablist' }, tabs)), holder,
    h('div.actions.left', {}, h('button.primary', { type: 'button', id: 'submit', onclick: submit }, 'Create'),
      h('label.check', {}, startNow, 'and start it'), h('a.button', { href: '#/' }, 'Cancel')));
  show(false);
  form.elements.name.focus();
  get('/v1/images').then(({ images }) => {
    form.querySelector('#images').replaceChildren(...images.map((image) => h('option', { value: image.path }, `${image.name} ${bytes(image.size)}`)));
  }).catch(() => {});
}
