"""
The command line: help, version, mistyped words, wrong values, VM files with mistakes, --dry-run.
No VM is started.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import BUILD, ROOT

KERNEL = ('--kernel', '/nonexistent')


def expect_sentence(result, status, *parts):
    """One line on standard error that begins with tenon:, has the parts, and nothing on stdout."""
    assert result.returncode == status, result.stderr
    assert re.fullmatch(r'tenon: [^\n]+\n', result.stderr), result.stderr
    assert result.stdout == ''
    for part in parts:
        assert part in result.stderr


def test_help_everywhere(tenon):
    for args in ((), ('help',), ('--help',)):
        result = tenon.run(*args)
        assert result.returncode == 0 and 'doctor' in result.stdout and not result.stderr
    for command in ('run', 'doctor', 'image', 'timeline', 'exec'):
        one, two = tenon.run(command, '--help'), tenon.run('help', command)
        assert one.returncode == 0 and one.stdout == two.stdout
        assert one.stdout.startswith('Usage: tenon ' + command)
        assert max(map(len, one.stdout.splitlines())) <= 80
    assert 'memory' in tenon.run('run', '--help-file').stdout
    assert re.fullmatch(r'tenon \d+\.\d+\.\d+\n', tenon.run('--version').stdout)


@pytest.mark.parametrize('args, parts', [
    (('rnu',), ("'rnu'", "'run'")),
    (('frobnicate',), ("'frobnicate'", 'tenon help')),
    (('--verbose',), ("'--verbose'",)),
    (('help', 'docter'), ("'doctor'",)),
    (('run', '--memry', '1G'), ("'--memry'", "'--memory'")),
    (('run', '-m', '1G'), ("'-m'",)),
    (('run', '--json=yes', *KERNEL), ('takes no value',)),
    (('run', *KERNEL, '--memory'), ('needs a value',)),
    (('run',), ('kernel',)),
    (('run', 'a.yaml', 'b.yaml'), ('a.yaml', 'b.yaml')),
    (('run', *KERNEL, '--memory', '1M'), ('memory', '1M')),
    (('run', *KERNEL, '--memory', '8192T'), ('memory',)),
    (('run', *KERNEL, '--memory', 'lots'), ('memory', 'lots')),
    (('run', *KERNEL, '--memory', '-1G'), ('memory',)),
    (('run', *KERNEL, '--cpus', '0'), ('cpus', '0')),
    (('run', *KERNEL, '--cpus', '256'), ('cpus', '256')),
    (('run', *KERNEL, '--cpus', 'two'), ('cpus', 'two')),
    (('run', *KERNEL, '--accel', 'fast'), ('accel', 'kvm', 'soft')),
    (('run', *KERNEL, '--board', 'pc'), ('board', 'micro', 'q35')),
    (('run', *KERNEL, '--disk', 'x.img,colour=red'), ('disk', 'colour')),
    (('run', *KERNEL, '--net', 'tap'), ('ifname',)),
    (('run', *KERNEL, '--forward', '99999-22'), ('forward',)),
    (('run', *KERNEL, '--console', 'serial', '--console', 'virtio'), ('stdio',)),
    (('doctor', 'me'), ("'me'",)),
    (('timeline',), ('report',)),
])
def test_wrong_usage(tenon, args, parts):
    expect_sentence(tenon.run(*args), 2, *parts)


@pytest.mark.parametrize('text, line, column, parts', [
    ('kernel: k\nmemry: 1G\n', 2, 1, ('memry', 'memory')),
    ('kernel: k\nmemory: 1G\nmemory: 2G\n', 3, 1, ('memory',)),
    ('kernel: k\nmemory: [1]\n', 2, 9, ('memory',)),
    ('kernel: k\ncpus: many\n', 2, 7, ('cpus', 'many')),
    ('kernel: k\ncpus: 4096\n', 2, 7, ('cpus',)),
    ('kernel: k\ndisks: yes\n', 2, 8, ('disks',)),
    ('kernel: k\ndisks:\n  - path: d\n    readonly: maybe\n', 4, 15, ('readonly', 'maybe')),
    ('kernel: k\nnets:\n  - kind: tunnel\n', 3, 11, ('kind', 'tunnel')),
    ('kernel: &a k\nname: *a\n', 1, 9, ()),
    ('kernel: !!str k\n', 1, 9, ()),
    ('kernel: "k\n', None, None, ()),
    ('- a\n- b\n', 1, 1, ()),
    ('just text\n', 1, 1, ()),
    ('kernel: k\n\tcpus: 1\n', 2, None, ()),
])
def test_wrong_vm_file(tenon, tmp_path, text, line, column, parts):
    (tmp_path / 'vm.yaml').write_text(text)
    result = tenon.run('run', 'vm.yaml', '--dry-run')
    expect_sentence(result, 2, *parts)
    where = re.match(r'tenon: vm\.yaml:(\d+):(\d+): ', result.stderr)
    assert where, result.stderr
    if line:
        assert int(where.group(1)) == line, result.stderr
    if column:
        assert int(where.group(2)) == column, result.stderr


def test_vm_file_that_is_none(tenon, tmp_path):
    expect_sentence(tenon.run('run', 'gone.yaml'), 1, 'gone.yaml', 'does not exist')
    expect_sentence(tenon.run('run', '.'), 1, "'.'", 'directory')
    with open(tmp_path / 'big.yaml', 'wb') as big:
        big.truncate(2 << 20)
    expect_sentence(tenon.run('run', 'big.yaml'), 1, 'big.yaml')
    (tmp_path / 'binary.yaml').write_bytes(bytes(range(256)))
    assert tenon.run('run', 'binary.yaml').returncode == 2
    (tmp_path / 'empty.yaml').write_text('')
    assert tenon.run('run', 'empty.yaml').returncode == 2


VM = '''
name: t1
cpus: 3
memory: 768M
accel: soft
kernel: "some kernel"
append: 'console=ttyS0 "quoted" \\ back: slash #no comment'
debug-exit: true
disks:
  - d.img
  - path: /abs/e.img
    readonly: true
    cache: none
nets:
  - kind: user
    forwards: ["2222-22", "udp:127.0.0.1:5353-53"]
consoles:
  - serial,backend=null
  - virtio,backend=file,path=out.txt
'''


def test_dry_run_is_a_fixed_point(tenon, tmp_path):
    """What --dry-run prints is a VM file that resolves to itself."""
    (tmp_path / 'vm.yaml').write_text(VM)
    first = tenon.run('run', 'vm.yaml', '--dry-run')
    assert first.returncode == 0, first.stderr
    (tmp_path / 'again.yaml').write_text(first.stdout)
    second = tenon.run('run', 'again.yaml', '--dry-run')
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    resolved = json.loads(tenon.run('run', 'vm.yaml', '--dry-run', '--json').stdout)
    assert resolved == json.loads(tenon.run('run', 'again.yaml', '--dry-run', '--json').stdout)
    assert resolved['cpus'] == 3 and resolved['memory'] == 768 << 20
    assert resolved['append'] == 'console=ttyS0 "quoted" \\ back: slash #no comment'
    assert resolved['disks'][1] == dict(resolved['disks'][1], path='/abs/e.img', readonly=True,
                                        cache='none')
    assert [f['host-port'] for f in resolved['nets'][0]['forwards']] == [2222, 5353]


def test_flags_change_the_file(tenon, tmp_path):
    (tmp_path / 'vm.yaml').write_text(VM)

    def resolve(*args):
        result = tenon.run('run', *args, '--dry-run', '--json')
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)
    changed = resolve('--cpus', '1', 'vm.yaml', '--memory=1G', '--no-rng', '--disk', 'id=d0,serial=s')
    assert changed['cpus'] == 1 and changed['memory'] == 1 << 30 and changed['rng'] is False
    assert changed['disks'][0]['serial'] == 's' and len(changed['disks']) == 2
    assert resolve('--kernel', 'k', '--accel', 'soft')['name'] == 'vm'


def test_doctor(tenon):
    text = tenon.run('doctor')
    assert text.returncode == 0, text.stdout
    assert 'This host can run VMs.' in text.stdout
    report = json.loads(tenon.run('doctor', '--json').stdout)
    found = {finding['id']: finding for finding in report['findings']}
    assert report['can_run'] is True
    assert {'cpu', 'kvm', 'memory', 'io_uring', 'seccomp', 'landlock', 'tap', 'vfio', 'slirp',
            'view', 'limits'} <= set(found)
    seabios = pathlib.Path('/usr/share/seabios/bios-256k.bin').exists()
    assert seabios == ('bios' in found['firmware']['text'])
    assert seabios != ('seabios' in (found['firmware']['advice'] or ''))
    assert all(finding['mark'] in ('ok', 'info', 'limited') for finding in found.values())
    flags = pathlib.Path('/proc/cpuinfo').read_text()
    hardware = re.search(r'^flags.*\b(vmx|svm)\b', flags, re.M)
    if not hardware:
        assert found['kvm']['mark'] == 'limited' and found['kvm']['advice']
        assert found['cpu']['advice']


def test_doctor_of_an_incomplete_installation(tenon, programs, tmp_path):
    shutil.copy(programs / 'tenon', tmp_path / 'tenon')
    tenon.path = str(tmp_path / 'tenon')
    result = tenon.run('doctor', '--json')
    found = {finding['id']: finding for finding in json.loads(result.stdout)['findings']}
    if pathlib.Path(found['vmm']['text']).exists():
        pytest.skip('a tenon-vmm is installed on this machine: ' + found['vmm']['text'])
    assert result.returncode == 1 and found['vmm']['mark'] == 'broken'
    assert found['slirp']['mark'] == found['view']['mark'] == 'limited'


# ---- the manual agrees with the program ----

def flags_of_help(text):
    return set(re.findall(r'^  --([a-z-]+)', text, re.M))


def man_page(name):
    page = BUILD / 'docs/man' / name
    assert page.exists(), '%s is missing: build everything first' % page
    return page.read_text().replace('\\-', '-')


@pytest.mark.parametrize('command', ['run', 'doctor', 'image', 'timeline'])
def test_manual_has_every_option(tenon, command):
    flags = flags_of_help(tenon.run(command, '--help').stdout)
    assert 'help' in flags
    page = man_page('tenon-%s.1' % command)
    manual = set(re.findall(r'--([a-z-]+)', page[page.index('.SH OPTIONS'):]))
    assert flags <= manual, flags - manual


def test_manual_has_every_key(tenon, tmp_path):
    (tmp_path / 'vm.yaml').write_text(VM.replace('- d.img', '- path: d.img\n    serial: x'))
    vm = json.loads(tenon.run('run', 'vm.yaml', '--dry-run', '--json').stdout)
    keys = set(vm)
    for entry in vm['disks'] + vm['nets'] + vm['consoles'] + vm['nets'][0]['forwards']:
        keys |= set(entry)
    page = man_page('tenon-vm.5')
    manual = set(re.findall(r'^\\fB([a-z-]+):\\fR', page, re.M))
    assert keys <= manual, keys - manual
    assert len(keys) > 20


@pytest.mark.parametrize('program', ['tenon-slirp', 'tenon-view'])
def test_manual_of_a_program_beside(programs, program):
    text = subprocess.run([programs / program, '--help'], capture_output=True, text=True)
    flags = set(re.findall(r'^  --([a-z-]+)', text.stdout, re.M))
    page = man_page(program + '.8')
    manual = set(re.findall(r'--([a-z-]+)', page[page.index('.SH OPTIONS'):]))
    assert len(flags) > 5 and flags <= manual, flags - manual


def test_manual_pages_format(programs):
    if not shutil.which('groff'):
        pytest.skip('groff is missing')
    pages = list((BUILD / 'docs/man').glob('*.[158]'))
    assert len(pages) == len(list((ROOT / 'docs/man').glob('*.in'))) > 0
    for page in pages:
        result = subprocess.run(['groff', '-man', '-Tascii', '-ww', page], capture_output=True,
                                text=True)
        assert result.returncode == 0 and not result.stderr, result.stderr


def documented_commands():
    """(page, verb, its flags) of each `tenon ...` in the examples of the guides."""
    for page in [ROOT / 'docs/guide.md', *sorted((ROOT / 'docs/guide').glob('*.md'))]:
        for line in re.findall(r'^    (.*)$', page.read_text(), re.M):
            for verb, rest in re.findall(r'\btenon ([a-z]+)([^;|&#]*)', line):
                yield page.name, verb, set(re.findall(r' (--[a-z-]+)', rest.split(' -- ')[0]))


def test_examples_of_the_guides_use_what_there_is(tenon):
    """A verb or a flag that is gone, or was never there, in an example."""
    examples = list(documented_commands())
    helps = {verb: tenon.run(verb, '--help').stdout for verb in {verb for _, verb, _ in examples}}
    helps['image'] += tenon.run('image', 'serve', '--help').stdout
    wrong = [(page, verb, flag) for page, verb, flags in examples for flag in flags
             if not re.search(r'%s\b' % flag, helps[verb])]
    wrong += [(page, verb, '') for page, verb, _ in examples if not helps[verb]]
    assert len(examples) > 80 and not wrong, wrong
