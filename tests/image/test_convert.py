"""
What convert copies from and to beside one file: several images in a row, standard input and output; copies by the
kernel; several files of one call.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import json
import os
import struct
import subprocess

from test_bad_input import refused

MIB = 1 << 20


def pipe(images, *args, data=None, status=0):
    """A call whose input and output are pipes."""
    done = subprocess.run([images.tenon_program(), 'image', *args], cwd=images.directory, input=data,
                          stdin=subprocess.DEVNULL if data is None else None, capture_output=True, timeout=300)
    assert done.returncode == status, done.stderr
    return done


def test_one_behind_the_other(images):
    """As qemu-img does it; a part that ends within a sector is filled up with zeros."""
    images.path('a.raw').write_bytes(os.urandom(1 * MIB + 700))
    images.path('empty.raw').write_bytes(b'')
    images.mixed('b.raw', 3 * MIB)
    images.tenon('convert', '-f', 'raw', '-O', 'qcow2', 'b.raw', 'b.qcow2')
    images.tenon('create', '-f', 'qcow2', '-b', 'b.qcow2', '-F', 'qcow2', 'c.qcow2')
    images.io('c.qcow2', 'write -P 7 1M 300k')
    images.tenon('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'empty.raw', 'b.raw', 'ours.qcow2')
    images.qemu('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'empty.raw', 'b.raw', 'theirs.qcow2')
    images.same('ours.qcow2', 'theirs.qcow2')
    images.tenon('convert', '--verify', '-f', 'qcow2', '-O', 'vmdk', 'c.qcow2', 'b.qcow2', 'c.qcow2', 'ours.vmdk')
    images.qemu('convert', '-f', 'qcow2', '-O', 'vmdk', 'c.qcow2', 'b.qcow2', 'c.qcow2', 'theirs.vmdk')
    images.same('ours.vmdk', 'theirs.vmdk')
    refused(images, 'convert', '-l', 's', 'b.qcow2', 'c.qcow2', 'x.raw', text='not about several', status=2)
    refused(images, 'convert', '-f', 'raw', 'a.raw', 'missing.raw', 'x.raw', text="'missing.raw' does not exist")
    assert not images.path('x.raw').exists()


def test_standard_input(images):
    images.mixed('a.raw', 5 * MIB)
    data = images.path('a.raw').read_bytes()[:-300]
    pipe(images, 'convert', '-f', 'raw', '-O', 'qcow2', '-c', '-', 'a.qcow2', data=data)
    images.tenon('convert', '-f', 'qcow2', 'a.qcow2', 'b.raw')
    assert images.path('b.raw').read_bytes() == data + bytes(300)  # whole sectors, as everywhere
    pipe(images, 'convert', '-f', 'qcow2', '-', 'c.raw', data=images.path('a.qcow2').read_bytes())
    images.tenon('compare', '-f', 'raw', '-F', 'raw', 'b.raw', 'c.raw')
    with open(images.path('a.raw')) as file:  # not a pipe: nothing is kept twice
        subprocess.run([images.tenon_program(), 'image', 'dd', '-f', 'raw', 'bs=1M', 'skip=1', 'count=2', 'if=-', 'of=d.raw'],
                       cwd=images.directory, stdin=file, check=True)
    assert images.path('d.raw').read_bytes() == images.path('a.raw').read_bytes()[MIB:3 * MIB]
    done = pipe(images, 'convert', '-f', 'raw', '-', '-', 'e.raw', data=b'', status=2)
    assert b'read once' in done.stderr


def test_standard_output(images):
    images.mixed('a.raw', 5 * MIB)
    data = images.path('a.raw').read_bytes()
    images.tenon('convert', '-f', 'raw', '-O', 'qcow2', '-c', 'a.raw', 'a.qcow2')
    assert pipe(images, 'convert', '-p', 'a.qcow2', '-').stdout == data
    assert pipe(images, 'dd', 'bs=1k', 'skip=3', 'if=a.qcow2', 'of=-').stdout == data[3072:]
    done = pipe(images, 'convert', '-O', 'qcow2', 'a.qcow2', '-', status=2)
    assert b'takes a raw image' in done.stderr and not done.stdout
    with open('/dev/full', 'wb') as full:
        done = subprocess.run([images.tenon_program(), 'image', 'convert', 'a.qcow2', '-'], cwd=images.directory,
                              stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.count('\n') == 1 and 'No space left' in done.stderr, done.stderr


def test_the_kernel_copies(images):
    """-C: written zeros stay what they are, because nobody looks for them."""
    images.mixed('a.raw', 5 * MIB)
    with open(images.path('a.raw'), 'ab') as file:
        file.write(bytes(4 * MIB) + b'end')
    images.tenon('convert', '-f', 'raw', 'a.raw', 'sparse.raw')
    images.tenon('convert', '-C', '-f', 'raw', 'a.raw', 'copy.raw')
    digests = {hashlib.sha256(images.path(name).read_bytes()).hexdigest() for name in ('a.raw', 'sparse.raw', 'copy.raw')}
    assert len(digests) == 1
    room = {name: images.path(name).stat().st_blocks * 512 for name in ('a.raw', 'sparse.raw', 'copy.raw')}
    assert room['copy.raw'] >= room['sparse.raw'] + 4 * MIB, room
    images.tenon('dd', '-f', 'raw', 'bs=512', 'skip=3', 'if=a.raw', 'of=part.raw')
    assert images.path('part.raw').read_bytes() == images.path('a.raw').read_bytes()[1536:]
    images.tenon('convert', '-C', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2')  # there it means nothing
    images.tenon('compare', '-f', 'raw', 'a.raw', 'a.qcow2')
    refused(images, 'convert', '-C', '-c', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'x.qcow2', text='not with -c or -S', status=2)


def test_several_files(images):
    """What the shell makes of *.qcow2."""
    for name in ('a.qcow2', 'b.qcow2'):
        images.tenon('create', '-f', 'qcow2', name, '1M')
    done = images.tenon('info', 'a.qcow2', 'b.qcow2')
    assert [line for line in done.stdout.splitlines() if line.startswith('image: ')] == ['image: a.qcow2', 'image: b.qcow2']
    data = bytearray(images.path('b.qcow2').read_bytes())
    data += bytes(65536)
    table, = struct.unpack_from('>Q', data, 48)
    block, = struct.unpack_from('>Q', data, table)
    struct.pack_into('>H', data, block + 2 * (len(data) // 65536 - 1), 1)  # a cluster that leaks
    images.path('b.qcow2').write_bytes(data)
    done = images.tenon('check', 'b.qcow2', 'a.qcow2', status=3)
    assert done.stdout.index('image: b.qcow2') < done.stdout.index('1 leaked') < done.stdout.index('image: a.qcow2')
    documents = images.tenon('info', '--json', 'a.qcow2', 'b.qcow2').stdout
    first, end = json.JSONDecoder().raw_decode(documents)
    assert first['filename'] == 'a.qcow2' and json.loads(documents[end:])['filename'] == 'b.qcow2'
    refused(images, 'info', 'a.qcow2', 'missing', text='does not exist')
