"""
A real Ceph of one node, on loopback and in memory: what Tenon writes to RBD its own tools read, and the reverse.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import random
import shutil
import socket
import subprocess
import time
import uuid

import pytest

from conftest import BUILD

pytestmark = pytest.mark.soak
CONFIG = '''[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port}/0]
auth cluster required = none
auth service required = none
auth client required = none
public network = 127.0.0.0/8
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail warn = 1
mon data avail crit = 0
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
run dir = {folder}
admin socket =
log file =
'''


class Folder:
    """Programs that run in a folder."""

    def __init__(self, path):
        self.path = path

    def call(self, *words, status=0):
        done = subprocess.run([str(word) for word in words], cwd=self.path, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def image(self, *words):
        return self.call(BUILD / 'src/cmd/tenon', 'image', *words)


@pytest.fixture
def ceph(tmp_path):
    """A folder, and the configuration of a cluster that has the pool rbd."""
    for program in ('ceph-mon', 'ceph-osd', 'ceph', 'rbd', 'monmaptool'):
        if not shutil.which(program):
            pytest.skip('%s is missing (packages ceph-mon, ceph-osd, ceph-common)' % program)
    at = Folder(tmp_path)
    folder, fsid, disk = tmp_path / 'ceph', str(uuid.uuid4()), str(uuid.uuid4())
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    for name in ('mon', 'osd'):
        (folder / name).mkdir(parents=True)
    config = folder / 'ceph.conf'
    config.write_text(CONFIG.format(fsid=fsid, port=port, folder=folder))
    os.environ['CEPH_CONF'] = str(config)
    daemons = []

    def start(*words):
        daemons.append(subprocess.Popen([*words, '-f'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL))

    try:
        at.call('monmaptool', '--create', '--fsid', fsid, '--addv', 'a', '[v2:127.0.0.1:%d/0]' % port, folder / 'map')
        at.call('ceph-mon', '--mkfs', '-i', 'a', '--monmap', folder / 'map')
        start('ceph-mon', '-i', 'a')
        number = at.call('ceph', 'osd', 'new', disk).strip()
        at.call('ceph-osd', '-i', number, '--mkfs', '--osd-uuid', disk)
        at.call('ceph', 'osd', 'crush', 'add', 'osd.' + number, '1.0', 'root=default', 'host=here')
        start('ceph-osd', '-i', number)
        end = time.monotonic() + 60
        while ' 1 up' not in at.call('ceph', 'osd', 'stat') and time.monotonic() < end:
            time.sleep(0.5)
        at.call('ceph', 'osd', 'pool', 'create', 'rbd', '8')
        yield at, config
    finally:
        for daemon in daemons:
            daemon.kill()
            daemon.wait(30)
        del os.environ['CEPH_CONF']


def test_both_ways(ceph):
    at, config = ceph
    draw = random.Random(1)
    with open(at.path / 'a.raw', 'wb') as file:  # noise with holes
        for megabyte in range(0, 16, 3):
            file.seek(megabyte << 20)
            file.write(draw.randbytes(1 << 20))
        file.truncate(16 << 20)
    at.call('rbd', 'create', '--size', '16M', 'rbd/one')
    name = 'rbd:rbd/one:conf=%s' % config
    at.image('convert', '-n', '-f', 'raw', '-O', 'raw', 'a.raw', name)
    at.call('rbd', 'export', '--no-progress', 'rbd/one', 'theirs.raw')
    at.call('cmp', 'a.raw', 'theirs.raw')
    at.image('compare', '-f', 'raw', '-F', 'raw', 'a.raw', name)
    assert json.loads(at.image('info', '--output=json', name))['virtual-size'] == 16 << 20
    at.call('rbd', 'snap', 'create', '--no-progress', 'rbd/one@then')
    at.image('bench', '-w', '-q', '-f', 'raw', '-c', '64', '-s', '4096', '-S', '65536', '--pattern', '7', name)
    at.image('convert', '-f', 'raw', '-O', 'qcow2', name.replace('one', 'one@then', 1), 'then.qcow2')
    at.call('qemu-img', 'compare', 'a.raw', 'then.qcow2')
    at.call('rbd', 'export', '--no-progress', 'rbd/one', 'now.raw')
    at.image('compare', '-f', 'raw', '-F', 'raw', 'now.raw', name)
    at.call('cmp', 'a.raw', 'now.raw', status=1)
