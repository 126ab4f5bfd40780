"""
Clients that others wrote drive a VM by its control socket: DigitalOcean's go-qemu from Debian's package, and QEMU's own
qmp-shell, which Debian has in its source of QEMU alone and which is fetched from there.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import pathlib
import shutil
import subprocess
import tarfile

import pytest

from conftest import HALT, ROOT, Qmp
from installer import apt

GO_PATH = pathlib.Path('/usr/share/gocode')
GO_QEMU = GO_PATH / 'src/github.com/digitalocean/go-qemu'
SHELL = ROOT / '.cache/packages/qemu-qmp'

pytestmark = pytest.mark.soak


@pytest.fixture
def vm(tenon):
    """A VM that a client ends; it must say so."""
    process = tenon.start('run', '--accel', 'soft', '--kernel', tenon.guest('g', HALT), '--qmp', 'qmp', '--vga',
                          '--disk', tenon.disk(), '--report', 'r.json')
    Qmp(tenon.directory / 'qmp').close()
    yield tenon.directory / 'qmp'
    assert process.wait(10) == 0
    assert json.loads((tenon.directory / 'r.json').read_text())['result'] == 'quit'


def drive(command, **options):
    """What a client prints, a line each."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, **options)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_go_qemu(vm, tmp_path):
    if not shutil.which('go') or not GO_QEMU.exists():
        pytest.skip('packages golang-go and golang-github-digitalocean-go-qemu-dev are missing')
    environment = dict(os.environ, GO111MODULE='off', GOPATH=str(GO_PATH), GOCACHE=str(tmp_path / 'cache'), GOFLAGS='')
    program = tmp_path / 'client'
    drive(['go', 'build', '-o', program, ROOT / 'tests/e2e/qmp_client.go'], env=environment)
    lines = drive([program, vm])
    assert lines[0].startswith('version 0.') and ' of tenon ' in lines[0]
    assert lines[1:] == [
        'disk raw of 1048576 bytes, read only false', 'statistics of d0', 'jobs 0', 'PCI device 1af4:1042',
        'supported query-block true', 'supported no-such-command false',
        'refused: The command no-such-command has not been found',
        'status StatusRunning', 'event STOP', 'status StatusPaused', 'event RESUME', 'status StatusRunning',
        'event RESET', 'event POWERDOWN', 'event SHUTDOWN']


def fetch_shell():
    """QEMU's Python package of QMP, out of its source; kept in the cache."""
    if SHELL.exists():
        return
    work = SHELL.with_name('%s.%d' % (SHELL.name, os.getpid()))
    try:
        for words in (['update'], ['source', '--download-only', '--tar-only', 'qemu']):
            apt(work, *words, source='deb-src', component='main')
        with tarfile.open(next(work.glob('qemu_*.orig.tar.xz'))) as source:
            for member in source:
                _, found, path = member.name.partition('/python/qemu/qmp/')
                if found and member.isfile():
                    member.name = 'got/qemu/qmp/' + path
                    source.extract(member, work)
        (work / 'got').rename(SHELL)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def test_qmp_shell(vm):
    fetch_shell()
    commands = ['query-status', 'stop', 'query-status', 'cont', 'block_resize device=d0 size=2097152', 'query-block',
                'send-key keys=[{"type":"qcode","data":"a"}]', 'eject device=d0']
    lines = drive(['/usr/bin/python3', '-m', 'qemu.qmp.qmp_shell', vm], input='\n'.join(commands) + '\n',
                  env=dict(os.environ, PYTHONPATH=str(SHELL)))
    assert lines[:2] == ['Welcome to the QMP low-level shell!', 'Connected to QEMU 0.1.0']
    answers = [json.loads(line.removeprefix('(QEMU) ')) for line in lines[2:] if '{' in line]
    assert len(answers) == len(commands)
    assert [answer['return']['status'] for answer in (answers[0], answers[2])] == ['running', 'paused']
    assert answers[1] == answers[3] == answers[4] == answers[6] == {'return': {}}
    assert answers[5]['return'][0]['inserted']['image']['virtual-size'] == 2 << 20
    assert answers[7]['error']['class'] == 'GenericError'
    Qmp(vm).command('quit')
