"""
The life of a VM under `tenon run`: how it ends and what is said then, standard input and output, consoles, the sandbox,
two VMs at once. The guests are a few bytes of machine code.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import fcntl
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import time

import pytest

from conftest import (ECHO, HALT, SOFT, SPIN, TRIPLE_FAULT, cpu_ticks, debug_exit, read_until,
                      serial_text, start_guest, wait_for)


# ---- the end, and what is said ----

@pytest.mark.parametrize('value, status', [(0, 0), (1, 1), (3, 1), (255, 1)])
def test_debug_exit(tenon, value, status):
    kernel = tenon.guest('k', debug_exit(value) + HALT)
    result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--json')
    assert result.returncode == status, result.stderr
    report = json.loads(result.stdout)
    assert report['result'] == 'exit' and report['status'] == value
    assert report['engine'] == 'soft' and report['name'] == 'vm'
    assert report['exit_status'] == status and report['forced'] is False


def test_disk_is_free_when_the_vm_has_ended(tenon):
    """At once: the kernel keeps an io_uring's files open for some time, but the lock is given back."""
    kernel, disk = tenon.guest('k', debug_exit(0) + HALT), tenon.disk()
    for _ in range(4):
        assert tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--disk', disk).returncode == 0
        with open(disk, 'r+b') as file:
            fcntl.fcntl(file, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK



def test_console_on_standard_output(tenon):
    kernel = tenon.guest('k', serial_text('hello, world\n') + debug_exit(0) + HALT)
    result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel)
    assert result.stdout == 'hello, world\n'
    assert "VM 'vm'" in result.stderr and 'first guest instruction' in result.stderr
    quiet = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--quiet')
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, 'hello, world\n', '')
    pure = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--json', '--quiet')
    assert json.loads(pure.stdout)['result'] == 'exit' and pure.stderr == 'hello, world\n'


def test_report_file_and_timeline(tenon, tmp_path):
    kernel = tenon.guest('k', serial_text('x') + debug_exit(0) + HALT)
    before = time.monotonic_ns()
    result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--report', 'r.json')
    after = time.monotonic_ns()
    report = json.loads((tmp_path / 'r.json').read_text())
    stages = {row['stage']: row['at_ns'] for row in report['timeline']}
    order = ['exec', 'config', 'memory', 'devices', 'first guest instruction', 'first output', 'end']
    times = [stages[stage] for stage in order]
    assert times == sorted(times), stages
    assert before <= times[0] and times[-1] <= after
    assert report['stats']['pio'] >= 2
    table = tenon.run('timeline', 'r.json')
    assert table.returncode == 0 and table.stdout in result.stderr
    assert [row['stage'] for row in json.loads(tenon.run('timeline', 'r.json', '--json').stdout)] \
        == [row['stage'] for row in report['timeline']]
    (tmp_path / 'bad.json').write_text('{"timeline": 1}')
    assert tenon.run('timeline', 'bad.json').returncode == 1
    assert tenon.run('timeline', 'gone.json').returncode == 1


def test_crash(tenon):
    kernel = tenon.guest('k', TRIPLE_FAULT)
    result = tenon.run(*SOFT, '--kernel', kernel, '--on-reset', 'exit', '--report', 'r.json')
    report = json.loads((tenon.directory / 'r.json').read_text())
    assert report['result'] in ('crash', 'reset'), report
    assert result.returncode == (1 if report['result'] == 'crash' else 0)


def test_vmfile(tenon, tmp_path):
    tenon.guest('k', serial_text('from the file\n') + debug_exit(0) + HALT)
    (tmp_path / 'vm').mkdir()
    (tmp_path / 'vm/vm.yaml').write_text('kernel: ../k\naccel: soft\ndebug-exit: true\nname: x\n')
    result = tenon.run('run', 'vm/vm.yaml', '--memory', '64M')
    assert result.returncode == 0 and result.stdout == 'from the file\n'
    assert "VM 'x', 1 CPU, 64 MiB" in result.stderr


# ---- standard input and output ----

def test_input_reaches_the_guest(tenon):
    kernel = tenon.guest('k', ECHO)
    result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, input=b'HAL\x1dq')
    assert result.stdout == 'IBM\x1e'


def test_end_of_input_ends_nothing(tenon):
    """/dev/null and a closed pipe: the VM goes on, and tenon does not spin."""
    kernel = tenon.guest('k', HALT)
    for stdin in (subprocess.DEVNULL, subprocess.PIPE):
        process = tenon.start(*SOFT, '--kernel', kernel, stdin=stdin)
        if process.stdin:
            process.stdin.close()
        tenon.find('tenon-vmm')
        time.sleep(0.3)
        before = cpu_ticks(process.pid)
        time.sleep(0.5)
        assert process.poll() is None
        assert cpu_ticks(process.pid) - before <= 2
        process.kill()
        process.wait()
        tenon.expect_nothing_left()


def test_closed_standard_descriptors(tenon):
    kernel = tenon.guest('k', serial_text('x' * 100) + debug_exit(0) + HALT)
    command = '%s run --accel soft --debug-exit --kernel %s <&- >&- 2>&-' % (tenon.path, kernel)
    assert subprocess.run(['sh', '-c', command], timeout=30).returncode == 0


