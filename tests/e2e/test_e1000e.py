"""
The 82574L network card, driven by Debian's generic kernel without a single virtio driver: what comes
in and what goes out has the right bytes, through the NAT and over a tap.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import os
import shutil
import socket
import subprocess
import threading

import pytest

from conftest import PATIENCE, read_until
from test_ahci import start_words
from test_discs import Shell

SIZE = 4 << 20


class Server(threading.Thread):
    """One connection that sends bytes, then one that takes them."""

    def __init__(self, data, address):
        super().__init__(daemon=True)
        self.listener = socket.create_server((address, 0))
        self.port = self.listener.getsockname()[1]
        self.data, self.taken = data, hashlib.sha256()
        self.start()

    def run(self):
        with self.listener.accept()[0] as connection:
            connection.sendall(self.data)
        with self.listener.accept()[0] as connection:
            while piece := connection.recv(1 << 16):
                self.taken.update(piece)


def exchange(tenon, pc_guest, net, address='127.0.0.1', commands=()):
    """Boots with this net, runs the commands, and lets bytes through both ways."""
    data = hashlib.shake_128(b'e1000e').digest(SIZE)
    server = Server(data, address)
    process = tenon.start(*start_words(pc_guest, 'tenon.demo=shell tenon.disk=/dev/sda'),
                          '--disk', 'path=%s,bus=ahci' % tenon.disk(), '--net',
                          net, stdin=subprocess.PIPE)
    text = read_until(process, 'exit powers', PATIENCE)
    assert 'NIC Link is Up 1000 Mbps Full Duplex' in text, text[-2000:]
    shell = Shell(process)
    assert 'virtio_net' not in shell.run('cut -d" " -f1 /proc/modules')
    # A card of its own messages: three of them, for what comes, what goes, and the rest.
    assert 'eth0-rx-0' in shell.run('cat /proc/interrupts')
    for command in commands:
        shell.run(command)
    host = '%s %d' % (address.replace('127.0.0.1', '10.0.2.2'), server.port)
    assert hashlib.sha256(data).hexdigest() in shell.run(
        'nc %s </dev/null >/tmp/in; sha256sum /tmp/in' % host)
    shell.run('cat /tmp/in /tmp/in | nc %s' % host)
    server.join(PATIENCE)
    assert server.taken.digest() == hashlib.sha256(data + data).digest()
    text = shell.run('dmesg')
    assert 'Detected Hardware Unit Hang' not in text and 'transmit queue' not in text, text
    process.stdin.write(b'exit\n')
    process.stdin.flush()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err.decode(errors='replace')[-2000:]


def test_bytes_both_ways(tenon, pc_guest):
    exchange(tenon, pc_guest, 'user,model=e1000e')


@pytest.fixture
def tap():
    """(name, our address) of a tap device; the guest's is the next one."""
    if os.geteuid() or not os.access('/dev/net/tun', os.W_OK) or not shutil.which('ip'):
        pytest.skip('a tap needs root, /dev/net/tun and ip (package iproute2)')
    name, address = 'tt%d' % os.getpid(), '10.213.%d.1' % (os.getpid() % 250)
    made = subprocess.run(['ip', 'tuntap', 'add', 'dev', name, 'mode', 'tap'], capture_output=True)
    if made.returncode:
        pytest.skip('no tap devices here: %s' % made.stderr.decode())
    try:
        for words in (('addr', 'add', address + '/24', 'dev', name), ('link', 'set', name, 'up')):
            subprocess.run(['ip', *words], check=True)
        yield name, address
    finally:
        subprocess.run(['ip', 'link', 'del', name], check=True)


def test_bytes_over_a_tap(tenon, pc_guest, tap):
    name, address = tap
    exchange(tenon, pc_guest, 'tap,ifname=%s,model=e1000e' % name, address,
             ('ifconfig eth0 %s2 netmask 255.255.255.0' % address[:-1],))
