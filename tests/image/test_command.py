"""
tenon image: usage, safety, and bad input. Every refusal is one sentence and harms nothing.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import random
import struct

import pytest


def refused(images, *args, text, status=1):
    done = images.tenon(*args, status=status)
    assert text in done.stderr and done.stderr.startswith('tenon: '), done.stderr
    assert done.stderr.count('\n') == 1, done.stderr


def test_usage(images):
    refused(images, 'conver', text="did you mean 'convert'", status=2)
    refused(images, 'info', text='usage: tenon image info', status=2)
    refused(images, 'info', '-Z', 'x', text="unknown option '-Z'", status=2)
    refused(images, 'create', '-f', 'qcow', 'x', '1M', text="did you mean 'qcow2'", status=2)
    refused(images, 'create', 'x', text='a size is needed', status=2)
    refused(images, 'create', 'x', '12Q', text='is not a size', status=2)
    refused(images, 'create', '-f', 'qcow2', '-o', 'nonsense=1', 'x', '1M', text="no option 'nonsense'",
            status=2)
    refused(images, 'info', 'missing', text='does not exist')
    assert not list(images.directory.iterdir())


def test_nothing_is_overwritten(images):
    images.path('a').write_bytes(b'precious' * 1000)
    images.tenon('create', 'b', '1M')
    refused(images, 'create', 'a', '1M', text='add --force')
    refused(images, 'convert', 'b', 'a', text='add --force')
    assert images.path('a').read_bytes() == b'precious' * 1000
    images.tenon('convert', '--force', 'b', 'a')
    assert images.path('a').read_bytes() == bytes(1 << 20)
    assert sorted(path.name for path in images.directory.iterdir()) == ['a', 'b']


def test_same_file_twice(images):
    images.mixed('a.raw')
    before = images.path('a.raw').read_bytes()
    images.tenon('convert', '-f', 'raw', '-O', 'qcow2', '--force', 'a.raw', 'a.raw', status=None)
    after = images.path('a.raw').read_bytes()
    assert after == before or after[:4] == b'QFI\xfb'


def test_raw_copy_keeps_holes(images):
    with open(images.path('a.raw'), 'wb') as file:
        file.truncate(1 << 30)
        file.seek(500 << 20)
        file.write(b'x' * 4096)
    images.tenon('convert', '-f', 'raw', 'a.raw', 'b.raw')
    images.same('a.raw', 'b.raw')
    assert images.path('b.raw').stat().st_blocks * 512 < 1 << 20


def test_compare(images):
    images.mixed('a.raw')
    images.tenon('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2')
    images.io('a.qcow2', 'write -P 77 5000000 10')
    done = images.tenon('compare', 'a.raw', 'a.qcow2', status=1)
    assert 'mismatch at offset 5000000' in done.stdout or 'mismatch at offset 500000' in done.stdout
    images.tenon('create', 'short', '1M')
    images.tenon('create', 'long', '2M')
    images.tenon('compare', 'short', 'long')
    images.tenon('compare', '-s', 'short', 'long', status=1)


def test_locked_image(images):
    images.tenon('create', '-f', 'qcow2', 'a.qcow2', '1M')
    import fcntl, os, struct as packing
    fd = os.open(images.path('a.qcow2'), os.O_RDWR)
    lock = packing.pack('hhqqi4x', fcntl.F_WRLCK, 0, 201, 1, 0)
    fcntl.fcntl(fd, 37, lock)  # F_OFD_SETLK, as a VM holds it
    refused(images, 'convert', 'a.qcow2', 'b.raw', text='in use by another VM', status=4)
    refused(images, 'resize', 'a.qcow2', '2M', text='in use by another VM', status=4)
    images.tenon('info', 'a.qcow2')
    images.tenon('convert', '-U', 'a.qcow2', 'b.raw')
    os.close(fd)


@pytest.mark.parametrize('name', ['json:{"driver":"raw"}', 'nbd:localhost:10809', '/dev/zero',
                                  'http://host/x', '/proc/self/mem'])
def test_backing_names_are_shown_and_not_opened(images, name):
    images.qemu('create', '-f', 'qcow2', '-u', '-b', name, '-F', 'raw', 'a.qcow2', '1M')
    assert images.info('a.qcow2')['backing-filename'] == name
    refused(images, 'convert', '-f', 'qcow2', 'a.qcow2', 'b.raw', text='it is not opened')
    assert not images.path('b.raw').exists()


def test_guessed_format_reaches_no_other_folder(images):
    """What a guest wrote into its raw disk must not make us read the host's files."""
    secret = images.directory / 'secret'
    secret.mkdir()
    (secret / 'file').write_bytes(b'secret' * 1000)
    images.qemu('create', '-f', 'qcow2', '-u', '-b', str(secret / 'file'), '-F', 'raw', 'a.raw', '1M')
    refused(images, 'convert', 'a.raw', 'b.raw', text='only guessed')
    images.tenon('convert', '-f', 'raw', 'a.raw', 'b.raw')
    images.tenon('convert', '-f', 'qcow2', 'a.raw', 'c.raw')
    assert images.path('c.raw').read_bytes()[:6] == b'secret'


