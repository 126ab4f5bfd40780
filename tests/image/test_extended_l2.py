"""
qcow2 with extended L2 entries (subclusters), in both directions with QEMU.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import random

import pytest

MIB = 1 << 20


@pytest.mark.parametrize('cluster', ['16k', '64k', '2M'])
@pytest.mark.parametrize('compressed', [False, True])
def test_both_ways(images, cluster, compressed):
    images.mixed('a.raw', 12 * MIB)
    images.mixed('b.raw', 12 * MIB, seed=2)
    for maker in (images.tenon, images.qemu):
        maker('convert', *(['-c'] if compressed else []), '-f', 'raw', '-O', 'qcow2',
              '-o', 'extended_l2=on,cluster_size=' + cluster, 'a.raw', 'a.qcow2')
        images.sound('a.qcow2')
        images.same('a.raw', 'a.qcow2')
        other = images.qemu if maker == images.tenon else images.tenon
        other('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'b.raw', 'a.qcow2')
        images.sound('a.qcow2')
        images.same('b.raw', 'a.qcow2')
        images.tenon('snapshot', '-c', 's', 'a.qcow2')
        other('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2')
        images.sound('a.qcow2')
        images.tenon('snapshot', '-a', 's', 'a.qcow2')
        images.same('b.raw', 'a.qcow2')
        images.sound('a.qcow2')
        images.path('a.qcow2').unlink()


def test_pieces_in_turn(images):
    """Small writes, zeros and discards over a backing file, by either program in turn."""
    draw = random.Random(3)
    images.mixed('base.raw', 8 * MIB)
    images.tenon('create', '-f', 'qcow2', '-o', 'extended_l2=on', '-b', 'base.raw', '-F', 'raw', 'a.qcow2')
    images.qemu('convert', '-f', 'raw', '-O', 'raw', 'base.raw', 'model.raw')
    for turn in range(12):
        at = draw.randrange(0, 8 * MIB - 200000) & ~511
        if turn % 2:
            # Both get the same words: QEMU writes the image, and a plain copy.
            length = draw.randrange(512, 150000) & ~511
            words = draw.choice(['write -P %d %d %d' % (turn + 1, at, length), 'write -z %d %d' % (at, length),
                                 'write -z -u %d %d' % (at, length)])
            images.io('a.qcow2', words)
            images.call('qemu-io', '-f', 'raw', '-c', words, 'model.raw')
        else:
            for name, form in (('a.qcow2', 'qcow2'), ('model.raw', 'raw')):
                images.tenon('bench', '-q', '-w', '-f', form, '-c', '9', '-d', '1', '-s', '3072', '-S', '20480',
                             '--pattern', str(turn + 1), '-o', str(at), name)
        images.sound('a.qcow2')
        images.same('model.raw', 'a.qcow2')
    # A write of 3 KiB takes a subcluster or two, not a cluster.
    images.tenon('create', '-f', 'qcow2', '-o', 'extended_l2=on', '-b', 'base.raw', '-F', 'raw', 'b.qcow2')
    images.io('b.qcow2', 'write -P 1 100k 4k')
    extents = images.qemu('map', '--output=json', 'b.qcow2').stdout
    images.tenon('create', '-f', 'qcow2', '-o', 'extended_l2=on', '-b', 'base.raw', '-F', 'raw', 'c.qcow2')
    images.tenon('bench', '-q', '-w', '-f', 'qcow2', '-c', '1', '-d', '1', '-s', '4096', '-o', '102400', 'c.qcow2')
    assert images.qemu('map', '--output=json', 'c.qcow2').stdout == extents


def test_overlays_have_them(images):
    """Unless somebody chooses a layout, or calls the program qemu-img."""
    def extended(*options, program=images.tenon):
        program('create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', *options, 'over.qcow2')
        told = images.qemu('info', '--output=json', 'over.qcow2').stdout
        images.sound('over.qcow2')
        images.same('base.raw', 'over.qcow2')
        images.path('over.qcow2').unlink()
        return json.loads(told)['format-specific']['data']['extended-l2']

    def as_qemu_img(*words):
        images.path('qemu-img').symlink_to(images.tenon_program())
        images.call(images.path('qemu-img'), *words)
    images.mixed('base.raw', MIB)
    assert extended()
    assert not extended('-o', 'cluster_size=64k') and not extended('-o', 'extended_l2=off')
    assert not extended(program=as_qemu_img)
    images.tenon('create', '-f', 'qcow2', 'alone.qcow2', '1M')
    assert not images.info('alone.qcow2')['format-specific']['data']['extended-l2']
