"""
A real gdb on a guest, over the stub of `tenon run --gdb`: breakpoints of both kinds, watchpoints,
steps, registers, several CPUs; and a Debian guest that does not notice its debugger.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import shutil
import subprocess
import time

import pytest

from conftest import BUILD, SPIN, wait_for

GUEST = BUILD / 'tests/guest/debug.elf'
SYMBOLS = BUILD / 'tests/guest/guest_debug.elf64'

pytestmark = pytest.mark.skipif(not shutil.which('gdb'), reason='gdb is not installed')


def gdb(tenon, *commands, symbols=None, timeout=60):
    """Runs the commands; what gdb said. An error in one of them ends gdb."""
    args = ['gdb', '-nx', '-batch', '-ex', 'set pagination off', '-ex', 'set confirm off']
    for command in commands:
        args += ['-ex', command]
    result = subprocess.run(args + ([symbols] if symbols else []), cwd=tenon.directory,
                            capture_output=True, text=True, timeout=timeout)
    return result.stdout + result.stderr


def await_socket(tenon, name, process):
    def there():
        assert process.poll() is None, process.communicate()[1]
        return (tenon.directory / name).exists()
    wait_for(there, 10, 'the socket')


def start(tenon, *args):
    process = tenon.start('run', '--accel', 'soft', '--memory', '64M', '--debug-exit', '--quiet',
                          '--gdb', 'gdb.sock', *args)
    await_socket(tenon, 'gdb.sock', process)
    return process


def test_breakpoints_watchpoints_steps(tenon):
    process = start(tenon, '--kernel', GUEST, '--paused')
    said = gdb(tenon, 'target remote gdb.sock', 'break work', 'continue', 'continue',
               'print $edi', 'print *(int *)&counter', 'delete',
               'watch *(int *)&counter', 'continue', 'delete', 'stepi',
               'hbreak finish', 'continue', 'print *(int *)&counter', 'print *(int *)&int3_count',
               'set $xmm3.v4_int32[1] = 77', 'print $xmm3.v4_int32', 'print $cr0 & 1',
               'set var *(char *)&status = 7', 'continue', symbols=SYMBOLS)
    values = re.findall(r'^\$\d+ = (.*)$', said, re.M)
    assert values == ['9', '10', '55', '1', '{0, 77, 0, 0}', '1'], said
    assert re.search(r'Old value = 10\s+New value = 19', said), said
    assert 'exited with code 07' in said, said
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err  # the guest's own status


def test_guest_does_not_see_the_debugger(tenon):
    """The guest's own INT3 reaches its handler while gdb's lie in memory, and after gdb has gone."""
    process = start(tenon, '--kernel', GUEST, '--paused')
    said = gdb(tenon, 'target remote gdb.sock', 'break work', 'break behind_int3', 'continue',
               'detach', symbols=SYMBOLS)
    assert 'Breakpoint 1, work' in said, said
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_cpus_are_threads(tenon):
    kernel = tenon.guest('spin', SPIN)
    process = start(tenon, '--kernel', kernel, '--cpus', '3')
    said = gdb(tenon, 'target remote gdb.sock', 'info threads', 'print $rip', 'thread 2',
               'print $rip', 'monitor system', 'monitor translate 0x100020', 'monitor nonsense',
               'detach')
    assert said.count('waits for SIPI') == 2, said
    assert re.search(r'\$1 = .*0x100020', said) and re.search(r'\$2 = .*0xfff0', said), said
    assert 'is guest-physical 0x100020' in said and 'see monitor help' in said, said
    process.terminate()
    process.terminate()


def test_kill_ends_the_vm(tenon):
    process = start(tenon, '--kernel', tenon.guest('spin', SPIN))
    gdb(tenon, 'target remote gdb.sock', 'kill')
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_tcp_and_bad_places(tenon):
    kernel = tenon.guest('spin', SPIN)
    for where, status in (('nowhere:port', 2), ('1.2.3.4.5:1', 2), ('/', 1)):
        result = tenon.run('run', '--accel', 'soft', '--kernel', kernel, '--gdb', where)
        assert result.returncode == status and where in result.stderr, result.stderr


def test_debian_does_not_notice(tenon, demo_guest):
    """Interrupted several times on its way, stepped, and left alone: it goes on to its own init."""
    process = tenon.start('run', '--accel', 'soft', '--cpus', '2', '--memory', '256M', '--kernel',
                          demo_guest / 'vmlinux', '--initrd', demo_guest / 'initrd',
                          '--append', 'console=ttyS0 quiet', '--gdb', 'gdb.sock')
    await_socket(tenon, 'gdb.sock', process)
    for _ in range(5):
        said = gdb(tenon, 'target remote gdb.sock', 'info threads', 'stepi', 'stepi',
                   'info registers', 'detach')
        assert 'detached' in said and 'cr3' in said, said
        time.sleep(0.2)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if b'modules loaded' in line:
            break
    assert b'2 CPUs' in lines[-1], b''.join(lines)
    process.kill()