def test_backing_cycle(images):
    images.qemu('create', '-f', 'qcow2', '-u', '-b', 'b.qcow2', '-F', 'qcow2', 'a.qcow2', '1M')
    images.qemu('create', '-f', 'qcow2', '-u', '-b', 'a.qcow2', '-F', 'qcow2', 'b.qcow2', '1M')
    refused(images, 'convert', 'a.qcow2', 'c.raw', text='comes back')


HEADER = {'version': (4, '>I', 7), 'cluster bits': (20, '>I', 40), 'l1 size': (36, '>I', 0xffffffff),
          'l1 offset': (40, '>Q', 1 << 62), 'size': (24, '>Q', (1 << 63) - 1),
          'reference table': (48, '>Q', 1 << 50), 'reference clusters': (56, '>I', 1 << 30),
          'snapshots': (60, '>I', 0xffffffff), 'incompatible': (72, '>Q', 1 << 40),
          'data file': (72, '>Q', 4), 'refcount order': (96, '>I', 9),
          'header length': (100, '>I', 1 << 31), 'backing': (8, '>Q', 1 << 40)}


@pytest.mark.parametrize('field', HEADER)
def test_hostile_header(images, field):
    images.qemu('create', '-f', 'qcow2', 'a.qcow2', '10M')
    data = bytearray(images.path('a.qcow2').read_bytes())
    at, form, value = HEADER[field]
    struct.pack_into(form, data, at, value)
    images.path('a.qcow2').write_bytes(data)
    for verb in (['convert', 'a.qcow2', 'b.raw'], ['check', 'a.qcow2'], ['map', 'a.qcow2']):
        done = images.tenon(*verb, status=1)
        assert done.stderr.startswith("tenon: 'a.qcow2': qcow2: "), done.stderr
    assert not images.path('b.raw').exists()


def test_random_damage(images):
    """Whatever the tables say, the program ends with a status, not by a signal."""
    images.mixed('a.raw', 1 << 20)
    images.tenon('convert', '-f', 'raw', '-O', 'qcow2', '-c', '-o', 'cluster_size=4k', 'a.raw', 'a.qcow2')
    images.qemu('snapshot', '-c', 's', 'a.qcow2')
    good = images.path('a.qcow2').read_bytes()
    draw = random.Random(4)
    for _ in range(60):
        bad = bytearray(good)
        for _ in range(draw.randrange(1, 20)):
            bad[draw.randrange(min(draw.choice([112, 32768, len(bad)]), len(bad)))] = draw.randrange(256)
        if draw.randrange(4) == 0:
            del bad[draw.randrange(len(bad)):]
        images.path('bad.qcow2').write_bytes(bad)
        for verb in (['info', '-f', 'qcow2', 'bad.qcow2'], ['check', '-q', '-f', 'qcow2', 'bad.qcow2'],
                     ['convert', '-f', 'qcow2', '--force', 'bad.qcow2', 'out'],
                     ['check', '-q', '--repair=all', '-f', 'qcow2', 'bad.qcow2']):
            done = images.tenon(*verb, status=None, timeout=30)
            assert done.returncode in (0, 1, 2, 3), (verb, done.returncode, done.stderr)
