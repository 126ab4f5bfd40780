"""
tenond: the pool of disk images, and that no name leads out of it.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import subprocess

import pytest

from conftest import HALT


def names(tenond, headers=None):
    return [image['name'] for image in tenond.good('GET', '/v1/images', headers=headers or {}).json['images']]


@pytest.fixture
def info(tenon):
    """What `tenon image info` says of a file."""
    def run(path):
        done = subprocess.run([tenon.path, 'image', 'info', '--json', str(path)], check=True,
                              capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout)
    return run


@pytest.mark.parametrize('format', ['raw', 'qcow2', 'vdi', 'vpc', 'vhdx', 'vmdk'])
def test_life(tenond, info, format):
    """Created, read by another program, listed, deleted."""
    made = tenond.good('POST', '/v1/images', {'name': 'disk.img', 'format': format, 'size': 64 << 20}).json
    there = info(made['path'])
    assert made['format'] == there['format'] == format
    # A VHD has the geometry's size: whole cylinders.
    assert made['size'] == there['virtual-size'] and 64 << 20 <= made['size'] < 65 << 20
    assert made['path'] == str(tenond.state / 'images/disk.img') and made['used_by'] == []
    assert tenond.good('GET', '/v1/images/disk.img').json == made
    refused = tenond.call('POST', '/v1/images', {'name': 'disk.img', 'size': 512})
    assert refused.status == 409 and "there is an image 'disk.img'" in refused.sentence
    tenond.good('DELETE', '/v1/images/disk.img')
    assert tenond.call('GET', '/v1/images/disk.img').status == 404 and names(tenond) == []
    assert tenond.call('DELETE', '/v1/images/disk.img').status == 404


def test_overlay(tenond, info):
    tenond.good('POST', '/v1/images', {'name': 'base', 'size': 8 << 20})
    over = tenond.good('POST', '/v1/images', {'name': 'over', 'format': 'qcow2', 'backing': 'base'}).json
    assert over['backing'] == 'base' and over['size'] == 8 << 20
    told = info(over['path'])
    assert told['backing-filename-format'] == 'raw'
    assert told['format-specific']['data']['extended-l2'] # small writes copy nothing of what is below
    refused = tenond.call('DELETE', '/v1/images/base')
    assert refused.status == 409 and "is below 'over'" in refused.sentence
    tenond.good('DELETE', '/v1/images/over')
    tenond.good('DELETE', '/v1/images/base')


def test_used(tenond, tenon):
    """An image of a VM stays; a token for one VM sees that VM's disks alone, and changes none."""
    path = tenond.good('POST', '/v1/images', {'name': 'mine', 'size': 1 << 20}).json['path']
    tenond.good('POST', '/v1/images', {'name': 'other', 'size': 1 << 20})
    tenond.create('one', tenon.guest('halt', HALT), disks=[{'path': path}])
    assert tenond.good('GET', '/v1/images/mine').json['used_by'] == ['one']
    refused = tenond.call('DELETE', '/v1/images/mine')
    assert refused.status == 409 and "a disk of VM 'one'" in refused.sentence
    scoped = tenond.token('scoped', 'admin', vms=['one'])
    assert names(tenond) == ['mine', 'other'] and names(tenond, scoped) == ['mine']
    assert tenond.call('GET', '/v1/images/other', headers=scoped).status == 404
    assert tenond.call('POST', '/v1/images', {'name': 'x', 'size': 512}, headers=scoped).status == 403
    assert tenond.call('DELETE', '/v1/images/mine', headers=scoped).status == 403
    tenond.good('DELETE', '/v1/vms/one')
    tenond.good('DELETE', '/v1/images/mine')


def test_running(tenond, tenon):
    """What a VM of nobody's daemon has locked is not removed."""
    path = tenond.good('POST', '/v1/images', {'name': 'busy', 'size': 1 << 20}).json['path']
    process = tenon.start('run', '--kernel', tenon.guest('halt', HALT), '--board', 'micro', '--memory', '16M',
                          '--accel', 'soft', '--disk', path)
    tenon.find('tenon-vmm')  # the lock is older than it
    assert tenond.call('DELETE', '/v1/images/busy').status == 409
    process.kill()
    process.wait()


@pytest.mark.parametrize('name', ['..', '.', '.hidden', '-x', 'a/b', '/etc/passwd', 'a' * 200, '', 'a\nb', 'a b'])
def test_names(tenond, name):
    refused = tenond.call('POST', '/v1/images', {'name': name, 'size': 1 << 20})
    assert refused.status == 400
    refused = tenond.call('POST', '/v1/images', {'name': 'x', 'format': 'qcow2', 'backing': name})
    assert refused.status == 400 and names(tenond) == []
    assert os.listdir(tenond.state / 'images') == []


@pytest.mark.parametrize('path', ['..', '.', '%2e%2e', '..%2ftenond.db', '%2fetc%2fpasswd', '.hidden', 'a%00', 'link',
                                  'fifo', 'folder', 'folder/inside', '../tenond.db', 'link/'])
def test_jail(tenond, path):
    """What is no plain file of the pool is not there, whatever it is called."""
    pool = tenond.state / 'images'
    (pool / 'link').symlink_to(tenond.state / 'tenond.db')
    (pool / '.hidden').write_bytes(b'x' * 512)
    (pool / 'folder').mkdir()
    (pool / 'folder/inside').write_bytes(b'x' * 512)
    os.mkfifo(pool / 'fifo')
    for method in ('GET', 'DELETE'):
        assert tenond.raw(method, '/v1/images/' + path).status in (404, 405)
    assert names(tenond) == [] and len(os.listdir(pool)) == 4
    assert (tenond.state / 'tenond.db').exists() and (pool / 'folder/inside').exists()


@pytest.mark.parametrize('content', [b'QFI\xfb' + b'\xff' * 1000, b'QFI\xfb', b'', os.urandom(4096)],
                         ids=['hostile', 'short', 'empty', 'noise'])
def test_images_that_are_none(tenond, content):
    (tenond.state / 'images/x').write_bytes(content)
    image = tenond.good('GET', '/v1/images/x').json
    assert ('problem' in image) != ('format' in image)
    tenond.good('DELETE', '/v1/images/x')


@pytest.mark.parametrize('body, sentence', [
    ({'name': 'x'}, 'needs one'),
    ({'name': 'x', 'size': 0}, 'at least'),
    ({'name': 'x', 'size': -1}, 'at least'),
    ({'name': 'x', 'size': 1 << 62}, 'at most'),
    ({'name': 'x', 'size': '1G'}, 'integer'),
    ({'name': 'x', 'size': 512, 'format': 'luks'}, 'expected one of'),
    ({'name': 'x', 'size': 512, 'path': '/etc/x'}, 'path'),
    ({'name': 'x', 'format': 'raw', 'backing': 'base'}, 'backing'),
    ({'name': 'x', 'format': 'qcow2', 'backing': 'nothing'}, "no image 'nothing'"),
])
def test_wrong_descriptions(tenond, body, sentence):
    tenond.good('POST', '/v1/images', {'name': 'base', 'size': 512})
    refused = tenond.call('POST', '/v1/images', body)
    assert refused.status == 400 and sentence in refused.sentence
    assert os.listdir(tenond.state / 'images') == ['base']
