"""
Disks of a VM on an NBD server that fails, is slow or full: nbdkit's filters.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import shutil
import subprocess

import pytest

from conftest import PATIENCE, read_until, wait_for
from test_disks import boot_args, fio_disk  # noqa: F401
from test_live import control


@contextlib.contextmanager
def served(tenon, *words):
    """The URL of an nbdkit server."""
    if not shutil.which('nbdkit'):
        pytest.skip('nbdkit is missing')
    path = tenon.directory / 'nbd.sock'
    with subprocess.Popen(['nbdkit', '-f', '-U', path, *words], cwd=tenon.directory, stdin=subprocess.DEVNULL) as server:
        try:
            wait_for(lambda: path.exists() or server.poll() is not None, 30, 'the NBD server')
            assert server.poll() is None
            yield 'nbd+unix:///?socket=%s' % path
        finally:
            server.terminate()
            server.wait(30)


def test_errors_stop_the_vm_until_the_server_is_well(tenon, demo_guest, fio_disk):  # noqa: F811
    store, ill = tenon.directory / 'store.img', tenon.directory / 'ill'
    tenon.disk('store.img', 1 << 20)
    with served(tenon, '--filter=error', 'file', 'store.img', 'error-pread=EIO', 'error-pread-rate=100%',
                'error-pread-file=%s' % ill) as url:
        process = tenon.start(*boot_args(demo_guest, fio_disk, 'lab.await=vdb'), '--qmp', 'qmp.sock',
                              '--disk', 'path=%s,id=far,on-error=stop' % url)
        read_until(process, 'guest: reads vdb', PATIENCE)
        qmp = control(tenon)
        ill.touch()
        data = qmp.event('BLOCK_IO_ERROR')['data']
        assert (data['device'], data['operation'], data['action']) == ('far', 'read', 'stop')
        assert qmp.command('query-status')['status'] == 'io-error'
        with open(store, 'r+b') as file:
            file.write(b'Z')
        ill.unlink()
        qmp.command('cont')
        assert 'cannot' not in read_until(process, 'vdb begins with Z', PATIENCE)
        read_until(process, 'Power down', PATIENCE)
        assert process.wait(60) == 0
        qmp.close()


def test_a_full_and_slow_server_is_an_error_to_the_guest(tenon, demo_guest, fio_disk):  # noqa: F811
    with served(tenon, '--filter=delay', 'full', '1M', 'delay-read=20ms', 'delay-write=100ms') as url:
        process = tenon.start(*boot_args(demo_guest, fio_disk, 'lab.churn=2048:vdb'), '--disk', url)
        text = read_until(process, 'Power down', PATIENCE)
        assert 'guest: FAILED lab.churn' in text and 'verified' not in text, text[-2000:]
        assert process.wait(60) == 0
