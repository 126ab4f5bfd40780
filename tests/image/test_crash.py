"""
A writer that is killed at a random moment leaves an image that both programs find sound: leaks at
most, and what was there before is still there.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import random
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TENON = pathlib.Path(os.environ.get('TENON_BUILD') or ROOT / 'build').resolve() / 'src/cmd/tenon'
MIB = 1 << 20


@pytest.mark.parametrize('layout', ['cluster_size=4k', 'cluster_size=64k', 'snapshot', 'compressed'])
def test_killed_writer(images, layout):
    """Overwrites sectors of an image that has old contents: each is old or new afterwards."""
    size = 24 * MIB
    old, new = b'\x11', b'\x22'
    images.path('new.raw').write_bytes(new * size)
    images.path('old.raw').write_bytes(old * size)
    draw = random.Random(layout)
    moments = []
    took = None # a whole conversion, on this machine and today
    for _ in range(13):
        options = layout if '=' in layout else 'cluster_size=4k'
        images.qemu('convert', '-f', 'raw', '-O', 'qcow2', '-o', options,
                    *(['-c'] if layout == 'compressed' else []), 'old.raw', 'a.qcow2')
        if layout == 'snapshot':
            images.qemu('snapshot', '-c', 'kept', 'a.qcow2')
        start = time.monotonic()
        writer = subprocess.Popen([TENON, 'image', 'convert', '-f', 'raw', '-n', '-O', 'qcow2', 'new.raw',
                                   'a.qcow2'], cwd=images.directory, stdin=subprocess.DEVNULL)
        if took:
            time.sleep(draw.uniform(0.1, 0.9) * took)
            writer.kill()
        writer.wait()
        took = took or time.monotonic() - start
        for done in (images.qemu('check', 'a.qcow2', status=None),
                     images.tenon('check', 'a.qcow2', status=None)):
            assert done.returncode in (0, 3), done.stdout + done.stderr
        images.tenon('convert', '--force', 'a.qcow2', 'out.raw')
        data = images.path('out.raw').read_bytes()
        assert data.count(old) + data.count(new) == size
        moments.append(data.count(new))
        if layout == 'snapshot':
            images.qemu('convert', '-l', 'kept', '-O', 'raw', 'a.qcow2', 'kept.raw')
            assert images.path('kept.raw').read_bytes() == old * size
        images.tenon('check', '--repair', 'a.qcow2')
        images.sound('a.qcow2')
    assert any(0 < count < size for count in moments), 'no kill came in the middle: %s' % moments


def test_killed_convert_leaves_nothing(images):
    images.mixed('a.raw', 64 * MIB)
    before = set(os.listdir(images.directory))
    # How long a conversion takes depends on the machine: come earlier until one is hit.
    for delay in (0.1, 0.05, 0.02, 0.01, 0.005):
        writer = subprocess.Popen([TENON, 'image', 'convert', '-f', 'raw', '-c', '-O', 'qcow2',
                                   'a.raw', 'a.qcow2'], cwd=images.directory,
                                  stdin=subprocess.DEVNULL)
        time.sleep(delay)
        writer.kill()
        if writer.wait() == -9:
            break
        (pathlib.Path(images.directory) / 'a.qcow2').unlink()
    else:
        pytest.fail('every conversion ended before it was killed')
    assert set(os.listdir(images.directory)) == before
