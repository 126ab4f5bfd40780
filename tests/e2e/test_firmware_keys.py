"""
`tenon firmware`: keys in variable stores, without a guest (test_secure_boot.py has those): what
efitools write and hash is what is enrolled; stores and files that are wrong.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess

import pytest

OVMF = pathlib.Path('/usr/share/OVMF')
SHIM = pathlib.Path('/usr/lib/shim/shimx64.efi.signed')
OWNER = '3a1c6b52-6d0f-4f0e-9b5c-54656e6f6e01'  # of what Tenon enrolls
TEMPLATE = OVMF / 'OVMF_VARS_4M.fd'
DEBIANS = OVMF / 'OVMF_VARS_4M.ms.fd'

pytestmark = pytest.mark.skipif(not DEBIANS.exists() or not shutil.which('openssl'),
                                reason='package ovmf or openssl is missing')


def make_key(folder, name, *kind):
    """NAME.key and NAME.pem; the certificate's bytes."""
    kind = kind or ('-newkey', 'rsa:2048')
    subprocess.run(['openssl', 'req', '-new', '-x509', *kind, '-nodes', '-subj', '/CN=' + name,
                    '-keyout', folder / (name + '.key'), '-out', folder / (name + '.pem')],
                   check=True, capture_output=True)
    return subprocess.run(['openssl', 'x509', '-in', folder / (name + '.pem'), '-outform', 'DER'],
                          check=True, capture_output=True).stdout


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def keys(text):
    """{variable: [(type, digest)]} of what `show` printed."""
    found = {}
    for name, kind, digest in re.findall(r'^  (\S+) +(\S+) +([0-9a-f]{64})', text, re.M):
        found.setdefault(name, []).append((kind, digest))
    return found


class Command:
    def __init__(self, tenon, tmp_path):
        self.tenon, self.prefix = tenon, ('/usr/bin/env', 'XDG_STATE_HOME=%s' % tmp_path)

    def __call__(self, *words):
        return self.tenon.run('firmware', *words, prefix=self.prefix)

    def good(self, *words):
        result = self(*words)
        assert result.returncode == 0 and not result.stderr, result.stderr
        return result.stdout

    def bad(self, status, *words):
        result = self(*words)
        assert result.returncode == status and not result.stdout, (words, result.stdout)
        assert re.fullmatch(r'tenon: [^\n]+\n', result.stderr), result.stderr
        return result.stderr


@pytest.fixture
def firmware(tenon, tmp_path):
    return Command(tenon, tmp_path)


def test_keys_of_ones_own(firmware, tmp_path):
    certificates = {name: make_key(tmp_path, name) for name in ('mine', 'kek', 'loader')}
    # Beside those of Debian and Microsoft, in the store that --firmware secure will take.
    debians = keys(firmware.good('show', DEBIANS))
    assert [len(debians[name]) for name in ('PK', 'KEK', 'db', 'dbx')] == [1, 2, 2, 1]
    text = firmware.good('enroll', 'web', '--db', 'loader.pem')
    assert text.startswith('%s/tenon/web.secure.vars.fd: Secure Boot is on\n' % tmp_path), text
    loader = ('x509', sha256(certificates['loader']))
    assert keys(text) == dict(debians, db=debians['db'] + [loader])
    assert 'CN=loader' in text and firmware.good('show', 'web') == text
    assert firmware.good('enroll', 'web', '--db', 'loader.pem') == text, 'it is there already'

    # Instead of them.
    own = firmware.good('enroll', 'web', '--clear', '--pk', 'mine.pem', '--kek', 'kek.pem',
                        '--db', 'loader.pem')
    assert keys(own) == {'PK': [('x509', sha256(certificates['mine']))],
                         'KEK': [('x509', sha256(certificates['kek']))], 'db': [loader]}
    assert keys(firmware.good('enroll', 'web', '--pk', 'kek.pem'))['PK'] == keys(own)['KEK']
    assert keys(firmware.good('enroll', 'web', '--defaults')) == debians
    off = firmware.good('enroll', 'web', '--clear')
    assert 'Secure Boot is off: there is no platform key' in off and not keys(off)
    # An empty store in the firmware's eyes, too: nothing is left of them.
    store = (tmp_path / 'tenon/web.secure.vars.fd').read_bytes()
    assert certificates['loader'] not in store and len(store) == DEBIANS.stat().st_size


def test_efitools_agree(firmware, tmp_path):
    if not shutil.which('cert-to-efi-sig-list') or not SHIM.exists():
        pytest.skip('packages efitools and shim-signed are needed')
    shutil.copy(TEMPLATE, tmp_path / 'vars.fd')
    shutil.copy(SHIM, tmp_path / 'shim.efi')
    certificate = make_key(tmp_path, 'mine')
    subprocess.run(['cert-to-efi-sig-list', '-g', OWNER, 'mine.pem', 'list.esl'], cwd=tmp_path,
                   check=True)
    ours = firmware.good('enroll', './vars.fd', '--pk', 'mine.pem', '--dbx', 'shim.efi')
    assert (tmp_path / 'list.esl').read_bytes() in (tmp_path / 'vars.fd').read_bytes()
    # Its makers signed this hash.
    (kind, digest), = keys(ours)['dbx']
    assert kind == 'sha256' and bytes.fromhex(digest) in SHIM.read_bytes()
    # Their list, and their signed update.
    subprocess.run(['sign-efi-sig-list', '-k', 'mine.key', '-c', 'mine.pem', 'db', 'list.esl',
                    'list.auth'], cwd=tmp_path, check=True, capture_output=True)
    both = firmware.good('enroll', 'vars.fd', '--db', 'list.auth', '--kek', 'list.esl')
    assert keys(both)['KEK'] == keys(both)['db'] == [('x509', sha256(certificate))]


