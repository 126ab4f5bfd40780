"""
Starts that must fail: one sentence that names the thing and what to do, the right exit status, nothing
left running.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import re
import shutil
import socket
import subprocess

import pytest

from conftest import HALT, debug_exit, wait_for


def expect_failure(result, status, *parts):
    assert result.returncode == status, (result.returncode, result.stderr)
    assert re.fullmatch(r'tenon: [^\n]+\n', result.stderr), result.stderr
    assert result.stdout == ''
    for part in parts:
        assert part in result.stderr, result.stderr


# ---- kernel and initrd ----

def test_kernel_missing(tenon):
    expect_failure(tenon.run('run', '--kernel', 'no/vmlinuz'), 1, "kernel", "'no/vmlinuz'",
                   'check the path')


def test_kernel_is_a_directory(tenon):
    expect_failure(tenon.run('run', '--kernel', '/tmp'), 1, 'kernel', "'/tmp'", 'directory')


def test_kernel_is_a_device_or_fifo(tenon, tmp_path):
    os.mkfifo(tmp_path / 'fifo')
    expect_failure(tenon.run('run', '--kernel', 'fifo'), 1, 'kernel', "'fifo'")
    expect_failure(tenon.run('run', '--kernel', '/dev/zero'), 1, 'kernel', "'/dev/zero'")


@pytest.mark.parametrize('content', [b'', b'x', b'#!/bin/sh\necho no kernel\n', bytes(100000),
                                     b'\x7fELF' + bytes(200), b'MZ' + bytes(4000),
                                     bytes(range(256)) * 64],
                         ids=['empty', 'byte', 'script', 'zeros', 'elf', 'mz', 'pattern'])
def test_not_a_kernel(tenon, tmp_path, content):
    (tmp_path / 'image').write_bytes(content)
    expect_failure(tenon.run('run', '--accel', 'soft', '--kernel', 'image'), 1, 'kernel', "'image'")


@pytest.mark.parametrize('keep', [0.0001, 0.001, 0.01, 0.5, 0.999])
def test_kernel_truncated(tenon, demo_guest, tmp_path, keep):
    whole = (demo_guest / 'vmlinuz').read_bytes()
    (tmp_path / 'cut').write_bytes(whole[:int(len(whole) * keep)])
    expect_failure(tenon.run('run', '--accel', 'soft', '--kernel', 'cut'), 1, 'kernel', "'cut'")


@pytest.mark.parametrize('keep', [0.00001, 0.001, 0.5])
def test_elf_kernel_truncated(tenon, demo_guest, tmp_path, keep):
    whole = (demo_guest / 'vmlinux').read_bytes()
    (tmp_path / 'cut').write_bytes(whole[:int(len(whole) * keep)])
    expect_failure(tenon.run('run', '--accel', 'soft', '--kernel', 'cut'), 1, 'kernel', "'cut'")


def test_initrd_missing(tenon):
    kernel = tenon.guest('k', HALT)
    expect_failure(tenon.run('run', '--kernel', kernel, '--initrd', 'gone'), 1, 'initrd', "'gone'")


def test_initrd_does_not_fit(tenon, demo_guest, tmp_path):
    with open(tmp_path / 'big.img', 'wb') as big:
        big.truncate(300 << 20)
    result = tenon.run('run', '--accel', 'soft', '--kernel', demo_guest / 'vmlinuz', '--initrd',
                       'big.img', '--memory', '128M')
    expect_failure(result, 2, "'big.img'", '128M', '--memory')


def test_kernel_does_not_fit(tenon, demo_guest):
    result = tenon.run('run', '--accel', 'soft', '--kernel', demo_guest / 'vmlinuz', '--memory',
                       '16M')
    expect_failure(result, 2, 'kernel', '16M', '--memory')


# ---- disks ----

def test_disk_missing(tenon):
    kernel = tenon.guest('k', HALT)
    expect_failure(tenon.run('run', '--kernel', kernel, '--disk', 'gone.img'), 1, "disk 'd0'",
                   "'gone.img'", 'truncate')


def test_disk_is_a_directory(tenon):
    kernel = tenon.guest('k', HALT)
    for extra in ('', ',readonly'):
        expect_failure(tenon.run('run', '--kernel', kernel, '--disk', '/tmp' + extra), 1,
                       "disk 'd0'", "'/tmp'", 'directory')


def test_disk_is_a_device_without_blocks(tenon):
    kernel = tenon.guest('k', HALT)
    expect_failure(tenon.run('run', '--kernel', kernel, '--disk', '/dev/null'), 1, "disk 'd0'",
                   "'/dev/null'")


def test_disk_read_only(ordinary):
    kernel, disk = ordinary.guest('k', debug_exit(0) + HALT), ordinary.disk()
    os.chmod(disk, 0o444)
    result = ordinary.run('run', '--kernel', kernel, '--disk', disk, prefix=ordinary.prefix)
    expect_failure(result, 3, "disk 'd0'", disk, 'readonly')
    result = ordinary.run('run', '--accel', 'soft', '--debug-exit', '--kernel', kernel, '--disk',
                          disk + ',readonly', prefix=ordinary.prefix)
    assert result.returncode == 0, result.stderr


def test_disk_not_readable(ordinary):
    kernel, disk = ordinary.guest('k', HALT), ordinary.disk()
    os.chown(disk, 0, 0) if os.geteuid() == 0 else None
    os.chmod(disk, 0)
    expect_failure(ordinary.run('run', '--kernel', kernel, '--disk', disk, prefix=ordinary.prefix),
                   3, "disk 'd0'", disk)


def test_disk_in_use(tenon):
    kernel, disk = tenon.guest('k', HALT), tenon.disk()
    first = tenon.start('run', '--accel', 'soft', '--kernel', kernel, '--disk', disk, '--qmp', 'q')
    wait_for(lambda: (tenon.directory / 'q').exists(), 10, 'the first VM')
    tenon.find('tenon-vmm')
    second = subprocess.run([tenon.path, 'run', '--kernel', kernel, '--disk', disk],
                            capture_output=True, text=True, timeout=30)
    expect_failure(second, 4, "disk 'd0'", disk)
    reader = subprocess.run([tenon.path, 'run', '--kernel', kernel, '--disk', disk + ',readonly'],
                            capture_output=True, text=True, timeout=30)
    expect_failure(reader, 4, "disk 'd0'", disk)
    first.kill()
    first.wait()
    tenon.expect_nothing_left()
    # The lock goes with its holder.
    free = tenon.guest('exit', debug_exit(0) + HALT)
    result = tenon.run('run', '--accel', 'soft', '--debug-exit', '--kernel', free, '--disk', disk)
    assert result.returncode == 0, result.stderr


def test_disk_shared_by_readers(tenon):
    kernel, disk = tenon.guest('k', HALT), tenon.disk()
    tenon.start('run', '--accel', 'soft', '--kernel', kernel, '--disk', disk + ',readonly')
    tenon.find('tenon-vmm')
    free = tenon.guest('exit', debug_exit(0) + HALT)
    second = subprocess.run([tenon.path, 'run', '--accel', 'soft', '--debug-exit', '--kernel', free,
                             '--disk', disk + ',readonly'], capture_output=True, text=True,
                            timeout=30)
    assert second.returncode == 0, second.stderr


# ---- engines ----

def test_no_right_on_kvm(ordinary):
    if not os.path.exists('/dev/kvm'):
        pytest.skip('there is no /dev/kvm to be denied')
    if subprocess.run([*ordinary.prefix, 'test', '-r', '/dev/kvm']).returncode == 0:
        pytest.skip('an ordinary user may use /dev/kvm here')
    kernel = ordinary.guest('k', debug_exit(0) + HALT)
    result = ordinary.run('run', '--accel', 'kvm', '--kernel', kernel, prefix=ordinary.prefix)
    expect_failure(result, 3, 'kvm', '/dev/kvm')
    assert 'group' in result.stderr or 'permission' in result.stderr
    # auto takes the other engine, and says why.
    result = ordinary.run('run', '--debug-exit', '--kernel', kernel, prefix=ordinary.prefix)
    assert result.returncode == 0, result.stderr
    assert re.search(r'engine: soft \(no kvm: .*\)', result.stderr), result.stderr


def test_software_kvm_is_named_and_not_chosen(tenon):
    flags = pathlib.Path('/proc/cpuinfo').read_text()
    if re.search(r'^flags.*\b(vmx|svm)\b', flags, re.M):
        pytest.skip('this processor has hardware virtualisation')
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        pytest.skip('/dev/kvm does not open here')
    kernel = tenon.guest('k', debug_exit(0) + HALT)
    result = tenon.run('run', '--debug-exit', '--kernel', kernel)
    assert result.returncode == 0, result.stderr
    assert re.search(r'engine: soft \(no kvm: .*software.*\)', result.stderr), result.stderr


# ---- nets ----

@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_forward_taken(tenon, taken_port):
    kernel = tenon.guest('k', HALT)
    result = tenon.run('run', '--accel', 'soft', '--kernel', kernel, '--forward',
                       '%d-22' % taken_port)
    expect_failure(result, 4, "net 'n0'", str(taken_port))


def test_forward_without_permission(ordinary):
    first = int(pathlib.Path('/proc/sys/net/ipv4/ip_unprivileged_port_start').read_text())
    if first < 2:
        pytest.skip('every user may listen on every port here')
    kernel = ordinary.guest('k', HALT)
    result = ordinary.run('run', '--accel', 'soft', '--kernel', kernel, '--forward',
                          '%d-22' % (first - 1), prefix=ordinary.prefix)
    expect_failure(result, 3, "net 'n0'", str(first - 1))


def test_tap_missing(ordinary):
    kernel = ordinary.guest('k', HALT)
    result = ordinary.run('run', '--accel', 'soft', '--kernel', kernel, '--net',
                          'tap,ifname=nosuchtap0', prefix=ordinary.prefix)
    assert result.returncode in (1, 3)
    expect_failure(result, result.returncode, "net 'n0'", 'nosuchtap0')


# ---- consoles, reports, control ----

def test_socket_in_use(tenon, tmp_path):
    kernel = tenon.guest('k', HALT)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / 's'))
        listener.listen()
        for args in (('--console', 'serial,backend=socket,path=s'), ('--qmp', 's')):
            expect_failure(tenon.run('run', '--kernel', kernel, *args), 4, "'s'")
    assert (tmp_path / 's').exists()


def test_socket_that_is_a_file(tenon, tmp_path):
    (tmp_path / 'file').write_text('precious')
    kernel = tenon.guest('k', HALT)
    expect_failure(tenon.run('run', '--kernel', kernel, '--qmp', 'file'), 1, "'file'")
    assert (tmp_path / 'file').read_text() == 'precious'
    expect_failure(tenon.run('run', '--kernel', kernel, '--qmp', 'x' * 200), 2, 'longer')


def test_dead_socket_is_replaced(tenon, tmp_path):
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / 's'))
    kernel = tenon.guest('k', debug_exit(0) + HALT)
    result = tenon.run('run', '--accel', 'soft', '--debug-exit', '--kernel', kernel, '--qmp', 's')
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / 's').exists()


def test_report_that_cannot_be_written(tenon):
    kernel = tenon.guest('k', HALT)
    result = tenon.run('run', '--accel', 'soft', '--kernel', kernel, '--report', '/no/such/r.json')
    expect_failure(result, 1, '/no/such/r.json')


def test_console_file_is_a_directory(tenon):
    kernel = tenon.guest('k', HALT)
    expect_failure(tenon.run('run', '--kernel', kernel, '--console',
                             'serial,backend=file,path=/tmp'), 1, "console 'c0'", "'/tmp'")


# ---- the installation ----

def test_vmm_missing(tenon, programs, tmp_path):
    shutil.copy(programs / 'tenon', tmp_path / 'tenon')
    tenon.path = str(tmp_path / 'tenon')
    kernel = tenon.guest('k', debug_exit(0) + HALT)
    result = tenon.run('run', '--accel', 'soft', '--debug-exit', '--kernel', kernel)
    if result.returncode == 0:
        pytest.skip('a tenon-vmm is installed on this machine')
    expect_failure(result, 1, 'tenon-vmm')


@pytest.mark.parametrize('args', [(), ('x',), ('3', '4'), ('-1',), ('99999999',), ('3x',)])
def test_vmm_by_hand(programs, args):
    result = subprocess.run([programs / 'tenon-vmm', *args], capture_output=True, text=True,
                            timeout=10, stdin=subprocess.DEVNULL)
    assert result.returncode == 2 and 'tenon run' in result.stderr


@pytest.mark.parametrize('text', ['', '{}', '[]', '{"vm":{},"marks":{},"listen_fd":-1,"log_level":1}',
                                  '{"vm":{"disks":[{"fd":2}]},"marks":{},"listen_fd":-1,"log_level":1}',
                                  'x' * 5000],
                         ids=['empty', 'map', 'list', 'no-kernel', 'stderr', 'junk'])
def test_vmm_with_a_false_hand_over(programs, text):
    fd = os.memfd_create('false')
    os.write(fd, text.encode())
    result = subprocess.run([programs / 'tenon-vmm', str(fd)], capture_output=True, text=True,
                            timeout=10, stdin=subprocess.DEVNULL, pass_fds=[fd])
    os.close(fd)
    assert result.returncode in (1, 2)
    assert re.fullmatch(r'tenon-vmm: [^\n]+\n', result.stderr), result.stderr
