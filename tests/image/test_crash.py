"""
A writer that is killed at any of its changes of the file leaves an image that both programs find sound: leaks at
most, and what was there before is still there.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import random

import pytest

from kill import count_changes, kill_within

MIB = 1 << 20


@pytest.mark.parametrize('layout', ['cluster_size=4k', 'cluster_size=64k', 'snapshot', 'compressed'])
def test_killed_writer(images, layout):
    """Overwrites sectors of an image that has old contents: each is old or new afterwards."""
    size = 24 * MIB
    old, new = b'\x11', b'\x22'
    images.path('new.raw').write_bytes(new * size)
    images.path('old.raw').write_bytes(old * size)
    draw = random.Random(layout)
    command = ('convert', '-f', 'raw', '-n', '-O', 'qcow2', 'new.raw', 'a.qcow2')
    changes = None
    for _ in range(13):
        options = layout if '=' in layout else 'cluster_size=4k'
        images.qemu('convert', '-f', 'raw', '-O', 'qcow2', '-o', options,
                    *(['-c'] if layout == 'compressed' else []), 'old.raw', 'a.qcow2')
        if layout == 'snapshot':
            images.qemu('snapshot', '-c', 'kept', 'a.qcow2')
        if not changes:
            changes = count_changes(images, command)
            continue
        kill_within(images, command, draw, changes)
        for done in (images.qemu('check', 'a.qcow2', status=None),
                     images.tenon('check', 'a.qcow2', status=None)):
            assert done.returncode in (0, 3), done.stdout + done.stderr
        images.tenon('convert', '--force', 'a.qcow2', 'out.raw')
        data = images.path('out.raw').read_bytes()
        assert data.count(old) + data.count(new) == size
        if layout == 'snapshot':
            images.qemu('convert', '-l', 'kept', '-O', 'raw', 'a.qcow2', 'kept.raw')
            assert images.path('kept.raw').read_bytes() == old * size
        images.tenon('check', '--repair', 'a.qcow2')
        images.sound('a.qcow2')


def test_killed_with_lazy_counts(images):
    """The image says that its counts are not to be believed, and the next writer of either program counts anew."""
    size = 24 * MIB
    images.path('new.raw').write_bytes(b'\x22' * size)
    draw = random.Random('lazy')
    command = ('convert', '-f', 'raw', '-n', '-O', 'qcow2', 'new.raw', 'a.qcow2')
    changes = None
    for turn in range(6):
        images.tenon('create', '-f', 'qcow2', '-o', 'lazy_refcounts=on,cluster_size=4k', '--force', 'a.qcow2', str(size))
        if not changes:
            changes = count_changes(images, command)
            assert not images.info('a.qcow2')['dirty-flag']
            images.sound('a.qcow2')
            continue
        kill_within(images, command, draw, changes)
        images.tenon('convert', '--force', 'a.qcow2', 'before.raw')
        data = images.path('before.raw').read_bytes()
        assert data.count(0x22) + data.count(0) == size
        if turn % 2:
            images.io('a.qcow2', 'write -P 7 0 512')
        else:
            images.tenon('bench', '-w', '-q', '-f', 'qcow2', '-c', '1', '-d', '1', '-s', '512', '--pattern', '7', 'a.qcow2')
        assert not images.info('a.qcow2')['dirty-flag']
        images.sound('a.qcow2')
        images.tenon('convert', '--force', 'a.qcow2', 'after.raw')
        assert images.path('after.raw').read_bytes() == b'\7' * 512 + data[512:]


def test_killed_convert_leaves_nothing(images):
    images.mixed('a.raw', 64 * MIB)
    command = ('convert', '-f', 'raw', '-c', '-O', 'qcow2', 'a.raw', 'a.qcow2')
    changes = count_changes(images, command)
    images.path('a.qcow2').unlink()
    before = set(os.listdir(images.directory))
    draw = random.Random(1)
    for _ in range(5):
        kill_within(images, command, draw, changes)
        assert set(os.listdir(images.directory)) == before


def test_unsafe_waits_for_no_disk(images):
    """`-t unsafe`: the flushes that were asked for are not made, the writes are."""
    images.tenon('create', '-f', 'raw', 'a.raw', '1M')
    command = ['bench', '-w', '-q', '-f', 'raw', '-c', '9', '-d', '1', '-s', '4096', '--pattern', '7', '--flush-interval', '1']
    assert count_changes(images, [*command, 'a.raw']) == 9 + 9 + 1
    assert count_changes(images, [*command, '-t', 'writeback', 'a.raw']) == 9 + 9 + 1
    images.tenon('create', '--force', '-f', 'raw', 'a.raw', '1M')
    assert count_changes(images, [*command, '-t', 'unsafe', 'a.raw']) == 9
    assert images.path('a.raw').read_bytes() == b'\7' * 36864 + bytes((1 << 20) - 36864)
