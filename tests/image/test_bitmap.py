"""
Dirty bitmaps in qcow2 images: those that QEMU made record what Tenon writes, and QEMU reads them back.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import shutil
import subprocess
import time

import pytest

from conftest import BUILD

MIB = 1 << 20


def told(images, bitmap, server):
    """The dirty ranges, as an NBD server at nbd.sock tells them."""
    if not shutil.which('nbdinfo') or not shutil.which('qemu-nbd'):
        pytest.skip('nbdinfo (libnbd-bin) or qemu-nbd (qemu-utils) is missing')
    socket = images.path('nbd.sock')
    server = subprocess.Popen(server, cwd=images.directory, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not os.path.exists(socket) and time.monotonic() < end:
            time.sleep(0.02)
        done = images.call('nbdinfo', '--json', '--map=qemu:dirty-bitmap:' + bitmap,
                           'nbd+unix:///?socket=%s' % socket)
    finally:
        server.terminate()
        server.wait()
        socket.unlink(missing_ok=True)
    return [(each['offset'], each['length']) for each in json.loads(done.stdout) if each['type'] & 1]


def dirty(images, name, bitmap):
    """What qemu-nbd tells, and `tenon image serve` the same."""
    qemu = told(images, bitmap, ['qemu-nbd', '-f', 'qcow2', '-r', '-B', bitmap, '-k',
                                 images.path('nbd.sock'), name])
    tenon = told(images, bitmap, [BUILD / 'src/cmd/tenon', 'image', 'serve', '--read-only', '--format',
                                  'qcow2', '--socket', 'nbd.sock', name])
    assert tenon == qemu
    return tenon


@pytest.mark.parametrize('cluster', ['64k', '4k'])
def test_records_for_qemu(images, cluster):
    images.qemu('create', '-f', 'qcow2', '-o', 'cluster_size=' + cluster, 'a.qcow2', '64M')
    images.io('a.qcow2', 'write -P 1 0 1M')
    images.qemu('bitmap', '--add', '-g', '65536', 'a.qcow2', 'b0')
    images.qemu('bitmap', '--add', '--disable', 'a.qcow2', 'still')
    images.tenon('check', 'a.qcow2')
    for megabyte in (3, 40):
        images.tenon('bench', '-w', '-q', '-f', 'qcow2', '-c', '1', '-d', '1', '-s', '4096', '--pattern', '7',
                     '-o', str(megabyte * MIB), 'a.qcow2')
    images.sound('a.qcow2')
    flags = {each['name']: each['flags'] for each in
            json.loads(images.qemu('info', '--output=json', 'a.qcow2').stdout)['format-specific']['data']['bitmaps']}
    assert flags == {'b0': ['auto'], 'still': []}
    assert dirty(images, 'a.qcow2', 'b0') == [(3 * MIB, 65536), (40 * MIB, 65536)]
    assert dirty(images, 'a.qcow2', 'still') == []
    # QEMU goes on with it, and so do we.
    images.io('a.qcow2', 'write -P 2 10M 64k')
    images.sound('a.qcow2')
    assert images.info('a.qcow2')['format-specific']['data']['bitmaps'] == 2
    assert dirty(images, 'a.qcow2', 'b0') == [(3 * MIB, 65536), (10 * MIB, 65536), (40 * MIB, 65536)]


def test_removed_by_qemu(images):
    images.qemu('create', '-f', 'qcow2', 'a.qcow2', '64M')
    images.qemu('bitmap', '--add', 'a.qcow2', 'b0')
    images.tenon('bench', '-w', '-q', '-f', 'qcow2', '-c', '9', '-d', '4', '-s', '4096', 'a.qcow2')
    images.qemu('bitmap', '--remove', 'a.qcow2', 'b0')
    images.sound('a.qcow2')
    images.tenon('resize', 'a.qcow2', '128M')
    images.sound('a.qcow2')
