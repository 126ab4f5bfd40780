"""
qcow2 with its data in an external file, raw or not, in both directions with QEMU.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import pytest

MIB = 1 << 20


@pytest.mark.parametrize('raw', ['off', 'on'])
@pytest.mark.parametrize('cluster', ['64k', '4k'])
def test_both_ways(images, raw, cluster):
    images.mixed('a.raw', 12 * MIB)
    images.mixed('b.raw', 12 * MIB, seed=2)
    content = images.path('b.raw').read_bytes()
    # QEMU does not create a data file over one that is there in each version alike: a name each.
    for maker, name in ((images.tenon, 'ours'), (images.qemu, 'theirs')):
        options = 'cluster_size=%s,data_file=%s.data,data_file_raw=%s' % (cluster, name, raw)
        maker('convert', '-f', 'raw', '-O', 'qcow2', '-o', options, 'a.raw', name + '.qcow2')
        images.sound(name + '.qcow2')
        images.same('a.raw', name + '.qcow2')
        # Written again by the other: data, zeros and holes.
        other = images.qemu if maker == images.tenon else images.tenon
        other('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'b.raw', name + '.qcow2')
        images.sound(name + '.qcow2')
        images.same('b.raw', name + '.qcow2')
        if raw == 'on':
            assert images.path(name + '.data').read_bytes() == content
        images.tenon('resize', name + '.qcow2', '16M')
        images.sound(name + '.qcow2')
    assert images.info('ours.qcow2')['format-specific']['data']['data-file'] == 'ours.data'


def test_over_a_backing_file(images):
    images.mixed('base.raw', 8 * MIB)
    images.tenon('create', '-f', 'qcow2', '-o', 'data_file=over.data', '-b', 'base.raw', '-F', 'raw', 'over.qcow2')
    images.same('base.raw', 'over.qcow2')
    images.io('over.qcow2', 'write -P 9 1M 300k', 'write -z 3M 64k', 'discard 5M 64k')
    images.io('over.qcow2', 'read -P 9 1M 300k')
    images.qemu('convert', '-O', 'raw', 'over.qcow2', 'a.raw')
    images.same('a.raw', 'over.qcow2')
    images.sound('over.qcow2')


def test_refusals(images):
    """Names that are no plain files are shown, never opened; what cannot be says so."""
    images.tenon('create', '-f', 'qcow2', '-o', 'data_file=d.data', 'a.qcow2', '1M')
    done = images.tenon('snapshot', '-c', 's', 'a.qcow2', status=1)
    assert 'external file has no snapshots' in done.stderr
    path = images.path('a.qcow2')
    good = path.read_bytes()
    for name in (b'/dev/sg', b'json:{}', b'nbd://h'):
        path.write_bytes(good.replace(b'd.data', name[:6].ljust(6, b'\0')))
        done = images.tenon('check', 'a.qcow2', status=None)
        assert done.returncode != 0 and 'data file' in done.stderr, done.stderr
    path.write_bytes(good)
    images.path('d.data').unlink()
    done = images.tenon('convert', '-O', 'raw', 'a.qcow2', 'b.raw', status=1)
    assert 'd.data' in done.stderr
