"""
What is not as it should be around an image: a full disk, files that vanish, names of all kinds. A sentence, a
status, nothing harmed and nothing left behind.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time

import pytest

from test_serve import Server


def said(done, text, status=1):
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert text in done.stderr and done.stderr.startswith('tenon: ') and done.stderr.count('\n') == 1, done.stderr


def refused(images, *args, text, status=1):
    said(images.tenon(*args, status=None), text, status)


def on_small_disk(images, megabytes, *args):
    """Runs in a mount namespace where `small` is a tmpfs; what is left there afterwards is printed."""
    images.path('small').mkdir(exist_ok=True)
    script = 'mount -t tmpfs -o size=%dm none small || exit 99; shift 0; "$@"; code=$?; ls small; exit $code'
    done = images.call('unshare', '-rm', 'sh', '-c', script % megabytes, 'sh', images.tenon_program(), 'image',
                       *args, status=None)
    if done.returncode == 99 or 'unshare' in done.stderr:
        pytest.skip('no mount namespace here: %s' % done.stderr.strip())
    return done


def test_full_disk(images):
    images.path('a.raw').write_bytes(os.urandom(16 << 20))
    done = on_small_disk(images, 8, 'convert', '-q', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'small/a.qcow2')
    said(done, 'make room, compress with -c, or add --force')
    assert not done.stdout
    for form in ('raw', 'qcow2', 'vdi', 'vhdx', 'vmdk', 'vpc'):
        done = on_small_disk(images, 8, 'convert', '-q', '--force', '-f', 'raw', '-O', form, 'a.raw', 'small/a')
        said(done, 'No space left on device')
        assert not done.stdout, 'left behind: ' + done.stdout
    done = on_small_disk(images, 8, 'convert', '-q', '-c', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'small/a')
    said(done, 'No space left on device')


@pytest.mark.parametrize('image_format', ['qcow2', 'vmdk', 'vpc', 'vhdx', 'vdi'])
def test_full_disk_below(images, image_format):
    """What is written into an image that exists finds no room: source and target are sound, the target half new."""
    images.path('new.raw').write_bytes(b'\x22' * (24 << 20))
    images.tenon('create', '-f', image_format, 'old.img', '24M')
    script = 'cp ../old.img a.img && "$1" image convert -q -n -f raw -O %s ../new.raw a.img; echo $? >../status; ' \
             'cp a.img ../after.img; ls' % image_format
    images.path('small').mkdir()
    done = images.call('unshare', '-rm', 'sh', '-c', 'mount -t tmpfs -o size=10m none small && cd small && ' + script, 'sh',
                       images.tenon_program(), status=None)
    if 'unshare' in done.stderr or 'mount' in done.stderr:
        pytest.skip('no mount namespace here: %s' % done.stderr.strip())
    assert images.path('status').read_text() == '1\n' and done.stdout == 'a.img\n', done
    assert done.stderr.count('\n') == 1 and 'No space left' in done.stderr, done.stderr
    images.tenon('check', '--repair=all', '-f', image_format, 'after.img', status=None)
    images.tenon('check', '-f', image_format, 'after.img')
    images.tenon('convert', '-f', image_format, 'after.img', 'after.raw')
    data = images.path('after.raw').read_bytes()
    assert data.count(0x22) + data.count(0) == 24 << 20
    assert images.path('new.raw').read_bytes() == b'\x22' * (24 << 20)


def test_full_disk_for_commit(images):
    """The overlay keeps what did not fit into its base."""
    images.tenon('create', '-f', 'qcow2', 'base.qcow2', '24M')
    images.tenon('create', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'over.qcow2')
    images.path('new.raw').write_bytes(b'\x22' * (24 << 20))
    images.tenon('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'new.raw', 'over.qcow2')
    before = images.path('over.qcow2').read_bytes()
    images.path('small').mkdir()
    images.tenon('rebase', '-u', '-b', 'small/base.qcow2', '-F', 'qcow2', 'over.qcow2')
    script = 'mount -t tmpfs -o size=10m none small && cp base.qcow2 small && "$1" image commit -q over.qcow2; echo $? >status; ' \
             'cp small/base.qcow2 after.qcow2'
    done = images.call('unshare', '-rm', 'sh', '-c', script, 'sh', images.tenon_program(), status=None)
    if 'unshare' in done.stderr or 'mount' in done.stderr:
        pytest.skip('no mount namespace here: %s' % done.stderr.strip())
    assert images.path('status').read_text() == '1\n' and 'No space left' in done.stderr, done
    images.tenon('rebase', '-u', '-b', 'base.qcow2', '-F', 'qcow2', 'over.qcow2')
    assert images.path('over.qcow2').read_bytes()[65536:] == before[65536:]
    images.tenon('compare', '-f', 'qcow2', '-F', 'raw', 'over.qcow2', 'new.raw')
    done = images.tenon('check', 'after.qcow2', status=None)
    assert done.returncode in (0, 3), done.stdout


def test_limit_on_file_size(images):
    images.path('a.raw').write_bytes(os.urandom(4 << 20))
    done = subprocess.run([images.tenon_program(), 'image', 'convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'b'],
                          cwd=images.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
    said(done, 'File too large')
    assert not images.path('b').exists()


def has_open(process, path):
    for link in (os.path.join('/proc/%d/fd' % process.pid, fd) for fd in os.listdir('/proc/%d/fd' % process.pid)):
        try:
            if os.readlink(link) == str(path):
                return True
        except OSError:
            pass
    return False


@contextlib.contextmanager
def halted_convert(images, *args):
    """A conversion that has begun and stands still until the block ends; its result is in the process."""
    process = subprocess.Popen([images.tenon_program(), 'image', 'convert', '-q', '-m', '1', '-r', '4M', '-f', 'raw',
                                'a.raw', *args], cwd=images.directory, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not has_open(process, images.path('a.raw')):
            time.sleep(0.005)
    except FileNotFoundError:  # it has ended between the two
        pass
    process.send_signal(signal.SIGSTOP)
    if process.poll() is not None:
        pytest.skip('the conversion was over before it could be halted')
    yield process
    process.send_signal(signal.SIGCONT)
    process.error = process.stderr.read()
    process.wait()


def test_folder_removed_meanwhile(images):
    images.path('a.raw').write_bytes(os.urandom(8 << 20))
    images.path('there').mkdir()
    with halted_convert(images, 'there/b.raw') as process:
        shutil.rmtree(images.path('there'))
    assert process.returncode == 1 and process.error.startswith('tenon: '), process.error
    assert 'there' in process.error and process.error.count('\n') == 1


def test_source_removed_meanwhile(images):
    """Its bytes stay until it is closed."""
    data = os.urandom(8 << 20)
    images.path('a.raw').write_bytes(data)
    with halted_convert(images, 'b.raw') as process:
        images.path('a.raw').unlink()
    assert process.returncode == 0, process.error
    assert images.path('b.raw').read_bytes() == data


def test_removed_while_served(images):
    """An overlay and its base without a name go on until nobody has them open."""
    images.mixed('base.raw', 4 << 20)
    want = images.path('base.raw').read_bytes()
    images.tenon('create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'over.qcow2')
    server = Server(images, 'over.qcow2')
    try:
        images.path('over.qcow2').unlink()
        images.path('base.raw').unlink()
        images.io(server.uri(), 'write -P 5 1M 100k', 'read -P 5 1M 100k', 'flush')
        images.tenon('convert', server.uri(), 'out.raw')
    finally:
        assert server.end() == (0, '')
    assert images.path('out.raw').read_bytes() == want[:1 << 20] + b'\5' * 102400 + want[(1 << 20) + 102400:]


def test_target_appears_meanwhile(images):
    images.path('a.raw').write_bytes(os.urandom(8 << 20))
    with halted_convert(images, 'b.raw') as process:
        images.path('b.raw').write_bytes(b'somebody else')
    assert process.returncode == 1 and 'exists' in process.error, process.error
    assert images.path('b.raw').read_bytes() == b'somebody else'


def test_source_shrinks_meanwhile(images):
    """A file that loses its end reads as zeros there, and nobody crashes."""
    images.path('a.raw').write_bytes(b'x' * (8 << 20))
    with halted_convert(images, 'b.raw') as process:
        os.truncate(images.path('a.raw'), 1000)
    if process.returncode == 0:
        assert images.path('b.raw').stat().st_size in (1000, 8 << 20)
    else: # it was halted before it knew the size, and learnt of two
        assert process.returncode == 1 and process.error.count('\n') == 1, process.error


@pytest.mark.parametrize('name', ['/dev/null', '/dev/zero', '/dev/full', '/dev/tty', 'folder', 'pipe',
                                  ''])
def test_no_files(images, name):
    images.path('folder').mkdir()
    os.mkfifo(images.path('pipe'))
    images.tenon('create', 'a.raw', '1M')
    done = images.tenon('convert', '-f', 'raw', name, 'b.raw', status=None, timeout=30)
    assert done.returncode in (1, 3) and done.stderr.count('\n') == 1, done.stderr
    done = images.tenon('convert', '--force', '-f', 'raw', 'a.raw', name, status=None, timeout=30)
    assert done.returncode in (1, 3) and done.stderr.count('\n') == 1, done.stderr
    assert not images.path('b.raw').exists()


@pytest.mark.parametrize('name', ['a b.qcow2', 'a,b.qcow2', 'a=b.qcow2', 'a\nb.qcow2', '%s%n.qcow2', 'ä€.qcow2',
                                  "a'b.qcow2", 'a:b.qcow2', 'nbd', 'json', '\x1b[31mred.qcow2', 'x' * 200,
                                  '-dash.qcow2'])
def test_odd_names(images, name):
    images.mixed('a.raw', 1 << 20)
    images.tenon('convert', '-q', '-f', 'raw', '-O', 'qcow2', '--', 'a.raw', name)
    images.tenon('compare', '--', 'a.raw', name)
    done = images.tenon('info', '--', name)
    assert '\x1b' not in done.stdout and done.stdout.startswith('image: ')
    assert images.info('./' + name)['filename'] == './' + name
    images.tenon('create', '-q', '-f', 'qcow2', '-b', './' + name, '-F', 'qcow2', 'over.qcow2')
    images.tenon('compare', 'a.raw', 'over.qcow2')


def test_names_in_errors_are_harmless(images):
    images.qemu('create', '-f', 'qcow2', '-u', '-b', 'nbd:\x1b[31m\nhost', '-F', 'raw', 'a.qcow2', '1M')
    done = images.tenon('convert', '-f', 'qcow2', 'a.qcow2', 'b.raw', status=1)
    said(done, "'nbd:?[31m?host' is not a file's")


def test_guess_is_not_made_true(images):
    """A guest's bytes must not turn a raw base, whose format nobody said, into an image."""
    images.path('base').write_bytes(b'x' * (1 << 20))
    images.qemu('create', '-f', 'qcow2', '-b', 'base', '-F', 'raw', 'a.qcow2', '1M')
    images.tenon('rebase', '-u', '-b', 'base', '-F', 'raw', 'a.qcow2')
    data = images.path('a.qcow2').read_bytes()
    at = data.index((0xe2792aca).to_bytes(4, 'big'))
    images.path('a.qcow2').write_bytes(data[:at] + bytes(8) + data[at + 8:])  # it says no format
    images.call('qemu-img', 'create', '-f', 'qcow2', 'evil', '1M')
    evil = images.path('evil').read_bytes()[:512]
    images.path('evil').write_bytes(evil + bytes((1 << 20) - len(evil)))
    images.tenon('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'evil', 'a.qcow2')
    refused(images, 'commit', 'a.qcow2', text='was only guessed')
    assert images.path('base').read_bytes() == b'x' * (1 << 20)
    images.tenon('rebase', '-u', '-b', 'base', '-F', 'raw', 'a.qcow2')
    images.tenon('commit', 'a.qcow2')
    assert images.path('base').read_bytes()[:4] == b'QFI\xfb'


def test_nobody_may_read(images):
    if os.geteuid() or not shutil.which('setpriv'):
        pytest.skip('needs root and setpriv (package util-linux)')
    if not os.stat(images.tenon_program()).st_mode & 1:
        pytest.skip('the build is not for everybody')
    images.tenon('create', 'a.raw', '1M')
    os.chmod(images.path('a.raw'), 0o600)
    done = images.call('setpriv', '--reuid=65534', '--clear-groups', images.tenon_program(), 'image', 'info',
                       images.path('a.raw'), status=None)
    if 'setpriv' in done.stderr:
        pytest.skip(done.stderr.strip())
    said(done, 'no permission on', 3)
