"""
The agent in a guest: Debian's qemu-ga in the demonstration guest, and worse ones.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import re
import shutil
import subprocess

import pytest

from conftest import HALT, Qmp, Tenon, e2fsprogs, wait_for

AGENT = '/usr/sbin/qemu-ga'
WAIT = ('--wait', '300', '--timeout', '120')
SCRIPT = r"""
mkdir -p /run /sbin
ln -s /bin/busybox /sbin/hwclock
port=
until [ -e "$port" ]; do for port in /dev/vport*p*; do :; done; done
echo "$port" >/tmp/port
/mnt/lib/ld-linux-x86-64.so.2 --library-path /mnt/lib /mnt/qemu-ga -m virtio-serial -p $port -t /tmp
while [ -e /tmp/next ]; do mv /tmp/next /tmp/now; sh /tmp/now <>"$port" >&0; done
"""


def agent_disk(folder):
    """An ext4 disk with qemu-ga, its libraries, and the script that starts it."""
    if not os.access(AGENT, os.X_OK):
        pytest.skip('qemu-ga is missing (package qemu-guest-agent)')
    files = folder / 'files'
    (files / 'lib').mkdir(parents=True)
    shutil.copy(AGENT, files / 'qemu-ga')
    listing = subprocess.run(['ldd', AGENT], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r'(/\S+) \(0x', listing):
        shutil.copy(library, files / 'lib')
    (files / 'script').write_text(SCRIPT)
    (files / 'hello.txt').write_text('hello from the host\n')
    disk = folder / 'agent.raw'
    disk.write_bytes(b'')
    os.truncate(disk, 32 << 20)
    e2fsprogs('mke2fs', '-q', '-t', 'ext4', '-d', str(files), str(disk)).check_returncode()
    return disk


@pytest.fixture(scope='module')
def vm(programs, demo_guest, tmp_path_factory):
    """A guest with an agent, for all tests of this file: (tenon, what names the VM)."""
    folder = tmp_path_factory.mktemp('agent')
    it = Tenon(programs, folder)
    disk = agent_disk(folder)
    with open(folder / 'log', 'wb') as log:
        it.start('run', '--accel', 'soft', '--quiet', '--agent', '--board', 'q35', '--memory', '192M', '--kernel',
                 demo_guest / 'vmlinux', '--initrd', demo_guest / 'initrd', '--append',
                 'console=ttyS0 quiet tenon.demo=script', '--disk', disk, '--net', 'user', '--name',
                 'agent', '--qmp', 'control.sock', stdout=log, stderr=log)
        Qmp(folder / 'control.sock', 60).close()
        yield it, 'control.sock'
    it.close()


def execute(vm, *command, input=None):
    it, name = vm
    words = ['exec', name, *WAIT, *(['--stdin'] if input is not None else []), '--', *command]
    return subprocess.run([it.path, *words], cwd=it.directory, capture_output=True, timeout=500,
                          input=input if input is not None else b'')


def test_commands(vm):
    result = execute(vm, 'sh', '-c', 'echo out; echo err >&2; exit 7')
    assert (result.returncode, result.stdout, result.stderr) == (7, b'out\n', b'err\n')
    data = bytes(range(256)) * 1000
    result = execute(vm, 'cat', input=data)
    assert (result.returncode, result.stdout) == (0, data)
    assert execute(vm, 'sh', '-c', 'kill -9 $$').returncode == 137
    assert execute(vm, 'echo', '--help', '').stdout == b'--help \n'
    result = execute(vm, 'no-such-command')
    assert result.returncode == 125 and b'no-such-command' in result.stderr


def test_two_at_once(vm):
    it, name = vm
    words = [it.path, 'exec', name, *WAIT, '--', 'sh', '-c']
    slow = subprocess.Popen([*words, 'until [ -e /tmp/go ]; do sleep 0.05; done; echo slow'],
                            cwd=it.directory, stdout=subprocess.PIPE)
    assert execute(vm, 'touch', '/tmp/go').returncode == 0
    assert slow.communicate(timeout=300)[0] == b'slow\n' and slow.returncode == 0


def test_files(vm, tmp_path):
    it, name = vm
    data = os.urandom(700001)
    (tmp_path / 'random').write_bytes(data)

    def cp(*words):
        return it.run_beside('cp', *WAIT, *words, timeout=500)
    assert cp(tmp_path / 'random', name + ':/tmp/').returncode == 0
    assert execute(vm, 'wc', '-c', '/tmp/random').stdout.split()[0] == b'700001'
    assert cp(name + ':/tmp/random', tmp_path / 'back').returncode == 0
    assert (tmp_path / 'back').read_bytes() == data
    result = cp(name + ':/no/such', tmp_path / 'none')
    assert result.returncode == 1 and '/no/such' in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ['back', 'random']
    assert cp('a', 'b').returncode == 2 and cp('x:a', 'y:b').returncode == 2


def test_description(vm):
    it, name = vm
    said = json.loads(it.run_beside('agent', name, '--json', *WAIT, timeout=500).stdout)
    assert '10.0.2.15' in said['addresses'] and '-cloud-amd64' in said['kernel']
    assert execute(vm, 'date', '-s', '@1000000000').returncode == 0
    assert it.run_beside('agent', name, 'set-time', *WAIT, timeout=500).returncode == 0
    said = json.loads(it.run_beside('agent', name, '--json', *WAIT, timeout=500).stdout)
    assert abs(said['clock-ahead-seconds']) < 600


@pytest.mark.skipif(os.geteuid() != 0, reason='the list of root is /run/tenon')
def test_addresses_in_the_list(vm):
    it, name = vm
    assert execute(vm, 'true').returncode == 0
    rows = json.loads(it.run_beside('ps', '--json', '--addresses').stdout)
    row, = [row for row in rows if row['pid'] == it.processes[0].pid]
    assert '10.0.2.15' in row['addresses']
    assert re.search(r'\d  10\.0\.2\.15', it.run_beside('ps', '--addresses').stdout)


def needs_recovery(image):
    return 'needs_recovery' in e2fsprogs('dumpe2fs', '-h', str(image)).stdout


def test_freeze(vm):
    """Nothing reaches the disk while the command runs here, what is there is whole, and then it goes on."""
    it, name = vm
    writer = 'n=0; until [ -e /tmp/end ]; do n=$((n+1)); echo $n >/mnt/n; sync; cp /mnt/n /tmp/n; done'
    assert execute(vm, 'sh', '-c', '(%s) >/dev/null 2>&1 &' % writer).returncode == 0
    image, copy = it.directory / 'agent.raw', it.directory / 'copy.raw'
    assert needs_recovery(image)
    look = 'cp %s %s; sleep 1; cmp %s %s && exit 9' % (image, copy, image, copy)
    result = it.run_beside('agent', name, 'freeze', *WAIT, '--', 'sh', '-c', look, timeout=500)
    assert result.returncode == 9, result
    assert not needs_recovery(copy)
    assert e2fsprogs('e2fsck', '-fn', str(copy)).returncode == 0
    before = execute(vm, 'cat', '/tmp/n').stdout
    wait_for(lambda: execute(vm, 'cat', '/tmp/n').stdout != before, 120, 'the next write')
    execute(vm, 'touch', '/tmp/end')


def test_hostile(vm):
    """The agent ends, and what takes its place answers without an end."""
    it, name = vm
    flood = b'while :; do echo \'{"return": {}}\'; done'
    assert execute(vm, 'sh', '-c', 'cat >/tmp/next', input=flood).returncode == 0
    end = '(sleep 1; kill $(pidof ld-linux-x86-64.so.2)) >/dev/null 2>&1 &'
    assert execute(vm, 'sh', '-c', end).returncode == 0

    def told():
        result = it.run_beside('agent', name, '--timeout', '2')
        assert result.returncode != 2, result.stderr
        return result.returncode == 4 and 'does not answer' in result.stderr
    wait_for(told, 120, 'an end of the patience')
    qmp = Qmp(it.directory / name)
    assert qmp.command('query-status')['status'] == 'running'
    qmp.command('quit')
    qmp.close()


def test_no_agent(tenon):
    guest = tenon.guest('halt', HALT)
    for flags, word in (((), '--agent'), (('--agent',), 'qemu-guest-agent')):
        process = tenon.start('run', '--accel', 'soft', '--quiet', '--memory', '64M', *flags,
                              '--kernel', guest, '--qmp', 'control.sock')
        Qmp(tenon.directory / 'control.sock', 60).close()
        result = tenon.run_beside('exec', 'control.sock', '--', 'true')
        assert result.returncode == 125 and word in result.stderr, result.stderr
        assert tenon.run_beside('cp', 'control.sock:/x', 'y').returncode == 1
        assert tenon.run_beside('stop', '--now', 'control.sock').returncode == 0
        assert process.wait(60) == 0


def test_bad_words(tenon):
    for args, word in ((('exec', 'vm'), '--'), (('exec', 'vm', 'ls'), 'ls'), (('exec', '--', 'ls'), 'VM'),
                       (('exec', 'vm', '--wait', 'x', '--', 'ls'), "'x'"), (('cp', 'a'), 'two'),
                       (('agent', 'vm', 'dance'), 'dance'), (('agent', 'vm', 'freeze'), 'COMMAND'),
                       (('agent', 'vm', 'thaw', '--', 'ls'), 'freeze'), (('agent', 'vm', 'info', 'x'), "'x' is one word too many"),
                       (('agent', '--json'), 'give a VM'), (('agent', 'vm', '--timeout', '0'), '1 to 86400'),
                       (('cp', 'a', 'vm:b', 'c'), "'c' is one word too many"), (('cp', 'a', '--', 'vm:b'), 'two files')):
        result = tenon.run(*args)
        assert result.returncode in (2, 125) and word in result.stderr, result.stderr
