"""
A real Debian kernel under the software engine: modules, an ext4 disk, DHCP and HTTP through the NAT,
power-off through ACPI; then the host looks at what the guest left.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import threading

import pytest

from conftest import PATIENCE, ROOT, e2fsprogs, read_until, wait_for

PAGE = os.urandom(1 << 20)


@pytest.fixture
def server():
    seen = []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            self.send_response(200)
            self.send_header('Content-Length', str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_):
            pass
    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Page)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd.server_address[1], seen
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def demo(tenon, demo_guest):
    """Arguments that boot the demonstration guest on a fresh disk, and the disk."""
    disk = tenon.directory / 'demo.raw'
    subprocess.run([ROOT / 'tools/demo-guest', 'disk', disk], check=True, capture_output=True)
    return ['run', '--accel', 'soft', '--memory', '512M', '--kernel', demo_guest / 'vmlinux',
            '--initrd', demo_guest / 'initrd', '--disk', disk, '--net', 'user'], disk


@pytest.mark.parametrize('board, cpus', [('micro', 1), ('q35', 2)])
def test_demo_guest(tenon, demo, server, board, cpus):
    args, disk = demo
    port, seen = server
    append = 'console=ttyS0 quiet tenon.demo=auto tenon.url=http://:%d/page' % port
    result = tenon.run(*args, '--board', board, '--cpus', cpus, '--append', append, '--report',
                       'r.json', timeout=PATIENCE)
    text = result.stdout
    assert result.returncode == 0, (text[-3000:], result.stderr)
    assert 'FAILED' not in text and 'demo: done' in text, text[-3000:]
    said = re.search(r'demo: checksum sha256 (\w{64})', text)
    assert said, text
    fetched = re.search(r'demo: fetched (\d+) bytes sha256 (\w{64})', text)
    assert fetched and fetched.group(2) == hashlib.sha256(PAGE).hexdigest(), text
    assert seen == ['/page']
    stored = e2fsprogs('debugfs', '-R', 'cat /checksum.sha256', str(disk)).stdout.split()
    assert stored and stored[0] == said.group(1)
    check = e2fsprogs('e2fsck', '-fn', str(disk))
    assert check.returncode == 0, check.stdout
    report = json.loads((tenon.directory / 'r.json').read_text())
    assert report['result'] == 'poweroff' and report['engine'] == 'soft'
    stages = [row['stage'] for row in report['timeline']]
    assert {'kernel entry', 'first output', 'end'} <= set(stages)
    assert 'first guest instruction' in result.stderr


def everything_from(port):
    """What a server on the host's port sends until it closes; nothing if it refuses."""
    got = b''
    try:
        with socket.create_connection(('127.0.0.1', port), timeout=60) as client:
            client.settimeout(60)
            while piece := client.recv(1000):
                got += piece
    except ConnectionError:
        pass
    return got


def test_interactive_shell_and_forward(tenon, demo):
    """The guest's shell through standard input; a port of the host leads to a server in it."""
    args, _ = demo
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    process = tenon.start(*args, '--append', 'console=ttyS0 quiet tenon.demo=shell', '--forward',
                          '%d-7777' % port, stdin=subprocess.PIPE)
    read_until(process, 'exit powers the machine off', PATIENCE)
    process.stdin.write(b'echo $((6 * 7))answer\n')
    process.stdin.flush()
    read_until(process, '42answer', 60)
    process.stdin.write(b'echo from inside | nc -l -p 7777; echo served\n')
    process.stdin.flush()
    # Until nc listens, the guest refuses, and the host's end is closed without a byte.
    assert wait_for(lambda: everything_from(port), 60, 'an answer of the guest') == b'from inside\n'
    read_until(process, 'served', 60)
    process.stdin.write(b'exit\n')
    process.stdin.flush()
    assert process.wait(60) == 0
    tenon.expect_nothing_left()


@pytest.mark.parametrize('board', ['micro', 'q35'])
def test_sigterm_powers_debian_down(tenon, demo, board):
    """The signal presses the power button; the guest's acpid puts its disk in order."""
    args, disk = demo
    process = tenon.start(*args, '--board', board, '--append', 'console=ttyS0 quiet '
                          'tenon.demo=shell', stdin=subprocess.PIPE)
    read_until(process, 'exit powers the machine off', PATIENCE)
    process.send_signal(signal.SIGTERM)
    read_until(process, 'demo: power button', 60)
    assert process.wait(60) == 0
    assert e2fsprogs('e2fsck', '-fn', str(disk)).returncode == 0
    tenon.expect_nothing_left()
