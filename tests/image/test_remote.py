"""
Images that a server has: NBD (nbdkit, qemu-nbd), HTTP with ranges, iSCSI (tgt). Errors of a server are sentences.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            pytest.skip('%s is missing' % program)


@contextlib.contextmanager
def server(images, *command):
    """A server that is ended by its process id."""
    process = subprocess.Popen([str(word) for word in command], cwd=images.directory, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def appears(images, name, process):
    for _ in range(600):
        if images.path(name).exists():
            return
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.05)
    pytest.fail('no socket %s' % name)


@contextlib.contextmanager
def nbdkit(images, *words):
    need('nbdkit')
    path = images.path('nbd.sock')
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with server(images, 'nbdkit', '-f', '-U', path, *words) as process:
        appears(images, 'nbd.sock', process)
        yield 'nbd+unix:///?socket=%s' % path


def refused(images, *args, text, status=1):
    done = images.tenon(*args, status=status)
    assert text in done.stderr and done.stderr.startswith('tenon: '), done.stderr
    assert done.stderr.count('\n') == 1, done.stderr


def test_nbd_source_and_sink(images):
    images.mixed('a.raw')
    images.path('b.raw').write_bytes(b'\xff' * (8 << 20))
    with nbdkit(images, 'file', 'a.raw') as url:
        images.tenon('convert', url, 'c.raw')
        images.tenon('compare', 'a.raw', url)
        assert images.info(url)['virtual-size'] == 8 << 20
        assert any(run['zero'] for run in json.loads(images.tenon('map', '--json', url).stdout))
    images.same('a.raw', 'c.raw')
    with nbdkit(images, 'file', 'b.raw') as url:
        refused(images, 'convert', 'a.raw', url, text='use -n', status=2)
        images.tenon('convert', '-n', '-f', 'raw', 'a.raw', url)
    images.same('a.raw', 'b.raw')


def test_formats_over_nbd(images):
    """A packed qcow2 whose last cluster ends anywhere."""
    images.mixed('a.raw')
    images.tenon('convert', '-f', 'raw', '-O', 'qcow2', '-c', 'a.raw', 'a.qcow2')
    with nbdkit(images, '-r', 'file', 'a.qcow2') as url:
        images.tenon('compare', '-f', 'qcow2', url, 'a.raw')
        images.tenon('check', url)
        refused(images, 'resize', url, '9M', text='the server lets nobody write', status=3)


def test_nbd_of_qemu(images):
    need('qemu-nbd')
    images.mixed('a.raw')
    images.tenon('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2')
    path = images.path('qemu.sock')
    with server(images, 'qemu-nbd', '-t', '-e', '8', '-f', 'qcow2', '-k', path, '-x', 'disk', 'a.qcow2') as process:
        appears(images, 'qemu.sock', process)
        images.tenon('compare', 'a.raw', 'nbd+unix:///disk?socket=%s' % path)
        images.tenon('compare', 'a.raw', 'nbd:unix:%s:exportname=disk' % path)
        refused(images, 'info', 'nbd+unix:///other?socket=%s' % path, text='cannot connect')
        images.path('ones.raw').write_bytes(b'\1' * (8 << 20))
        images.tenon('convert', '-n', '-f', 'raw', 'ones.raw', 'nbd+unix:///disk?socket=%s' % path)
    images.same('ones.raw', 'a.qcow2')


def test_faulty_nbd_server(images):
    images.mixed('a.raw')
    with nbdkit(images, '--filter=error', 'file', 'a.raw', 'error-pread=EIO', 'error-pread-rate=1',
                'error-pread-file=trigger') as url:
        images.tenon('compare', 'a.raw', url)
        images.path('trigger').touch()
        refused(images, 'convert', '-f', 'raw', url, 'b.raw', text='Input/output error')
    assert not images.path('b.raw').exists()
    with nbdkit(images, '--filter=error', 'memory', '8M', 'error-pwrite=ENOSPC', 'error-pwrite-rate=1') as url:
        refused(images, 'convert', '-n', '-f', 'raw', 'a.raw', url, text='No space left on device')
    with nbdkit(images, '--filter=delay', 'file', 'a.raw', 'delay-read=20ms') as url:
        images.tenon('compare', 'a.raw', url)
    refused(images, 'info', url, text='cannot connect')
    refused(images, 'info', 'nbd://127.0.0.1:1/', text='cannot connect')


def test_nbd_server_that_dies(images):
    images.mixed('a.raw')
    with nbdkit(images, '--filter=exitlast', '--filter=delay', 'file', 'a.raw', 'delay-read=2000ms') as url:
        converting = subprocess.Popen([images.tenon_program(), 'image', 'convert', '-f', 'raw', url, 'b.raw'],
                                      cwd=images.directory, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(0.5)
        # The server ends with the block; its requests are under way for two seconds.
    _, said = converting.communicate(timeout=120)
    assert converting.returncode in (0, 1)
    assert converting.returncode == 0 or (b'cannot' in said and not images.path('b.raw').exists())


class Ranges(http.server.SimpleHTTPRequestHandler):
    """One range of a file, as servers do; `mode` makes it a worse one."""
    protocol_version = 'HTTP/1.1'
    mode = 'good'
    asked = 0

    def do_GET(self):
        type(self).asked += 1
        path = self.translate_path(self.path)
        if self.path == '/moved':
            self.send_response(302)
            self.send_header('Location', '/a.qcow2')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        if not os.path.isfile(path):
            self.send_error(404)
            return
        data = open(path, 'rb').read()
        asked = re.match(r'bytes=(\d+)-(\d+)$', self.headers.get('Range', ''))
        start, end = (int(asked[1]), min(int(asked[2]), len(data) - 1)) if asked else (0, len(data) - 1)
        if self.mode == 'no ranges':
            asked, start, end = None, 0, len(data) - 1
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header('Content-Range', 'bytes %d-%d/%d' % (start, end, len(data)))
        self.send_header('ETag', '"%s"' % ('other' if self.mode == 'changes' and self.asked > 3 else 'one'))
        self.send_header('Content-Length', str(end - start + 1))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(data[start:end + 1 - (100 if self.mode == 'short' and self.asked > 3 else 0)])
        self.close_connection = self.mode == 'short'

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def web(images, mode='good'):
    handler = type('Handler', (Ranges,), {'mode': mode, 'asked': 0})
    serving = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), lambda *args: handler(*args, directory=str(images.directory)))
    serving.daemon_threads = True
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    try:
        yield 'http://127.0.0.1:%d' % serving.server_port, handler
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()


def test_http(images):
    images.mixed('a.raw')
    images.tenon('convert', '-f', 'raw', '-O', 'qcow2', '-c', 'a.raw', 'a.qcow2')
    with web(images) as (url, handler):
        images.tenon('compare', url + '/a.raw', 'a.raw')
        images.tenon('compare', url + '/a.qcow2', 'a.raw')
        assert images.info(url + '/a.qcow2')['format'] == 'qcow2'
        handler.asked = 0
        images.tenon('convert', '-m', '1', url + '/moved', 'b.raw')
        packed = images.path('a.qcow2').stat().st_size
        assert handler.asked < 20 + packed // 65536, 'no read-ahead: %d requests' % handler.asked
        refused(images, 'info', url + '/missing', text='404')
        refused(images, 'resize', url + '/a.qcow2', '9M', text='only read over HTTP', status=3)
    images.same('a.raw', 'b.raw')
    refused(images, 'info', 'http://127.0.0.1:1/x', text='127.0.0.1')


@pytest.mark.parametrize('mode, text', [('no ranges', 'does not serve ranges'), ('changes', 'Stale file handle'),
                                        ('short', 'Input/output error')])
def test_bad_http_server(images, mode, text):
    images.mixed('a.raw')
    with web(images, mode) as (url, _):
        refused(images, 'convert', '-f', 'raw', '-m', '1', url + '/a.raw', 'b.raw', text=text)
    assert not images.path('b.raw').exists()


def free_port():
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def tgt(images, name):
    """A target of our own, on a control channel that nobody else has."""
    need('tgtd', 'tgtadm')
    if os.geteuid():
        pytest.skip('tgtd wants to be root')
    port, control = free_port(), str(os.getpid() % 30000)
    admin = ['tgtadm', '-C', control, '--lld', 'iscsi', '--mode']
    target = 'iqn.2026-01.test:disk'
    with server(images, 'tgtd', '-f', '-C', control, '--iscsi', 'portal=127.0.0.1:%d' % port) as process:
        for _ in range(200):
            if images.call(*admin, 'target', '--op', 'show', status=None).returncode == 0:
                break
            if process.poll() is not None:
                pytest.skip('tgtd does not run here: %s' % process.stderr.read().decode().strip())
            time.sleep(0.05)
        images.call(*admin, 'target', '--op', 'new', '--tid', '1', '-T', target)
        images.call(*admin, 'logicalunit', '--op', 'new', '--tid', '1', '--lun', '1', '-b', images.path(name))
        images.call(*admin, 'target', '--op', 'bind', '--tid', '1', '-I', 'ALL')
        yield 'iscsi://127.0.0.1:%d/%s/' % (port, target)
        images.call(*admin, 'target', '--op', 'delete', '--force', '--tid', '1')
        images.call(*admin, 'system', '--op', 'delete') # ends it; it minds no SIGTERM


def test_iscsi(images):
    images.mixed('a.raw')
    images.tenon('create', '-f', 'qcow2', 'disk.img', '8M')
    with open(images.path('disk.img'), 'r+b') as file:
        file.truncate(16 << 20)
    with tgt(images, 'disk.img') as url:
        images.tenon('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'a.raw', url + '1')
        images.tenon('compare', '-f', 'raw', '-F', 'qcow2', 'a.raw', url + '1')
        refused(images, 'info', url + '7', text='cannot log in')
    images.tenon('compare', '-f', 'raw', '-F', 'qcow2', 'a.raw', 'disk.img')
    refused(images, 'info', 'iscsi://127.0.0.1:1/iqn.x/1', text='cannot log in')
    refused(images, 'info', 'iscsi://nonsense', text='write iscsi://HOST/TARGET/LUN', status=2)


def test_rbd_without_a_cluster(images):
    refused(images, 'info', 'rbd:pool', text='write rbd:POOL/IMAGE', status=2)
    done = images.tenon('info', 'rbd:pool/image:mon_host=127.0.0.1:client_mount_timeout=1:conf=/dev/null', status=1)
    assert 'cannot connect to the cluster' in done.stderr or 'install the package' in done.stderr, done.stderr


def test_names_in_images_reach_no_server(images):
    images.mixed('a.raw')
    with web(images) as (url, handler):
        images.qemu('create', '-f', 'qcow2', '-u', '-b', url + '/a.raw', '-F', 'raw', 'a.qcow2', '8M')
        refused(images, 'convert', '-f', 'qcow2', 'a.qcow2', 'b.raw', text='it is not opened')
        assert handler.asked == 0
