"""
TPM 2.0: swtpm behind the guest's device, under direct boot, SeaBIOS and OVMF; what happens when it
is missing, broken or killed.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import re
import shutil
import signal
import subprocess

import pytest

from conftest import ECHO, HALT, PATIENCE, read_until, wait_for
from test_firmware_disk import choose_shell, start

needs_swtpm = pytest.mark.skipif(not shutil.which('swtpm'), reason='package swtpm is missing')
LOOK = (b"PS1=; busybox mount -t securityfs s /sys/kernel/security;"
        b"busybox head -n 1 /sys/class/tpm/tpm0/pcr-sha256/*;"
        b"busybox wc -c /sys/kernel/security/tpm0/binary_bios_measurements;"
        b"busybox strings /sys/kernel/security/tpm0/binary_bios_measurements; exit\n")


def look_inside(process):
    """What a shell of the menu says about its TPM, to its end: the PCRs, and all of it."""
    process.stdin.write(LOOK)
    process.stdin.flush()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err.decode(errors='replace')[-2000:]
    out = out.decode(errors='replace').replace('\r', '')
    pcrs = dict((int(index), value) for index, value in
                re.findall(r'pcr-sha256/(\d+) <==\n([0-9A-F]{64})', out))
    assert len(pcrs) == 24, out[-3000:]
    return pcrs, out


@needs_swtpm
def test_bios_has_one_too(tenon, tmp_path, disk):
    """
    Debian's SeaBIOS is built without measurements: the kernel uses the TPM, and there is nothing
    to attest. (What UEFI measures is in test_attest.py.)
    """
    process = start(tenon, tmp_path, 'bios', disk('bios'), '--tpm', '--tpm-state', 'tpm', '--qmp',
                    'qmp.sock', stdin=subprocess.PIPE)
    choose_shell(process)
    attested = tenon.run_beside('attest', 'qmp.sock')
    assert attested.returncode == 1 and 'no event log' in attested.stderr, attested.stderr
    pcrs, _ = look_inside(process)
    assert int(pcrs[0], 16) == 0 and int(pcrs[17], 16) == (1 << 256) - 1


@needs_swtpm
def test_a_kernel_alone_finds_it(tenon, tmp_path, demo_guest):
    process = tenon.start('run', '--accel', 'soft', '--tpm', '--kernel', demo_guest / 'vmlinuz',
                          '--initrd', demo_guest / 'initrd', '--append',
                          'console=ttyS0 tenon.demo=shell', '--tpm-state', 'state',
                          stdin=subprocess.PIPE)
    read_until(process, 'demo: a shell', timeout=PATIENCE)
    process.stdin.write(b'dmesg | grep TPM2; cat /sys/class/tpm/tpm0/tpm_version_major; exit\n')
    process.stdin.flush()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert 'TENONVMM' in out.decode() and re.search(r'^2\r?$', out.decode(), re.M)
    assert b'TPM: 2.0, kept in state' in err
    assert (tmp_path / 'state/tpm2-00.permall').exists()


@needs_swtpm
def test_a_tpm_that_dies_is_told(tenon, tmp_path):
    """The guest goes on, with a sentence to the user."""
    process = tenon.start('run', '--accel', 'soft', '--tpm', '--debug-exit', '--kernel',
                          tenon.guest('echo', ECHO), stdin=subprocess.PIPE,
                          prefix=('env', 'XDG_STATE_HOME=%s' % (tmp_path / 'home')))
    process.stdin.write(b'a')
    process.stdin.flush()
    read_until(process, 'b')
    assert (tmp_path / 'home/tenon/vm.tpm/tpm2-00.permall').exists()
    pid = tenon.find('swtpm')
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in dict(tenon.left()))
    process.stdin.write(b'a')
    process.stdin.flush()
    read_until(process, 'b')
    process.stdin.write(b'q')
    process.stdin.flush()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b'swtpm was killed by signal 9' in err and b'out of order' in err, err


@needs_swtpm
@pytest.mark.parametrize('victim', ['tenon', 'tenon-vmm'])
def test_it_ends_with_the_vm(tenon, tmp_path, victim):
    process = tenon.start('run', '--accel', 'soft', '--tpm', '--tpm-state', 'state', '--kernel',
                          tenon.guest('echo', ECHO), stdin=subprocess.PIPE)
    process.stdin.write(b'a')
    process.stdin.flush()
    read_until(process, 'b')
    tenon.find('swtpm')
    os.kill(process.pid if victim == 'tenon' else tenon.find(victim), signal.SIGKILL)
    process.wait()
    tenon.expect_nothing_left()


def test_bad_input(tenon, tmp_path):
    kernel = tenon.guest('halt', b'\xf4')
    missing = tenon.run('run', '--tpm', '--kernel', kernel, '--tpm-state', 'state',
                        prefix=('/usr/bin/env', 'PATH=%s' % tmp_path))
    assert missing.returncode == 1 and 'apt-get install swtpm' in missing.stderr
    micro = tenon.run('run', '--tpm', '--board', 'micro', '--kernel', kernel)
    assert micro.returncode == 2 and 'a TPM needs board q35' in micro.stderr
    alone = tenon.run('run', '--tpm-state', 'state', '--kernel', kernel)
    assert alone.returncode == 2 and '--tpm' in alone.stderr
    comma = tenon.run('run', '--tpm', '--tpm-state', 'a,b', '--kernel', kernel)
    assert comma.returncode == 2 and 'comma' in comma.stderr


@needs_swtpm
def test_a_state_that_is_no_tpm(tenon, tmp_path):
    state = tmp_path / 'state'
    state.mkdir()
    (state / 'tpm2-00.permall').write_bytes(b'this is no TPM' * 100)
    result = tenon.run('run', '--tpm', '--tpm-state', 'state', '--kernel',
                       tenon.guest('halt', b'\xf4'))
    assert result.returncode == 1
    assert "swtpm cannot start the TPM: see 'state/log'" in result.stderr


@needs_swtpm
def test_one_state_serves_one_vm(tenon, tmp_path):
    words = ('run', '--accel', 'soft', '--tpm', '--tpm-state', 'state', '--kernel',
             tenon.guest('halt', HALT))
    first = tenon.start(*words)
    tenon.find('tenon-vmm')
    second = tenon.run_beside(*words)
    assert second.returncode == 1 and 'swtpm cannot start' in second.stderr, second.stderr
    first.kill()
