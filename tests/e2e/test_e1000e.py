"""
The 82574L network card, driven by Debian's generic kernel without a single virtio driver: what comes
in and what goes out has the right bytes.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import socket
import subprocess
import threading

from conftest import read_until
from test_ahci import TIMEOUT, start_words
from test_discs import Shell

SIZE = 4 << 20


class Server(threading.Thread):
    """One connection that sends bytes, then one that takes them."""

    def __init__(self, data):
        super().__init__(daemon=True)
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.data, self.taken = data, hashlib.sha256()
        self.start()

    def run(self):
        with self.listener.accept()[0] as connection:
            connection.sendall(self.data)
        with self.listener.accept()[0] as connection:
            while piece := connection.recv(1 << 16):
                self.taken.update(piece)


def test_bytes_both_ways(tenon, pc_guest):
    data = hashlib.shake_128(b'e1000e').digest(SIZE)
    server = Server(data)
    process = tenon.start(*start_words(pc_guest, 'tenon.demo=shell tenon.disk=/dev/sda'),
                          '--disk', 'path=%s,bus=ahci' % tenon.disk(), '--net',
                          'user,model=e1000e', stdin=subprocess.PIPE)
    text = read_until(process, 'exit powers', TIMEOUT)
    assert 'NIC Link is Up 1000 Mbps Full Duplex' in text, text[-2000:]
    shell = Shell(process)
    assert 'virtio_net' not in shell.run('cut -d" " -f1 /proc/modules')
    # A card of its own messages: three of them, for what comes, what goes, and the rest.
    assert 'eth0-rx-0' in shell.run('cat /proc/interrupts')
    host = '10.0.2.2 %d' % server.port
    assert hashlib.sha256(data).hexdigest() in shell.run(
        'nc %s </dev/null >/tmp/in; sha256sum /tmp/in' % host)
    shell.run('cat /tmp/in /tmp/in | nc %s' % host)
    server.join(TIMEOUT)
    assert server.taken.digest() == hashlib.sha256(data + data).digest()
    text = shell.run('dmesg')
    assert 'Detected Hardware Unit Hang' not in text and 'transmit queue' not in text, text
    process.stdin.write(b'exit\n')
    process.stdin.flush()
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err.decode(errors='replace')[-2000:]
