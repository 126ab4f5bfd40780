"""
qcow2: what Tenon writes QEMU reads, and the reverse; backing, snapshots, repair, growth.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import random

import pytest

OPTIONS = ['compat=0.10', 'compat=1.1', 'cluster_size=512', 'cluster_size=4k', 'cluster_size=2M',
           'refcount_bits=1', 'refcount_bits=2', 'refcount_bits=4', 'refcount_bits=8', 'refcount_bits=32',
           'refcount_bits=64', 'lazy_refcounts=on', 'compression_type=zstd',
           'cluster_size=1k,refcount_bits=64']


@pytest.mark.parametrize('options', OPTIONS)
def test_written_here(images, options):
    images.mixed('a.raw')
    for letters in ([], ['-c']):
        images.tenon('convert', '-f', 'raw', '-O', 'qcow2', *letters, '-o', options, '--force',
                     'a.raw', 'a.qcow2')
        images.sound('a.qcow2')
        images.same('a.raw', 'a.qcow2')


@pytest.mark.parametrize('options', OPTIONS + ['preallocation=metadata', 'preallocation=falloc'])
def test_written_by_qemu(images, options):
    images.mixed('a.raw')
    for letters in ([], ['-c']):
        if letters and 'preallocation' in options:
            continue
        images.qemu('convert', '-f', 'raw', '-O', 'qcow2', *letters, '-o', options, 'a.raw', 'a.qcow2')
        images.sound('a.qcow2')
        images.same('a.raw', 'a.qcow2')
        images.tenon('convert', '--force', 'a.qcow2', 'b.raw')
        assert images.path('a.raw').read_bytes() == images.path('b.raw').read_bytes()


@pytest.mark.parametrize('options', OPTIONS)
def test_created_here_filled_by_qemu(images, options):
    images.tenon('create', '-q', '-f', 'qcow2', '-o', options, 'a.qcow2', '40M')
    images.sound('a.qcow2')
    images.io('a.qcow2', 'write -P 1 0 1M', 'write -P 2 33333 4444', 'write -P 3 39M 1M',
              'write -z 100k 60k', 'discard 0 64k')
    images.sound('a.qcow2')
    images.tenon('convert', 'a.qcow2', 'a.raw')
    images.same('a.raw', 'a.qcow2')


def test_dirty_until_repaired(images):
    """A repair of leaks alone, which finds worse, does not call the image clean."""
    images.tenon('create', '-f', 'qcow2', '-o', 'lazy_refcounts=on', 'a.qcow2', '16M')
    images.io('a.qcow2', 'write -P 1 0 1M')
    data = bytearray(images.path('a.qcow2').read_bytes())
    data[79] |= 1
    block = int.from_bytes(data[(at := int.from_bytes(data[48:56], 'big')):at + 8], 'big')
    data[block + 10:block + 12] = bytes(2)  # the count of a cluster with data
    images.path('a.qcow2').write_bytes(data)
    assert 'repair=all' in images.tenon('check', '--repair', 'a.qcow2', status=1).stderr
    assert images.info('a.qcow2')['dirty-flag']
    images.tenon('check', '--repair=all', 'a.qcow2')
    assert not images.info('a.qcow2')['dirty-flag']
    images.sound('a.qcow2')


def test_lazy_counts_amended(images):
    """Set and taken away between writes; either program finds counts that are right whenever it is closed."""
    images.tenon('create', '-f', 'qcow2', 'a.qcow2', '16M')
    for turn, lazy in enumerate(('on', 'off', 'on', 'off')):
        images.tenon('amend', '-f', 'qcow2', '-o', 'lazy_refcounts=' + lazy, 'a.qcow2')
        assert images.info('a.qcow2')['format-specific']['data']['lazy-refcounts'] == (lazy == 'on')
        images.tenon('bench', '-w', '-q', '-f', 'qcow2', '-c', '30', '-s', '4096', '-S', '69632', '-o', str(turn << 21),
                     '--flush-interval', '7', '-d', '1', 'a.qcow2')
        images.tenon('snapshot', '-c', 's%d' % turn, 'a.qcow2')
        images.sound('a.qcow2')
    images.tenon('snapshot', '-a', 's1', 'a.qcow2')
    images.tenon('snapshot', '-d', 's2', 'a.qcow2')
    images.sound('a.qcow2')


@pytest.mark.parametrize('how', ['metadata', 'falloc', 'full'])
def test_preallocation(images, how):
    """Every cluster has a place that reads as zeros; the file has as much room as QEMU's."""
    for name, make in (('ours.qcow2', images.tenon), ('theirs.qcow2', images.qemu)):
        make('create', '-q', '-f', 'qcow2', '-o', 'preallocation=' + how, name, '40M')
        images.sound(name)
    extents = json.loads(images.qemu('map', '--output=json', 'ours.qcow2').stdout)
    assert all(extent['present'] for extent in extents) and sum(extent['length'] for extent in extents) == 40 << 20
    ours, theirs = (images.path(name).stat().st_blocks * 512 for name in ('ours.qcow2', 'theirs.qcow2'))
    assert abs(ours - theirs) < 1 << 20, (ours, theirs)
    images.io('ours.qcow2', 'read -P 0 0 40M', 'write -P 7 3M 5M')
    images.sound('ours.qcow2')
    images.mixed('a.raw', 40 << 20)
    images.tenon('convert', '-f', 'raw', '-O', 'qcow2', '-o', 'preallocation=' + how, 'a.raw', 'a.qcow2')
    images.sound('a.qcow2')
    images.same('a.raw', 'a.qcow2')