def test_files_that_are_no_keys(firmware, tmp_path):
    make_key(tmp_path, 'mine')
    make_key(tmp_path, 'curve', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256')
    make_key(tmp_path, 'small', '-newkey', 'rsa:1024')
    two = (tmp_path / 'mine.pem').read_text() * 2
    for name, text in (('two.pem', two), ('words', 'hello'), ('empty', ''),
                       ('cut.pem', two[:400] + '\n-----END CERTIFICATE-----\n')):
        (tmp_path / name).write_text(text)
    (tmp_path / 'cut.efi').write_bytes(b'MZ' + bytes(200))
    shutil.copy(TEMPLATE, tmp_path / 'vars.fd')
    for option, file, sentence in (
            ('--db', 'gone', 'cannot open'), ('--db', 'mine.key', 'private key'),
            ('--db', 'curve.pem', 'RSA alone'), ('--db', 'small.pem', 'wants 2048'),
            ('--pk', 'two.pem', 'the platform key is one'), ('--db', 'words', 'no certificate'),
            ('--db', 'empty', 'empty'), ('--db', 'cut.pem', 'cannot be read'),
            ('--db', 'cut.efi', 'no EFI program'), ('--db', '.', 'cannot read'),
            ('--db', 'mine.pem', 'give --pk too')):
        error = firmware.bad(1, 'enroll', 'vars.fd', option, file)
        assert sentence in error and (file in error or 'give' in sentence), error
    assert (tmp_path / 'vars.fd').read_bytes() == TEMPLATE.read_bytes(), 'all or nothing'
    if SHIM.exists():
        assert 'certificates only' in firmware.bad(1, 'enroll', 'vars.fd', '--kek', SHIM)
    many = ['-----BEGIN CERTIFICATE-----%s' % part for part in
            two.split('-----BEGIN CERTIFICATE-----')[1:]]
    for index in range(50):
        make = subprocess.run(['openssl', 'req', '-new', '-x509', '-key', 'mine.key', '-subj',
                               '/CN=%d' % index], cwd=tmp_path, check=True, capture_output=True)
        many.append(make.stdout.decode())
    (tmp_path / 'many.pem').write_text(''.join(many))
    assert 'db would have' in firmware.bad(1, 'enroll', 'vars.fd', '--pk', 'mine.pem', '--db',
                                           'many.pem')


def test_stores_that_are_broken(tenon, firmware, tmp_path):
    good = DEBIANS.read_bytes()
    for name, store, sentence in (
            ('junk', os.urandom(len(good)), 'no header of a firmware volume'),
            ('cut', good[:5000], 'cut short'), ('empty', b'', 'no header'),
            ('sum', good[:50] + b'xx' + good[52:], 'checksum'),
            ('plain', good[:72] + bytes(16) + good[88:], 'no authenticated variables'),
            ('large', good[:72 + 28 + 36] + b'\xf0\xff\xff\x00' + good[72 + 28 + 40:], 'past its end')):
        (tmp_path / name).write_bytes(store)
        for words in (('show', name), ('enroll', name, '--clear')):
            error = firmware.bad(1, *words)
            assert sentence in error and 'restore it from a copy' in error, error
        assert (tmp_path / name).read_bytes() == store
    assert 'does not exist' in firmware.bad(1, 'show', 'nobody')
    assert 'regular file' in firmware.bad(1, 'show', '/dev/null')
    (tmp_path / 'huge').touch()
    os.truncate(tmp_path / 'huge', 1 << 30)
    assert 'too large' in firmware.bad(1, 'show', 'huge')
    # What a guest wrote there comes to a terminal.
    where = good.index(b'Debian UEFI')
    (tmp_path / 'named').write_bytes(good[:where] + b'\x1b[2JBad    ' + good[where + 11:])
    assert '\x1b' not in firmware.good('show', 'named')


def test_usage(firmware):
    for words in ((), ('show',), ('enroll', 'vm'), ('list', 'vm'), ('show', 'a', 'b'),
                  ('show', 'vm', '--clear'), ('enroll', 'vm', '--clear', '--defaults'),
                  ('enroll', 'vm', '--pk')):
        firmware.bad(2, *words)


def test_a_build_that_needs_smm(tenon, tmp_path):
    """It would stop without a word: by its name, and as a copy of any name."""
    disk = tenon.disk()
    for name in ('OVMF_CODE_4M.secboot.fd', 'OVMF_CODE_4M.ms.fd', 'OVMF_CODE.secboot.fd'):
        shutil.copy(OVMF / name, tmp_path / 'copy.fd')
        for image in (OVMF / name, 'copy.fd'):
            result = tenon.run('run', '--firmware', image, '--disk', disk)
            assert result.returncode == 1
            assert 'needs system management mode' in result.stderr, result.stderr
            assert '--firmware secure' in result.stderr
