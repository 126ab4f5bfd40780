"""
Disks and discs by URL: firmware boots from what an HTTP or NBD server has, and writes to it.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import threading

import pytest

from conftest import wait_for
from test_firmware import boot_sector, exit_with, needs_seabios
from test_run_image import WRITES, home, left_in_cache  # noqa: F401, a fixture

BOOT = ('run', '--accel', 'soft', '--firmware', 'bios', '--debug-exit')


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Answers HEAD, and GET with or without a range."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        path = self.translate_path(self.path)
        if not os.path.isfile(path):
            return self.send_error(404)
        with open(path, 'rb') as file:
            data = file.read()
        wanted = re.match(r'bytes=(\d+)-(\d+)$', self.headers.get('Range', ''))
        first, last = map(int, wanted.groups()) if wanted else (0, len(data) - 1)
        part = data[first:last + 1]
        self.send_response(206 if wanted else 200)
        self.send_header('Accept-Ranges', 'bytes')
        self.send_header('Content-Length', str(len(part)))
        if wanted:
            self.send_header('Content-Range',
                             'bytes %d-%d/%d' % (first, first + len(part) - 1, len(data)))
        self.end_headers()
        self.wfile.write(part)

    def send_head(self):
        size = os.path.getsize(self.translate_path(self.path))
        self.send_response(200)
        self.send_header('Accept-Ranges', 'bytes')
        self.send_header('Content-Length', str(size))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """The URL of a server of this test's folder."""
    server = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Ranges, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield 'http://127.0.0.1:%d/' % server.server_port
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def nbd(tenon, image, *words):
    """The URL of an NBD server with this image: `tenon image serve`."""
    path = tenon.directory / 'nbd.sock'
    with subprocess.Popen([tenon.path, 'image', 'serve', '--socket', path, *words, image],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(path.exists, 30, 'the NBD server')
            yield 'nbd+unix:///?socket=%s' % path
        finally:
            server.terminate()
            server.wait(30)


@needs_seabios
@pytest.mark.parametrize('bus', ['virtio', 'ahci'])
def test_a_disk_over_http(tenon, tmp_path, web, bus):
    boot_sector(tmp_path, exit_with(7))
    result = tenon.run(*BOOT, '--disk', 'path=%sboot.img,readonly,bus=%s' % (web, bus), '--json',
                       timeout=300)
    assert '"status": 7' in result.stdout, result.stderr
    assert web + 'boot.img' in result.stderr  # the report of the start


@needs_seabios
def test_a_disc_over_http(tenon, tmp_path, web):
    if not shutil.which('xorriso'):
        pytest.skip('xorriso is missing')
    (tmp_path / 'root').mkdir()
    (tmp_path / 'root/boot.bin').write_bytes(exit_with(5).ljust(2048, b'\0'))
    subprocess.run(['xorriso', '-as', 'mkisofs', '-quiet', '-o', tmp_path / 'disc.iso', '-b',
                    'boot.bin', '-no-emul-boot', '-boot-load-size', '4', tmp_path / 'root'],
                   check=True, capture_output=True)
    result = tenon.run(*BOOT, '--disk', tenon.disk(), '--boot', 'cdrom', '--cdrom',
                       web + 'disc.iso', '--json', timeout=300)
    assert '"status": 5' in result.stdout, result.stderr


@needs_seabios
@pytest.mark.parametrize('form', ['raw', 'qcow2'])
def test_a_guest_writes_over_nbd(tenon, tmp_path, form):
    raw = boot_sector(tmp_path, WRITES)
    image = tmp_path / ('served.' + form)
    subprocess.run([tenon.path, 'image', 'convert', '-O', form, raw, image], check=True,
                   stdout=subprocess.DEVNULL)
    # The server has the file; what format it has is for the VM's side to find out.
    with nbd(tenon, image, '--format', 'raw') as url:
        words = '%s,format=%s' % (url, form)
        result = tenon.run(*BOOT, '--disk', words, timeout=300)
        assert result.returncode == 0, result.stderr
    subprocess.run([tenon.path, 'image', 'convert', '-f', form, '-O', 'raw', image, tmp_path / 'out'],
                   check=True, stdout=subprocess.DEVNULL)
    before, after = raw.read_bytes(), (tmp_path / 'out').read_bytes()
    assert after[1024:1536] == before[:512] and after[:1024] == before[:1024]
    assert after[1536:] == before[1536:]


@needs_seabios
@pytest.mark.parametrize('form', ['raw', 'qcow2'])
def test_an_image_by_url_stays_as_it_was(tenon, home, web, form):  # noqa: F811
    """`tenon run URL`: what the guest writes goes to an overlay that is dropped."""
    raw = boot_sector(home, WRITES)
    image = home / ('my disk.' + form)
    subprocess.run([tenon.path, 'image', 'convert', '-O', form, raw, image], check=True,
                   stdout=subprocess.DEVNULL)
    before = image.read_bytes()
    result = tenon.run('run', web + 'my%20disk.' + form, '--accel', 'soft', '--debug-exit',
                       timeout=300)
    assert result.returncode == 0, result.stderr
    assert image.read_bytes() == before and left_in_cache(home) == []
    for words in ("VM 'my-20disk'", 'firmware: bios', web, 'changes are dropped', 'user NAT'):
        assert words in result.stderr, result.stderr
    # A server that nobody can write to.
    result = tenon.run('run', web + 'my%20disk.' + form, '--write', '--accel', 'soft')
    assert result.returncode and 'readonly' in result.stderr, result.stderr


def test_a_remote_image_names_no_file_of_ours(tenon, home, web):  # noqa: F811
    tenon.disk('secret.img')
    subprocess.run([tenon.path, 'image', 'create', '-f', 'qcow2', '-F', 'raw', '-b',
                    home / 'secret.img', home / 'evil.qcow2'], check=True, stdout=subprocess.DEVNULL)
    url = web + 'evil.qcow2'
    for words in ((url,), ('--firmware', 'bios', '--disk', url + ',readonly')):
        result = tenon.run('run', '--accel', 'soft', *words)
        assert result.returncode == 1 and 'secret.img' in result.stderr, result.stderr
        assert 'only whole images' in result.stderr


def test_what_cannot_be_opened(tenon, tmp_path, web):
    tenon.disk('d.img')
    for words, status, part in ((web + 'gone.img,readonly', 1, '404'),
                                (web + 'd.img', None, 'readonly'),
                                ('http://127.0.0.1:1/x,readonly', 1, '127.0.0.1'),
                                ('nbd+unix:///?socket=%s/none' % tmp_path, 1, 'none')):
        result = tenon.run(*BOOT, '--disk', words)
        assert result.returncode and (status is None or result.returncode == status), result.stderr
        assert re.fullmatch(r"tenon: disk 'd0': [^\n]+\n", result.stderr), result.stderr
        assert part in result.stderr, result.stderr


@needs_seabios
def test_nothing_is_left_after_a_kill(tenon, tmp_path, web):
    boot_sector(tmp_path, b'\xfa\xf4\xeb\xfd')
    for name in ('tenon', 'tenon-vmm'):
        process = tenon.start(*BOOT, '--disk', web + 'boot.img,readonly', '--disk',
                              web + 'boot.img,readonly')
        victim = tenon.find('tenon-vmm')
        os.kill(process.pid if name == 'tenon' else victim, 9)
        process.wait(60)
        tenon.expect_nothing_left(10)