def test_preallocation_with_a_data_file(images):
    images.tenon('create', '-q', '-f', 'qcow2', '-o', 'preallocation=falloc,data_file=d.raw,data_file_raw=on', 'a.qcow2',
                 '10000000')
    images.sound('a.qcow2')
    assert images.path('d.raw').stat().st_size == 10000384
    assert images.path('d.raw').stat().st_blocks * 512 >= 10000000
    for other in ('encrypt.format=luks,encrypt.key-secret=s', 'extended_l2=on'):
        assert 'neither' in images.tenon('create', '--object', 'secret,id=s,data=x', '-f', 'qcow2', '-o',
                                         'preallocation=full,' + other, 'b.qcow2', '1M', status=2).stderr
        assert not images.path('b.qcow2').exists()


@pytest.mark.parametrize('options', ['cluster_size=64k', 'cluster_size=4k', 'compat=0.10', 'extended_l2=on',
                                     'data_file=d.raw,data_file_raw=on'])
def test_shrink(images, options):
    """What is cut off is gone, with its clusters, and does not come back."""
    images.tenon('create', '-q', '-f', 'qcow2', '-o', options, 'a.qcow2', '40M')
    images.io('a.qcow2', 'write -P 1 0 1M', 'write -P 2 9M 2M', 'write -P 3 30M 10M')
    assert '--shrink' in images.tenon('resize', 'a.qcow2', '10M', status=2).stderr
    images.tenon('resize', '--shrink', 'a.qcow2', str((10 << 20) + 5120))
    images.sound('a.qcow2')
    images.io('a.qcow2', 'read -P 1 0 1M', 'read -P 2 9M 1M', 'read -P 2 10M 5k')
    held = images.path('d.raw' if 'data_file' in options else 'a.qcow2').stat().st_blocks * 512
    assert held < 5 << 20, held
    images.tenon('resize', 'a.qcow2', '40M')
    images.sound('a.qcow2')
    images.io('a.qcow2', 'read -P 2 10M 5k', 'read -P 0 %d %d' % ((10 << 20) + 5120, (30 << 20) - 5120))