def test_reader_that_goes_away(tenon):
    kernel = tenon.guest('k', serial_text('y\n' * 300) + debug_exit(0) + HALT)
    process = tenon.start(*SOFT, '--debug-exit', '--kernel', kernel)
    process.stdout.close()
    assert process.wait(30) == 0
    tenon.expect_nothing_left()


# ---- consoles ----

def test_socket_console(tenon):
    process = start_guest(tenon, ECHO, '--debug-exit', '--console',
                          'serial,backend=socket,path=con')
    path = tenon.directory / 'con'
    assert os.stat(path).st_mode & 0o777 == 0o600
    for _ in range(2):  # one client after another
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(b'a')
            assert client.recv(10) == b'b'
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b'q')
        assert process.wait(10) == 0
    assert not path.exists()


def test_pty_console(tenon):
    process = start_guest(tenon, ECHO, '--debug-exit', '--console', 'serial,backend=pty')
    line = wait_for(lambda: re.search(rb'on (/dev/pts/\d+)', read_some(process.stderr)), 10, 'pty')
    for _ in range(2):  # it can be left and come back to
        fd = os.open(line.group(1), os.O_RDWR | os.O_NOCTTY)
        os.write(fd, b'a')
        assert os.read(fd, 10) == b'b'
        os.close(fd)
    fd = os.open(line.group(1), os.O_RDWR | os.O_NOCTTY)
    os.write(fd, b'q')
    assert process.wait(10) == 0
    os.close(fd)


def read_some(stream):
    os.set_blocking(stream.fileno(), False)
    read_some.seen = getattr(read_some, 'seen', {})
    seen = read_some.seen.setdefault(id(stream), bytearray())
    with contextlib.suppress(BlockingIOError):
        seen += os.read(stream.fileno(), 65536)
    return bytes(seen)


def test_file_console(tenon):
    kernel = tenon.guest('k', serial_text('to a file\n') + debug_exit(0) + HALT)
    result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--console',
                       'serial,backend=file,path=out.txt')
    assert result.returncode == 0 and result.stdout == ''
    assert (tenon.directory / 'out.txt').read_text() == 'to a file\n'


# ---- the sandbox, from outside ----

def open_files(pid):
    """What the descriptors of a process are, but for those that it closes just now."""
    targets = set()
    for fd in pathlib.Path('/proc/%d/fd' % pid).iterdir():
        try:
            targets.add(os.readlink(fd))
        except FileNotFoundError:
            pass
    return targets


def test_sandbox_of_a_running_vm(tenon):
    start_guest(tenon, SPIN, '--net', 'user', '--disk', tenon.disk(), '--cpus', '2')
    vmm = tenon.find('tenon-vmm')
    threads = list(pathlib.Path('/proc/%d/task' % vmm).iterdir())
    assert len(threads) >= 3
    for thread in threads:
        fields = dict(line.split(':\t', 1) for line in (thread / 'status').read_text().splitlines()
                      if ':\t' in line)
        name = fields['Name']
        assert fields['NoNewPrivs'] == '1', name
        assert fields['Seccomp'] == '2', name
        for capabilities in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb'):
            assert int(fields[capabilities], 16) == 0, (name, capabilities)
    targets = open_files(vmm)
    allowed = re.compile(r'socket:|pipe:|anon_inode:|/memfd:|/dev/null$|%s' %
                         re.escape(str(tenon.directory)))
    assert all(allowed.match(target) for target in targets), targets
    # An own session: no terminal, no signals from one.
    assert os.getsid(vmm) == vmm


def test_inherited_descriptors_do_not_reach_the_vmm(tenon):
    secret = os.open('/etc/hostname', os.O_RDONLY)
    os.set_inheritable(secret, True)
    start_guest(tenon, SPIN, pass_fds=[secret])
    targets = open_files(tenon.find('tenon-vmm'))
    os.close(secret)
    assert '/etc/hostname' not in targets


# ---- several at once ----

def test_two_vms_at_once(tenon):
    kernel = tenon.guest('k', ECHO)
    both = [tenon.start(*SOFT, '--debug-exit', '--kernel', kernel, '--name', 'vm%d' % i, '--quiet',
                        '--net', 'user', stdin=subprocess.PIPE) for i in range(2)]
    for i, process in enumerate(both):
        process.stdin.write(b'ax'[i:i + 1])
        process.stdin.flush()
    for i, process in enumerate(both):
        read_until(process, 'by'[i])
    both[0].stdin.write(b'q')
    both[0].stdin.flush()
    assert both[0].wait(10) == 0
    both[1].stdin.write(b'aq')
    both[1].stdin.flush()
    assert both[1].wait(10) == 0
    tenon.expect_nothing_left()


def test_many_starts_leave_nothing(tenon):
    """One after the other, on the same disk: nothing of the one is in the way of the next."""
    kernel, disk = tenon.guest('k', debug_exit(0) + HALT), tenon.disk()
    for _ in range(10):
        result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--net', 'user', '--disk',
                           disk, '--quiet')
        assert result.returncode == 0, result.stderr
