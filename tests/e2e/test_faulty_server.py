"""
Disks of a VM on an NBD server that fails, is slow or full: nbdkit's filters, mounted as files by nbdfuse.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import os
import shutil
import subprocess

import pytest

from conftest import read_until, wait_for
from test_disks import TIMEOUT, boot_args, fio_disk  # noqa: F401
from test_live import control

# They take half a minute, and a mount of FUSE that hangs hangs more than a test.
pytestmark = pytest.mark.soak


@contextlib.contextmanager
def mounted(tenon, *server):
    """The path of a file that is an nbdkit server's disk."""
    for program in ('nbdkit', 'nbdfuse'):
        if not shutil.which(program):
            pytest.skip('%s is missing (packages nbdkit, libnbd-bin)' % program)
    if os.geteuid() or not os.access('/dev/fuse', os.R_OK | os.W_OK):
        pytest.skip('mounting by FUSE needs root and /dev/fuse')
    place = tenon.directory / 'server'
    place.mkdir()
    path = place / 'disk.img'
    process = subprocess.Popen(['nbdfuse', path, '[', 'nbdkit', *server, ']'], cwd=tenon.directory,
                               stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: path.exists() or process.poll() is not None, 60, 'the mount')
        assert process.poll() is None
        yield path
    finally:
        # The kernel closes an io_uring's files some time after its process has ended, and a VM of
        # a test that failed still runs: a mount that is busy leaves when it is not.
        subprocess.run(['umount', '--lazy', place], stderr=subprocess.DEVNULL)
        process.terminate()
        process.wait(30)


def test_errors_stop_the_vm_until_the_server_is_well(tenon, demo_guest, fio_disk):  # noqa: F811
    tenon.disk('store.img', 1 << 20)
    ill = tenon.directory / 'ill'
    with mounted(tenon, '--filter=error', 'file', 'store.img', 'error-pread=EIO', 'error-pread-rate=100%',
                 'error-pread-file=%s' % ill) as path:
        process = tenon.start(*boot_args(demo_guest, fio_disk, 'lab.await=vdb'), '--qmp', 'qmp.sock',
                              '--disk', 'path=%s,id=far,cache=none,on-error=stop' % path)
        read_until(process, 'guest: reads vdb', TIMEOUT)
        qmp = control(tenon)
        ill.touch()
        data = qmp.event('BLOCK_IO_ERROR')['data']
        assert (data['device'], data['operation'], data['action']) == ('far', 'read', 'stop')
        assert qmp.command('query-status')['status'] == 'io-error'
        ill.unlink()
        with open(path, 'r+b') as file:
            file.write(b'Z')
        qmp.command('cont')
        assert 'cannot' not in read_until(process, 'vdb begins with Z', TIMEOUT)
        read_until(process, 'Power down', TIMEOUT)
        assert process.wait(60) == 0
        qmp.close()


def test_a_full_and_slow_server_is_an_error_to_the_guest(tenon, demo_guest, fio_disk):  # noqa: F811
    with mounted(tenon, '--filter=delay', 'full', '1M', 'delay-read=20ms', 'delay-write=100ms') as path:
        process = tenon.start(*boot_args(demo_guest, fio_disk, 'lab.churn=2048:vdb'), '--disk', path)
        text = read_until(process, 'Power down', TIMEOUT)
        assert 'guest: FAILED lab.churn' in text and 'verified' not in text, text[-2000:]
        assert process.wait(60) == 0
