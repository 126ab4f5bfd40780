"""
LUKS: cryptsetup and QEMU open what Tenon encrypted, and the reverse; a wrong passphrase is a sentence.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import shutil
import struct

import pytest

SECRET = ['--object', 'secret,id=s,file=key']
FAST = 'iter-time=10'


@pytest.fixture
def keyed(images):
    images.path('key').write_bytes(b'correct horse battery staple')
    images.path('wrong').write_bytes(b'incorrect horse')
    images.mixed('a.raw')
    return images


def theirs(images, *args, status=0):
    return images.qemu(*args[:1], *SECRET, *args[1:], status=status)


def qemu_compares(images, raw, luks):
    images.qemu('convert', *SECRET, '--image-opts', '-O', 'raw',
                'driver=luks,key-secret=s,file.filename=' + luks, 'plain.raw')
    assert images.path('plain.raw').read_bytes() == images.path(raw).read_bytes()


@pytest.mark.parametrize('options', ['', 'cipher-alg=aes-128', 'hash-alg=sha512', 'hash-alg=sha1'])
def test_both_ways_with_qemu(keyed, options):
    words = ','.join(filter(None, [FAST, options]))
    keyed.tenon('convert', '-f', 'raw', '-O', 'luks', '-o', words, '--key-file', 'key', '--verify', 'a.raw',
                'ours.luks')
    qemu_compares(keyed, 'a.raw', 'ours.luks')
    theirs(keyed, 'convert', '-f', 'raw', '-O', 'luks', '-o', 'key-secret=s,' + words, 'a.raw', 'theirs.luks')
    keyed.tenon('compare', '--key-file', 'key', 'a.raw', 'theirs.luks')
    keyed.tenon('convert', '--key-file', 'key', 'theirs.luks', 'back.raw')
    assert keyed.path('back.raw').read_bytes() == keyed.path('a.raw').read_bytes()


@pytest.mark.parametrize('mode', ['ivgen-alg=essiv,ivgen-hash-alg=sha256,cipher-mode=cbc',
                                  'ivgen-alg=plain64,cipher-mode=cbc', 'ivgen-alg=plain'])
def test_older_ciphers_are_read(keyed, mode):
    theirs(keyed, 'convert', '-f', 'raw', '-O', 'luks', '-o', 'key-secret=s,%s,%s' % (FAST, mode), 'a.raw',
           'theirs.luks')
    keyed.tenon('compare', '--key-file', 'key', 'a.raw', 'theirs.luks')


def test_empty_slots_take_no_room(keyed):
    theirs(keyed, 'create', '-q', '-f', 'luks', '-o', 'key-secret=s,' + FAST, 'theirs.luks', '8M')
    keyed.tenon('create', '-f', 'luks', '-o', FAST, '--key-file', 'key', 'ours.luks', '8M')
    assert keyed.path('ours.luks').stat().st_blocks <= keyed.path('theirs.luks').stat().st_blocks


def test_written_in_parts(keyed):
    """qemu-io and Tenon write parts of sectors in turn."""
    keyed.tenon('convert', '-f', 'raw', '-O', 'luks', '-o', FAST, '--key-file', 'key', 'a.raw', 'a.luks')
    keyed.call('qemu-io', *SECRET, '--image-opts', '-c', 'write -P 5 1000 3000', '-c', 'write -P 6 8388000 608',
               'driver=luks,key-secret=s,file.filename=a.luks')
    keyed.tenon('convert', '--key-file', 'key', 'a.luks', 'b.raw')
    want = bytearray(keyed.path('a.raw').read_bytes())
    want[1000:4000] = b'\5' * 3000
    want[8388000:8388608] = b'\6' * 608
    assert keyed.path('b.raw').read_bytes() == want


def cryptsetup(images, *args, status=0):
    if not shutil.which('cryptsetup'):
        pytest.skip('cryptsetup is missing (package cryptsetup-bin)')
    return images.call('cryptsetup', *args, status=status)


def test_both_ways_with_cryptsetup(keyed):
    keyed.tenon('create', '-f', 'luks', '-o', FAST, '--key-file', 'key', 'ours.luks', '8M')
    dump = cryptsetup(keyed, 'luksDump', 'ours.luks').stdout
    assert 'xts-plain64' in dump and 'Key Slot 0: ENABLED' in dump
    cryptsetup(keyed, 'open', '--test-passphrase', '--key-file', 'key', 'ours.luks')
    cryptsetup(keyed, 'open', '--test-passphrase', '--key-file', 'wrong', 'ours.luks', status=2)
    # A second passphrase of cryptsetup's opens it as well.
    cryptsetup(keyed, 'luksAddKey', '--batch-mode', '--pbkdf-force-iterations', '1000', '--key-file', 'key',
               'ours.luks', 'wrong')
    keyed.tenon('convert', '--key-file', 'wrong', 'ours.luks', 'x.raw')
    keyed.path('theirs.luks').write_bytes(bytes(16 << 20))
    cryptsetup(keyed, 'luksFormat', '--batch-mode', '--type', 'luks1', '--pbkdf-force-iterations', '1000',
               '--key-file', 'key', 'theirs.luks')
    keyed.tenon('convert', '-n', '-f', 'raw', '-O', 'luks', '--key-file', 'key', 'a.raw', 'theirs.luks')
    keyed.tenon('dd', '-f', 'luks', '--key-file', 'key', 'bs=1M', 'count=8', 'if=theirs.luks', 'of=b.raw')
    assert keyed.path('b.raw').read_bytes() == keyed.path('a.raw').read_bytes()


def test_info_needs_no_passphrase(keyed):
    keyed.tenon('create', '-f', 'luks', '-o', FAST, '--key-file', 'key', 'a.luks', '8M')
    info = keyed.info('a.luks')
    assert info['format'] == 'luks' and info['virtual-size'] == 8 << 20 and info['encrypted'] is True
    ours = info['format-specific']['data']
    qemu = json.loads(keyed.qemu('info', '--output=json', 'a.luks').stdout)['format-specific']['data']
    for name in ('cipher-alg', 'cipher-mode', 'ivgen-alg', 'hash-alg', 'uuid', 'payload-offset',
                 'master-key-iters'):
        assert ours[name] == qemu[name]


def test_wrong_passphrase(keyed):
    keyed.tenon('create', '-f', 'luks', '-o', FAST, '--key-file', 'key', 'a.luks', '1M')
    done = keyed.tenon('convert', '--key-file', 'wrong', 'a.luks', 'b.raw', status=3)
    assert done.stderr == "tenon: 'a.luks': luks: the passphrase opens none of its key slots\n"
    done = keyed.tenon('convert', 'a.luks', 'b.raw', status=3)
    assert done.stderr == "tenon: 'a.luks' is encrypted: give its passphrase with --key-file\n"
    keyed.tenon('create', '-f', 'luks', '-o', 'cipher-mode=cbc', '--key-file', 'key', 'b.luks', '1M', status=2)
    keyed.tenon('create', '-f', 'luks', '--key-file', 'missing', 'b.luks', '1M', status=1)
    assert not keyed.path('b.raw').exists() and not keyed.path('b.luks').exists()


HEADER = {'version': (6, '>H', 2), 'cipher': (8, '4s', b'twof'), 'mode': (40, '4s', b'lrw-'),
          'hash': (72, '4s', b'abcd'), 'payload': (104, '>I', 0xffffffff), 'no payload': (104, '>I', 0),
          'key bytes': (108, '>I', 1 << 30), 'digest iterations': (164, '>I', 0xffffffff),
          'slot iterations': (212, '>I', 0xffffffff), 'slot place': (248, '>I', 0xffffffff),
          'stripes': (252, '>I', 0x7fffffff)}


@pytest.mark.parametrize('field', HEADER)
def test_hostile_header(keyed, field):
    keyed.tenon('create', '-f', 'luks', '-o', FAST, '--key-file', 'key', 'a.luks', '1M')
    data = bytearray(keyed.path('a.luks').read_bytes())
    at, form, value = HEADER[field]
    struct.pack_into(form, data, at, value)
    keyed.path('a.luks').write_bytes(data)
    done = keyed.tenon('convert', '-f', 'luks', '--key-file', 'key', 'a.luks', 'b.raw', status=None)
    assert done.returncode in (1, 3) and done.stderr.startswith("tenon: 'a.luks': luks: "), done.stderr


ENCRYPTED = 'encrypt.format=luks,encrypt.' + FAST


def encrypted(name):
    return 'driver=qcow2,encrypt.key-secret=s,file.filename=' + name


def sound(images, name):
    theirs(images, 'check', '--image-opts', encrypted(name))
    images.tenon('check', name)


@pytest.mark.parametrize('cluster', ['64k', '4k', '2M'])
def test_qcow2_both_ways(keyed, cluster):
    options = '%s,cluster_size=%s' % (ENCRYPTED, cluster)
    keyed.tenon('convert', '-f', 'raw', '-O', 'qcow2', '-o', options, '--key-file', 'key', '--verify', 'a.raw', 'a.qcow2')
    sound(keyed, 'a.qcow2')
    theirs(keyed, 'compare', '--image-opts', encrypted('a.qcow2'), 'driver=raw,file.filename=a.raw')
    theirs(keyed, 'convert', '-f', 'raw', '-O', 'qcow2', '-o', 'encrypt.key-secret=s,' + options, 'a.raw', 'b.qcow2')
    sound(keyed, 'b.qcow2')
    keyed.tenon('compare', '--key-file', 'key', 'a.raw', 'b.qcow2')
    assert keyed.info('b.qcow2')['encrypted'] is True


def test_qcow2_written_in_parts(keyed):
    """Both write parts of sectors and clusters, before and after a snapshot."""
    keyed.tenon('create', '-f', 'qcow2', '-o', ENCRYPTED + ',cluster_size=4k', '--key-file', 'key', 'a.qcow2', '8M')
    io = ['qemu-io', *SECRET, '--image-opts']
    keyed.call(*io, '-c', 'write -P 1 1000 30000', '-c', 'write -z 64k 64k', encrypted('a.qcow2'))
    keyed.tenon('snapshot', '--key-file', 'key', '-c', 'one', 'a.qcow2')
    keyed.tenon('bench', '--key-file', 'key', '-w', '-c', '100', '-d', '8', '-s', '700', '-S', '900', '--pattern', '9',
                '-o', '4000', 'a.qcow2')
    sound(keyed, 'a.qcow2')
    keyed.call(*io, '-c', 'read -P 1 1000 3000', '-c', 'read -P 9 4000 700', '-c', 'read -P 9 93100 700',
               '-c', 'read -P 1 4700 200', encrypted('a.qcow2'))
    keyed.tenon('convert', '--key-file', 'key', '-l', 'one', 'a.qcow2', 'one.raw')
    assert keyed.path('one.raw').read_bytes() == bytes(1000) + b'\1' * 30000 + bytes((8 << 20) - 31000)


def test_qcow2_needs_its_passphrase(keyed):
    keyed.tenon('create', '-f', 'qcow2', '-o', ENCRYPTED, '--key-file', 'key', 'a.qcow2', '1M')
    done = keyed.tenon('convert', '--key-file', 'wrong', 'a.qcow2', 'b.raw', status=3)
    assert 'the passphrase opens none of its key slots' in done.stderr
    keyed.tenon('check', 'a.qcow2')
    done = keyed.tenon('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', ENCRYPTED, '--key-file', 'key', 'a.raw',
                       'c.qcow2', status=2)
    assert 'cannot be compressed' in done.stderr
