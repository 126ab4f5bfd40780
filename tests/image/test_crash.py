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