def test_shrink_over_a_backing_file(images):
    images.qemu('create', '-q', '-f', 'qcow2', 'base.qcow2', '40M')
    images.io('base.qcow2', 'write -P 9 0 40M')
    images.qemu('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'a.qcow2')
    images.qemu('snapshot', '-c', 'kept', 'a.qcow2')
    images.io('a.qcow2', 'write -P 2 9M 2M')
    images.tenon('resize', '--shrink', 'a.qcow2', '10M')
    images.sound('a.qcow2')
    images.tenon('resize', 'a.qcow2', '20M')
    images.sound('a.qcow2')
    images.io('a.qcow2', 'read -P 9 0 9M', 'read -P 2 9M 1M', 'read -P 0 10M 10M')


def test_size_without_multiple(images):
    images.path('odd.raw').write_bytes(random.Random(7).randbytes(1000003))
    images.tenon('convert', '-f', 'raw', '-O', 'qcow2', 'odd.raw', 'odd.qcow2')
    images.sound('odd.qcow2')
    images.same('odd.raw', 'odd.qcow2')
    assert images.info('odd.qcow2')['virtual-size'] == 1000448


def test_info_says_what_qemu_says(images):
    images.qemu('create', '-f', 'qcow2', 'base.qcow2', '10M')
    images.qemu('create', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'a.qcow2')
    images.qemu('snapshot', '-c', 'first', 'a.qcow2')
    theirs = json.loads(images.qemu('info', '--output=json', 'a.qcow2').stdout)
    ours = images.info('a.qcow2')
    for key in ('virtual-size', 'format', 'cluster-size', 'dirty-flag', 'backing-filename',
                'backing-filename-format', 'format-specific', 'filename'):
        assert ours[key] == theirs[key], key
    assert ours['snapshots'][0]['name'] == 'first' and ours['snapshots'][0]['id'] == '1'


def test_backing_chain(images):
    images.mixed('base.raw', seed=3)
    images.qemu('create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'mid.qcow2', '12M')
    images.io('mid.qcow2', 'write -P 7 1M 300k', 'write -z 3M 1M', 'write -P 8 11M 64k')
    images.tenon('create', '-f', 'qcow2', '-b', 'mid.qcow2', '-F', 'qcow2', 'top.qcow2')
    images.io('top.qcow2', 'write -P 9 1100k 3k')
    for name in ('mid.qcow2', 'top.qcow2'):
        images.sound(name)
        images.tenon('convert', '--force', name, 'flat.raw')
        images.same(name, 'flat.raw')
    images.io('top.qcow2', 'read -P 9 1100k 3k', 'read -P 7 1M 76k', 'read -P 0 3M 1M')
    ours = json.loads(images.tenon('map', '--output=json', 'top.qcow2').stdout)
    theirs = json.loads(images.qemu('map', '--output=json', 'top.qcow2').stdout)
    def spread(extents):
        """Where the data is and how deep, apart from how runs are cut."""
        return [(e['start'] + i, e['depth']) for e in extents if e['data'] and not e['zero']
                for i in range(0, e['length'], 4096)]
    assert spread(ours) == spread(theirs)


def test_write_into_existing(images):
    """Copy on write over a backing file, by -n: all kinds of clusters are overwritten."""
    images.mixed('base.raw', seed=5)
    images.mixed('new.raw', seed=6)
    images.tenon('create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'a.qcow2')
    images.tenon('convert', '-f', 'raw', '-n', '-O', 'qcow2', 'new.raw', 'a.qcow2')
    images.sound('a.qcow2')
    images.same('new.raw', 'a.qcow2')
    images.qemu('convert', '-O', 'qcow2', '-c', 'base.raw', 'c.qcow2')  # over packed clusters
    images.tenon('convert', '-f', 'raw', '-n', '-O', 'qcow2', 'new.raw', 'c.qcow2')
    images.sound('c.qcow2')
    images.same('new.raw', 'c.qcow2')


@pytest.mark.parametrize('compat', ['0.10', '1.1'])
def test_snapshots(images, compat):
    images.tenon('create', '-f', 'qcow2', '-o', 'compat=' + compat, 'a.qcow2', '20M')
    images.io('a.qcow2', 'write -P 1 0 10M')
    images.tenon('snapshot', '-c', 'one', 'a.qcow2')
    images.sound('a.qcow2')
    images.io('a.qcow2', 'write -P 2 5M 10M')
    images.tenon('snapshot', '-c', 'two', 'a.qcow2')
    images.io('a.qcow2', 'write -P 3 0 20M')
    images.sound('a.qcow2')
    listing = images.tenon('snapshot', '-l', 'a.qcow2').stdout
    assert 'one' in listing and 'two' in listing
    assert 'two' in images.qemu('snapshot', '-l', 'a.qcow2').stdout
    images.tenon('snapshot', '-a', 'one', 'a.qcow2')
    images.sound('a.qcow2')
    images.io('a.qcow2', 'read -P 1 0 10M', 'read -P 0 10M 10M')
    images.qemu('snapshot', '-a', 'two', 'a.qcow2')
    images.sound('a.qcow2')
    images.io('a.qcow2', 'read -P 1 0 5M', 'read -P 2 5M 10M', 'read -P 0 15M 5M')
    images.tenon('snapshot', '-d', 'one', 'a.qcow2')
    images.sound('a.qcow2')
    images.tenon('snapshot', '-d', '2', 'a.qcow2')
    images.sound('a.qcow2')
    images.io('a.qcow2', 'read -P 1 0 5M', 'read -P 2 5M 10M', 'read -P 0 15M 5M',
              'write -P 4 0 20M', 'read -P 4 0 20M')
    images.sound('a.qcow2')
    assert not images.tenon('snapshot', '-l', 'a.qcow2').stdout


def test_resize(images):
    images.tenon('create', '-f', 'qcow2', '-o', 'cluster_size=4k', 'a.qcow2', '3M')
    images.io('a.qcow2', 'write -P 1 0 3M')
    images.tenon('resize', 'a.qcow2', '+200M')
    images.sound('a.qcow2')
    assert images.info('a.qcow2')['virtual-size'] == 203 << 20
    images.io('a.qcow2', 'read -P 1 0 3M', 'read -P 0 3M 10M', 'write -P 2 202M 1M')
    images.sound('a.qcow2')
    images.tenon('resize', 'a.qcow2', '1M', status=2)
    assert images.info('a.qcow2')['virtual-size'] == 203 << 20


def test_resize_does_not_show_the_backing(images):
    images.path('base.raw').write_bytes(b'x' * (4 << 20))
    images.qemu('create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'a.qcow2', '1M')
    images.tenon('resize', 'a.qcow2', '4M')
    images.sound('a.qcow2')
    images.io('a.qcow2', 'read -P 120 0 1M', 'read -P 0 1M 3M')


def test_leaks_are_freed(images):
    images.qemu('create', '-f', 'qcow2', 'a.qcow2', '10M')
    images.io('a.qcow2', 'write -P 1 0 1M')
    data = bytearray(images.path('a.qcow2').read_bytes())
    l1 = int.from_bytes(data[40:48], 'big')
    l2 = int.from_bytes(data[l1:l1 + 8], 'big') & 0x00fffffffffffe00
    data[l2:l2 + 16] = bytes(16)  # two clusters lose their entries
    images.path('a.qcow2').write_bytes(data)
    found = images.tenon('check', 'a.qcow2', status=3)
    assert '2 leaked clusters' in found.stdout
    assert images.qemu('check', 'a.qcow2', status=3)
    assert 'Repaired: 2 leaked' in images.tenon('check', '--repair', 'a.qcow2').stdout
    images.sound('a.qcow2')


def test_corruption_is_found_and_repaired(images):
    images.qemu('create', '-f', 'qcow2', 'a.qcow2', '10M')
    images.io('a.qcow2', 'write -P 1 0 1M')
    data = bytearray(images.path('a.qcow2').read_bytes())
    table = int.from_bytes(data[48:56], 'big')
    block = int.from_bytes(data[table:table + 8], 'big')
    data[block + 12:block + 14] = b'\0\0'  # a cluster in use counts as free
    images.path('a.qcow2').write_bytes(data)
    images.tenon('check', 'a.qcow2', status=2)
    images.tenon('check', '--repair', 'a.qcow2', status=1)  # leaks only: refuses
    images.tenon('check', '--repair=all', 'a.qcow2')
    images.sound('a.qcow2')
    images.io('a.qcow2', 'read -P 1 0 1M')


def test_dirty_image_is_repaired_before_writing(images):
    """As a killed QEMU with lazy reference counts leaves it."""
    images.qemu('create', '-f', 'qcow2', '-o', 'lazy_refcounts=on', 'a.qcow2', '10M')
    images.call('qemu-io', '-c', 'write -P 1 0 1M', '-c', 'flush', '-c', 'abort', 'a.qcow2', status=None)
    assert images.info('a.qcow2')['dirty-flag'] is True
    images.tenon('create', 'n.raw', '10M')
    images.io('n.raw', 'write -P 5 2M 1M')
    images.tenon('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'n.raw', 'a.qcow2')
    assert images.info('a.qcow2')['dirty-flag'] is False
    images.sound('a.qcow2')
    images.same('n.raw', 'a.qcow2')
