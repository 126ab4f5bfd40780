"""
What ends or pauses a VM under `tenon run` from outside: signals, killed processes, the power button.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import pathlib
import signal
import time

import pytest

from conftest import HALT, SOFT, SPIN, Qmp, start_guest, wait_for


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP])
def test_second_signal_ends_the_vm(tenon, number):
    """A guest that does not listen to its power button."""
    process = start_guest(tenon, SPIN, '--report', 'r.json')
    process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(10) == 1
    tenon.expect_nothing_left()
    report = json.loads((tenon.directory / 'r.json').read_text())
    assert report['result'] == 'quit' and report['forced'] is True
    assert b'power down' in process.stderr.read()
    assert not (tenon.directory / 'qmp').exists()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_guest_that_goes_on_is_ended(tenon, number):
    """One signal is enough, as from timeout(1)."""
    process = start_guest(tenon, SPIN, '--report', 'r.json', '--grace', '1')
    process.send_signal(number)
    assert process.wait(60) == 1
    tenon.expect_nothing_left()
    assert json.loads((tenon.directory / 'r.json').read_text())['forced'] is True
    assert b'the guest did not power down in 1 s: ending the VM' in process.stderr.read()


def test_a_grace_that_is_no_time(tenon):
    for words in ('', '-1', '1m', '86401'):
        result = tenon.run('run', '--grace', words)
        assert result.returncode == 2 and '--grace is 0 to 86400 seconds' in result.stderr


def test_third_signal_kills(tenon):
    process = start_guest(tenon)
    vmm = tenon.find('tenon-vmm')
    os.kill(vmm, signal.SIGSTOP)  # it cannot answer
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert process.wait(10) == 1
    tenon.expect_nothing_left()


def test_vmm_that_hangs_is_killed(tenon):
    process = start_guest(tenon)
    os.kill(tenon.find('tenon-vmm'), signal.SIGSTOP)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert process.wait(15) == 1
    tenon.expect_nothing_left()


def test_killed_tenon_leaves_nothing(tenon):
    process = start_guest(tenon, SPIN, '--net', 'user', '--cpus', '2')
    assert len(tenon.left()) == 3
    process.kill()
    process.wait()
    tenon.expect_nothing_left(2)


def test_killed_vmm(tenon):
    process = start_guest(tenon, SPIN, '--net', 'user')
    os.kill(tenon.find('tenon-vmm'), signal.SIGKILL)
    assert process.wait(10) == 1
    assert b'tenon-vmm was killed by signal 9' in process.stderr.read()
    tenon.expect_nothing_left()
    assert not (tenon.directory / 'qmp').exists()


def test_killed_slirp(tenon):
    """The network goes, the VM stays."""
    process = start_guest(tenon, HALT, '--net', 'user')
    os.kill(tenon.find('tenon-slirp'), signal.SIGKILL)
    time.sleep(0.3)
    assert process.poll() is None
    qmp = Qmp(tenon.directory / 'qmp')
    assert qmp.command('query-status')['running'] is True
    qmp.command('quit')
    assert process.wait(10) == 0
    assert b"net 'n0': tenon-slirp was killed" in process.stderr.read()


@pytest.mark.parametrize('moment', range(8))
def test_killed_during_start(tenon, moment):
    kernel = tenon.guest('k', SPIN)
    process = tenon.start(*SOFT, '--kernel', kernel, '--net', 'user')
    time.sleep(moment * 0.002)
    process.kill()
    process.wait()
    tenon.expect_nothing_left()


def test_suspend_pauses_the_guest(tenon):
    process = start_guest(tenon)
    qmp = Qmp(tenon.directory / 'qmp')
    process.send_signal(signal.SIGTSTP)
    qmp.event('STOP')
    assert qmp.command('query-status')['status'] == 'paused'
    state = pathlib.Path('/proc/%d/stat' % process.pid)
    wait_for(lambda: state.read_text().rsplit(')', 1)[1].split()[0] == 'T', 5, 'the stop')
    process.send_signal(signal.SIGCONT)
    qmp.event('RESUME')
    qmp.command('quit')
    assert process.wait(10) == 0


# Machine code that waits for its power button and then switches itself off.
WAIT_FOR_BUTTON = {
    'q35': (b'\x66\xba\x00\x06'          # 1: mov dx, 0x600 (PM1 status)
            b'\x66\xed'                  # in ax, dx
            b'\xf6\xc4\x01'              # test ah, 1 (power button)
            b'\x74\xf5'                  # jz 1b
            b'\x66\xba\x04\x06'          # mov dx, 0x604 (PM1 control)
            b'\x66\xb8\x00\x20'          # mov ax, 0x2000 (SLP_EN, S5)
            b'\x66\xef'),                # out dx, ax
    'micro': (b'\xa1\x00\x00\xd4\xfe'    # 1: mov eax, [0xfed40000] (events)
              b'\xa8\x01'                # test al, 1 (power button)
              b'\x74\xf7'                # jz 1b
              b'\xc6\x05\x08\x00\xd4\xfe\x34'),  # mov byte [0xfed40008], 0x34 (S5, SLP_EN)
}


@pytest.mark.parametrize('board', sorted(WAIT_FOR_BUTTON))
@pytest.mark.parametrize('way', ['SIGTERM', 'SIGINT', 'SIGHUP', 'QMP', 'escape'])
def test_power_button(tenon, terminal, board, way):
    """A guest that listens powers off, and that is a success."""
    code = WAIT_FOR_BUTTON[board] + HALT
    args = ('--board', board, '--report', 'r.json')
    if way == 'escape':
        it = terminal(code, *args)
        it.wait_raw()
        it.type(b'\x1dp')
        assert it.end() == 0
        it.expect_restored()
    else:
        process = start_guest(tenon, code, *args)
        if way == 'QMP':
            Qmp(tenon.directory / 'qmp').command('system_powerdown')
        else:
            process.send_signal(getattr(signal, way))
        assert process.wait(10) == 0
    tenon.expect_nothing_left()
    report = json.loads((tenon.directory / 'r.json').read_text())
    assert report['result'] == 'poweroff' and report['forced'] is False
