"""
`tenon console`: a terminal, a pipe, a second user, and what it says when there is nothing to use.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import signal
import subprocess

import pytest

from conftest import HALT, debug_exit, wait_for
from tenond import WebSocket
from terminal import Terminal
from test_tenond_cli import FILE

# Waits for a byte of ttyS0, writes 900,000 and ends the VM.
FLOOD = (b'\x66\xba\xfd\x03'          # 1: mov dx, 0x3fd
         b'\xec'                      # in al, dx
         b'\xa8\x01'                  # test al, 1
         b'\x74\xf7'                  # jz 1b
         b'\x66\xba\xf8\x03'          # mov dx, 0x3f8
         b'\xb9\xa0\xbb\x0d\x00'      # mov ecx, 900000
         b'\x88\xc8'                  # 2: mov al, cl
         b'\x24\x3f'                  # and al, 63
         b'\x04\x20'                  # add al, 32
         b'\xee'                      # out dx, al
         b'\xff\xc9'                  # dec ecx
         b'\x75\xf5'                  # jnz 2b
         ) + debug_exit(0) + HALT


def start_web(tenond, command, monkeypatch):
    """VM `web` runs the guest `echo`, whatever that is; `tenon` finds its tenond."""
    (tenond.directory / 'web.yaml').write_text(FILE)
    command('create', 'web.yaml')
    command('start', 'web')
    monkeypatch.setenv('TENON_SOCKET', str(tenond.socket))


@pytest.fixture
def flood(tenond, command, tenon, monkeypatch):
    """The VM of FLOOD."""
    tenon.guest('echo', FLOOD)
    start_web(tenond, command, monkeypatch)


@pytest.fixture
def client(tenond, command, echo, monkeypatch):
    """Starts `tenon console` on a terminal of its own, at a VM that sends back what it gets, one up."""
    start_web(tenond, command, monkeypatch)
    made = []

    def make(*words):
        made.append(Terminal(tenond.tenon, 'console', 'web', *words))
        return made[-1]
    yield make
    for it in made:
        it.close()


def test_two_terminals(client, tenond):
    one = client()
    one.wait_raw()
    one.expect(b'Ctrl-] q leaves it')
    one.expect(b'hello')                # what came before it
    one.type(b'a\x02')                  # Ctrl-B is the guest's, and comes back as Ctrl-C
    one.expect(b'b\x03')
    two = client('--console', 'c0')
    two.expect(b'b\x03')
    two.type(b'\x1d\x1d')
    one.expect(b'\x1e')
    two.type(b'\x1d?')
    two.expect(b'q leaves the console')
    two.type(b'\x1dq')
    assert two.end() == 0
    two.expect_restored()
    assert tenond.get('web')['state'] == 'running'
    one.process.send_signal(signal.SIGTERM)
    assert one.end() == -signal.SIGTERM
    wait_for(lambda: not one.is_raw(), 10, 'the old mode')


def test_the_vm_ends(client, tenond):
    it = client()
    it.expect(b'hello')
    it.type(b'q')
    assert it.end() == 0
    it.expect(b'the console has ended')
    it.expect_restored()
    wait_for(lambda: tenond.get('web')['state'] == 'stopped')


def test_a_pipe(client, tenond):
    """What is typed comes back whole; the escape key means nothing, and the end of the input ends nothing."""
    it = tenond.tenon
    text = bytes(byte for byte in range(32, 112)) * 300 + b'\x1dZ'
    process = it.start('console', 'web', stdin=subprocess.PIPE)
    process.stdin.write(text + b'q')
    process.stdin.close()
    process.stdin = None
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and not err
    assert out.replace(b'\r', b'').endswith(bytes(byte + 1 for byte in text)), out[-200:]


def test_the_last_words(flood, tenond, tenon):
    """Who reads only after the VM has ended gets all that it wrote, like the log."""
    watcher = WebSocket(tenond.connection(), '/v1/vms/web/consoles/c0')
    process = tenon.start('console', 'web', stdin=subprocess.PIPE)
    process.stdin.write(b'!')
    process.stdin.close()
    process.stdin = None
    wait_for(lambda: tenond.get('web')['state'] == 'stopped', 60)
    seen = b''
    while (frame := watcher.frame())[0] == 2:
        seen += frame[1]
    assert frame[0] == 8, 'the connection ends with a word'
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and not err
    written = (tenond.state / 'vms/web/console-c0.log').read_bytes()
    assert len(written) > 200000
    assert seen == written
    assert out == written
    watcher.close()


def test_who_does_not_read_at_the_end(flood, tenond):
    """The daemon waits for such a one, a while, and ends without."""
    deaf = [WebSocket(tenond.connection(), '/v1/vms/web/consoles/c0') for _ in range(2)]
    deaf[0].send(b'!')
    wait_for(lambda: tenond.get('web')['state'] == 'stopped', 60)
    deaf.pop().close()
    tenond.stop()
    deaf.pop().close()
    tenond.start()
    assert tenond.get('web')['state'] == 'stopped'


def test_what_there_is_not(client, tenond, command):
    assert "no VM 'wob'" in command('console', 'wob', status=1)
    assert 'is no name' in command('console', '../x', status=2)
    assert re.search("refuses console 'c7' of VM 'web' .*404", command('console', 'web', '--console', 'c7', status=1))
    assert 'give a VM' in command('console', status=2)
    command('stop', str(tenond.get('web')['pid']), '--now')
    wait_for(lambda: tenond.get('web')['state'] == 'stopped')
    assert 'tenon start web' in command('console', 'web', status=4)
