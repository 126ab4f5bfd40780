"""
The web console: its files as tenond serves them, the screen's WebSocket, and all of it in headless Chromium.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import re
import shutil
import subprocess

import pytest

import rfb
from conftest import BUILD, PATIENCE, ROOT, wait_for
from tenond import Connection, Tenond, WebSocket
from test_screen import GOLDEN, bochs_initrd, picture

WEB = BUILD / 'web'
STEPS = ['logged in', 'GRUB is on the screen', 'the console answers', 'the screen takes keys', 'timeline and graphs',
         'a viewer looks and does not type', 'reset', 'deleted; events and audit tell it',
         "the kernel's framebuffer"]


@pytest.fixture
def tenond(tenon):
    it = Tenond(tenon).start('--listen', '0')
    it.port = int(it.process.stdout.readline().split()[-1])
    yield it
    it.close()


def spin(tenon):
    return tenon.guest('guest', b'\xf4\xeb\xfd')


class Tunnel(WebSocket):
    """A WebSocket as a stream socket, for the RFB viewer."""

    def __init__(self, connection, path, headers=None):
        super().__init__(connection, path, headers)
        self.bytes = b''

    def recv(self, size):
        while not self.bytes:
            opcode, self.bytes = self.frame()
            if opcode in (8, None):
                return b''
        piece, self.bytes = self.bytes[:size], self.bytes[size:]
        return piece

    def sendall(self, data):
        for at in range(0, len(data), 100):
            self.send(data[at:at + 100])


def screen(tenond, path, headers=None, **options):
    tunnel = Tunnel(Connection(tenond.socket, 60), path, headers)
    return tunnel, rfb.Viewer(tunnel, **options) if tunnel.status == 101 else None


def test_the_screen_of_a_vm(tenon, tenond):
    tenond.create('web', spin(tenon), board='q35', vga=True)
    tenond.act('web', 'start', wait=60)
    tunnel, viewer = screen(tenond, '/v1/vms/web/screen')
    assert viewer.name == 'web'
    (tenon.directory / 'a.png').write_bytes(tenond.good('GET', '/v1/vms/web/screenshot').body)
    assert viewer.picture() == picture(tenon.directory / 'a.png')
    # A ticket opens it once, with the rights of who asked.
    token = tenond.token('looker', 'viewer')
    path = tenond.good('POST', '/v1/vms/web/screen/tickets', headers=token).json['path']
    assert path.startswith('/v1/vms/web/screen?ticket=')
    _, visitor = screen(tenond, path)
    assert visitor.picture() == viewer.picture()
    assert screen(tenond, path)[0].status == 401
    entries = tenond.good('GET', '/v1/audit').json['entries']
    assert [entry['status'] for entry in entries if entry['action'] == 'openScreen'] == [101, 101]
    # A token that is revoked loses the screen; others keep it.
    tenond.good('DELETE', '/v1/tokens/looker')
    with pytest.raises((rfb.Refused, OSError)):
        while True:
            visitor.picture()
    assert viewer.picture()
    tunnel.close()
    tenond.act('web', 'stop', wait=60)
    wait_for(lambda: not [1 for _, line in tenon.left() if 'tenon-view' in line], 20, 'the end of its viewers')


def test_what_has_no_screen(tenon, tenond):
    tenond.create('blind', spin(tenon))
    assert screen(tenond, '/v1/vms/blind/screen')[0].status == 409
    tenond.act('blind', 'start', wait=60)
    assert screen(tenond, '/v1/vms/blind/screen')[0].status == 409
    reply = tenond.call('GET', '/v1/vms/blind/screen')
    assert reply.status == 400 and 'WebSocket' in reply.sentence
    assert screen(tenond, '/v1/vms/nobody/screen')[0].status == 404
    wait_for(lambda: not [1 for _, line in tenon.left() if 'tenon-view' in line], 20, 'the end of its viewers')


@pytest.mark.skipif(not (WEB / 'index.html').exists(), reason='the web console is not built: make web (needs npm)')
def test_pages_and_their_policy(tenond):
    page = tenond.raw('GET', '/')
    assert page.status == 200 and page.type == 'text/html'
    policy = page.headers['Content-Security-Policy']
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "connect-src 'self'" in policy
    for path in re.findall(rb'(?:src|href)="([^"]+)"', page.body):
        reply = tenond.raw('GET', path.decode())
        assert reply.status == 200 and reply.headers['X-Content-Type-Options'] == 'nosniff', path
    assert b'http' not in re.sub(rb'http://www\.w3\.org/\S+', b'', page.body)
    # Names, not paths.
    for path in ('/index.html/', '/../index.html', '/assets/', '/assets/../index.html', '//', '/tenond.db'):
        assert tenond.raw('GET', path).status == 404, path
    assert tenond.raw('GET', '/', headers={'Host': 'evil.example'}).status == 421
    assert tenond.raw('POST', '/').status == 404


def needs_browser():
    for name, where in (('chromium', 'package chromium'), ('node', 'package nodejs')):
        if not shutil.which(name):
            pytest.skip('%s is missing (%s)' % (name, where))
    if not (WEB / 'index.html').exists():
        pytest.skip('the web console is not built: make web (needs npm)')
    if not (ROOT / 'web/node_modules/playwright-core').exists():
        pytest.skip('playwright-core is missing: make web (needs npm)')


KERNEL = """name: framebuffer
accel: soft
vga: true
kernel: {0}/vmlinuz
initrd: {1}
append: console=ttyS0 vt.global_cursor_default=0
"""


def test_the_console_in_a_browser(tenon, tenond, disk, demo_guest):
    needs_browser()
    guest = demo_guest.parent / 'generic'
    if not (guest / 'vmlinuz').exists():
        pytest.skip('no generic kernel in %s: run tools/demo-guest --kernel generic' % guest)
    image = tenon.directory / 'disk.img'
    subprocess.run(['cp', '--sparse=always', disk('bios'), image], check=True)
    token = {role: tenond.token(role, role)['Authorization'].split()[1] for role in ('admin', 'viewer')}
    given = {'host': '127.0.0.1:%d' % tenond.port, 'vm': 'web', 'image': str(image), 'patience': PATIENCE,
             'admin': token['admin'], 'viewer': token['viewer'], 'chromium': shutil.which('chromium'),
             'menu': str(GOLDEN / 'grub-menu.png'), 'framebuffer': str(GOLDEN / 'framebuffer-console.png'),
             'kernel': KERNEL.format(guest, bochs_initrd(tenon.directory, guest / 'modules')), 'modules': str(ROOT / 'web'),
             'artefacts': str(BUILD / 'artefacts/web')}
    result = subprocess.run(['timeout', '-k', '5', '1200', 'node', ROOT / 'tests/e2e/web/console.mjs'], capture_output=True, text=True,
                            env=dict(os.environ, TENON_WEB=json.dumps(given), HOME=str(tenon.directory)),
                            stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stdout + result.stderr + tenond.log()
    for step in STEPS:
        assert 'step: ' + step in result.stdout, result.stdout
