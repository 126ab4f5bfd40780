"""
A terminal under `tenon run`: raw while the VM runs, and restored whatever happens.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import signal
import termios
import time

import pytest

from conftest import HALT, SPIN, cpu_ticks, wait_for


def test_terminal_is_raw_and_restored(terminal, tenon):
    it = terminal()
    it.wait_raw()
    it.expect(b'Ctrl-]')
    it.type(b'a\x02')       # Ctrl-C and friends are the guest's
    it.expect(b'b\x03')
    it.type(b'\x03')
    it.expect(b'\x04')
    assert it.process.poll() is None
    it.type(b'q')
    assert it.end() == 0
    it.expect_restored()
    tenon.expect_nothing_left()


def test_escape_key(terminal, tenon):
    it = terminal()
    it.wait_raw()
    it.type(b'\x1d?')
    it.expect(b'power button')
    it.type(b'\x1d\x1d')
    it.expect(b'\x1e')      # the guest got Ctrl-], and answered one up
    it.type(b'\x1dp')
    it.expect(b'asking the guest to power down')
    assert it.process.poll() is None
    it.type(b'\x1dq')
    assert it.end() == 0
    it.expect_restored()
    tenon.expect_nothing_left()


def test_terminal_after_a_failed_start(terminal):
    it = terminal(HALT, '--initrd', 'gone')
    assert it.end() == 1
    it.expect_restored()
    it = terminal(HALT, '--console', 'serial', '--kernel', '/dev/null')
    assert it.end() == 1
    it.expect_restored()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_terminal_after_signals(terminal, tenon, number):
    it = terminal()
    it.wait_raw()
    it.process.send_signal(number)
    it.expect(b'power down')
    assert it.is_raw()
    it.process.send_signal(number)
    assert it.end() == 1
    it.expect_restored()
    tenon.expect_nothing_left()


def test_terminal_after_kill_of_tenon(terminal, tenon):
    it = terminal()
    it.wait_raw()
    it.process.kill()
    it.process.wait()
    wait_for(lambda: termios.tcgetattr(it.slave) == it.before, 3, 'the old mode')
    tenon.expect_nothing_left()


def test_terminal_after_kill_of_the_group(terminal, tenon):
    it = terminal()
    it.wait_raw()
    os.killpg(it.process.pid, signal.SIGKILL)
    it.process.wait()
    wait_for(lambda: termios.tcgetattr(it.slave) == it.before, 3, 'the old mode')
    tenon.expect_nothing_left()


def test_terminal_after_kill_of_the_vmm(terminal, tenon):
    it = terminal()
    it.wait_raw()
    os.kill(tenon.find('tenon-vmm'), signal.SIGKILL)
    assert it.end() == 1
    it.expect_restored()
    it.expect(b'killed by signal 9')
    tenon.expect_nothing_left()


def test_terminal_during_suspension(terminal, tenon):
    it = terminal()
    it.wait_raw()
    it.process.send_signal(signal.SIGTSTP)
    wait_for(lambda: termios.tcgetattr(it.slave) == it.before, 3, 'the old mode')
    it.process.send_signal(signal.SIGCONT)
    it.wait_raw()
    it.type(b'aq')
    assert it.end() == 0
    it.expect_restored()


def test_terminal_that_hangs_up(terminal, tenon):
    """The window is closed: SIGHUP comes from the kernel, and the descriptors answer no more."""
    it = terminal(SPIN, '--report', 'r.json')
    it.wait_raw()
    os.close(it.slave)
    os.close(it.master)
    it.slave, it.master = os.open('/dev/null', os.O_RDWR), os.open('/dev/null', os.O_RDWR)
    time.sleep(0.3)
    before = cpu_ticks(it.process.pid)
    time.sleep(0.5)
    assert it.process.poll() is None
    assert cpu_ticks(it.process.pid) - before <= 2
    it.process.send_signal(signal.SIGTERM)
    assert it.process.wait(10) == 1
    tenon.expect_nothing_left()
    assert json.loads((tenon.directory / 'r.json').read_text())['forced'] is True
