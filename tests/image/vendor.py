"""
What the tests of other vendors' formats have in common.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import random

from kill import count_changes, kill_within
from test_serve import Server

SIZE = 24 << 20


def compare(images, raw, name, image_format):
    """The same bytes, says either program; formats are given, because fixed VHDs look like raw."""
    images.qemu('compare', '-f', 'raw', '-F', image_format, raw, name)
    images.tenon('convert', '--force', '-f', image_format, '-O', 'raw', name, 'compare.raw')
    assert images.path(raw).read_bytes() == images.path('compare.raw').read_bytes()


def sound(images, name, image_format, check):
    """No program that can check it finds anything."""
    images.tenon('check', '-f', image_format, name)
    if check:
        images.qemu('check', '-f', image_format, name)


def both_ways(images, image_format, options, check):
    images.mixed('a.raw', SIZE)
    images.tenon('convert', '-f', 'raw', '-O', image_format, '-o', options, 'a.raw', 'ours.img')
    sound(images, 'ours.img', image_format, check)
    compare(images, 'a.raw', 'ours.img', image_format)
    images.qemu('convert', '-f', 'raw', '-O', image_format, '-o', options, 'a.raw', 'theirs.img')
    sound(images, 'theirs.img', image_format, check)
    compare(images, 'a.raw', 'theirs.img', image_format)


def fill_and_read(images, image_format, options):
    """Created here, written by qemu-io, written again here, read by both."""
    images.tenon('create', '-f', image_format, '-o', options, 'a.img', str(SIZE))
    images.call('qemu-io', '-f', image_format, '-c', 'write -P 1 0 1M', '-c', 'write -P 2 33333 4444',
                '-c', 'write -P 3 23M 1M', '-c', 'write -z 100k 60k', 'a.img')
    images.qemu('convert', '-f', image_format, '-O', 'raw', 'a.img', 'a.raw')
    compare(images, 'a.raw', 'a.img', image_format)
    images.mixed('b.raw', SIZE, seed=2)
    images.tenon('convert', '-n', '-f', 'raw', '-O', image_format, 'b.raw', 'a.img')
    compare(images, 'b.raw', 'a.img', image_format)


def overlay(images, image_format, suffix, qemu_reads):
    """A disk over another; what it does not have is the other's."""
    base, over = 'base' + suffix, 'over' + suffix
    images.mixed('a.raw', SIZE)
    images.tenon('convert', '-f', 'raw', '-O', image_format, 'a.raw', base)
    before = images.path(base).read_bytes()
    images.tenon('create', '-f', image_format, '-b', base, '-F', image_format, over)
    compare_ours(images, 'a.raw', over, image_format)
    if qemu_reads:
        images.qemu('compare', '-f', 'raw', '-F', image_format, 'a.raw', over)
    assert images.path(base).read_bytes() == before
    written_overlay(images, image_format, over)
    assert images.path(base).read_bytes() == before
    if qemu_reads:
        images.qemu('compare', '-f', 'raw', '-F', image_format, 'a.raw', over)
    # What the overlay holds goes into its base, and nothing else changes.
    done = images.tenon('commit', '-q', '-f', image_format, over, status=2)
    assert 'add -d' in done.stderr and images.path(base).read_bytes() == before
    images.tenon('commit', '-q', '-d', '-f', image_format, over)
    images.tenon('check', '-f', image_format, base)
    compare(images, 'a.raw', base, image_format)


def written_overlay(images, image_format, over):
    """Writes of all sizes into the overlay, through a server, and into a.raw."""
    draw = random.Random(image_format)
    work = ['write -P 1 0 512', 'write -P 2 %d 512' % (SIZE - 512), 'write -z 4M 3M', 'write -P 3 5M 1536']
    for i in range(60):
        length = draw.choice([512, 1024, 4096, 33 * 512, 65536, 300 * 512])
        kind = draw.choice(['write -P %d' % (4 + i), 'write -P %d' % (4 + i), 'write -z'])
        work.append('%s %d %d' % (kind, draw.randrange((SIZE - length) // 512) * 512, length))
    server = Server(images, '--format', image_format, over)
    try:
        images.io(server.uri(), *work, 'flush')
    finally:
        assert server.end() == (0, '')
    images.call('qemu-io', '-f', 'raw', *(word for command in work for word in ('-c', command)), 'a.raw')
    images.tenon('check', '-f', image_format, over)
    compare_ours(images, 'a.raw', over, image_format)


def compare_ours(images, raw, name, image_format):
    images.tenon('convert', '--force', '-f', image_format, '-O', 'raw', name, 'compare.raw')
    assert images.path(raw).read_bytes() == images.path('compare.raw').read_bytes()


def killed(images, image_format, check, repair=False):
    """Each sector is old or new after a kill, and nothing is unsound."""
    old, new = b'\x11', b'\x22'
    images.path('old.raw').write_bytes((old * 65536 + bytes(65536)) * (SIZE // 131072))
    images.path('new.raw').write_bytes(new * SIZE)
    draw = random.Random(image_format)
    command = ('convert', '-f', 'raw', '-n', '-O', image_format, 'new.raw', 'a.img')
    changes = None
    for _ in range(13):
        images.tenon('convert', '--force', '-f', 'raw', '-O', image_format, 'old.raw', 'a.img')
        if not changes:
            changes = count_changes(images, command)
            continue
        kill_within(images, command, draw, changes)
        if repair:
            images.tenon('check', '--repair', '-f', image_format, 'a.img')
        sound(images, 'a.img', image_format, check)
        images.tenon('convert', '--force', '-f', image_format, '-O', 'raw', 'a.img', 'out.raw')
        data = images.path('out.raw').read_bytes()
        assert data.count(old) + data.count(new) + data.count(b'\0') == SIZE
        for at in range(0, SIZE, 512):
            sector = data[at:at + 512]
            assert sector == new * 512 or sector == (old if at % 131072 < 65536 else b'\0') * 512
