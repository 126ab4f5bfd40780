"""
tenon-view: a VM's screen for VNC viewers, Debian's and one of our own, with and without TLS.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import pty
import shutil
import socket
import struct
import subprocess
import termios
import zlib

import pytest

import rfb
from conftest import PATIENCE, Qmp, wait_for
from test_firmware import bios_text, expect_failure, needs_seabios
from test_screen import EXIT, KEY, TEXT_MODE, shot, start, status


KEY_A, KEY_SHIFT = ord('a'), 0xffe1
# Two keys: their characters, subtracted.
TWO_KEYS = KEY + b'\x50' + KEY + b'\x5b\x28\xd8' + EXIT


def secret(tenon, name, text):
    path = tenon.directory / name
    path.write_text(text + '\n')
    return path


def view(tenon, *options):
    """A `tenon view` and where its viewers come."""
    process = tenon.start('view', 'qmp.sock', '--vnc', '127.0.0.1:0', *options)
    line = process.stdout.readline().decode()
    assert line.startswith('VNC on '), (line, process.stderr.read())
    return process, line.split()[2].rstrip(';')


def on_screen(tenon, code):
    """A VM whose BIOS has written 'what now?' and then runs `code`."""
    process = start(tenon, TEXT_MODE + bios_text('what now?') + code, '--vga')
    qmp = Qmp(tenon.directory / 'qmp.sock', 60)
    wait_for(lambda: shot(tenon, 'seen.png')[:2] == (720, 400) and any(map(any, shot(tenon, 'seen.png')[2])),
             PATIENCE, 'the text')
    wait_for(lambda: shot(tenon, 'seen.png') == shot(tenon, 'again.png'), PATIENCE, 'a screen at rest')
    return process, qmp


def png(path):
    """(width, height, rows of bytes) of any PNG with 8-bit colours."""
    data = path.read_bytes()
    at, packed = 8, b''
    while at < len(data):
        size, kind = struct.unpack('>I4s', data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b'IHDR':
            width, height, depth, colours = struct.unpack('>IIBB', body[:10])
            assert depth == 8 and colours in (2, 6)
        packed += body if kind == b'IDAT' else b''
        at += size + 12
    step = 3 if colours == 2 else 4
    raw, before, rows = zlib.decompress(packed), bytes(step * width), []
    for y in range(height):
        kind, *row = raw[y * (step * width + 1):(y + 1) * (step * width + 1)]
        for x in range(step * width):
            left, up = row[x - step] if x >= step else 0, before[x]
            corner = before[x - step] if x >= step else 0
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda part: abs(guess - part))
            row[x] = row[x] + (0, left, up, (left + up) // 2, paeth)[kind] & 255
        before = bytes(row)
        rows.append(bytes(b for x in range(width) for b in row[step * x:step * x + 3]))
    return width, height, rows


@needs_seabios
def test_viewers_see_what_the_screenshot_shows(tenon):
    process, qmp = on_screen(tenon, TWO_KEYS)
    viewing, where = view(tenon)
    wanted = shot(tenon, 'wanted.png')
    zrle = rfb.Viewer(where)
    raw = rfb.Viewer(where, encodings=[rfb.RAW, rfb.QEMU_KEYS])
    old = rfb.Viewer(where, encodings=[rfb.RAW], version=b'003')
    assert zrle.name == 'vm' and zrle.offered == [rfb.VENCRYPT, rfb.NONE]
    assert zrle.picture() == raw.picture() == old.picture() == wanted
    assert raw.has_qemu_keys and not zrle.has_qemu_keys
    # Two viewers, each types a key: one by what is on it, one by where it is.
    zrle.key(ord('Z'))
    raw.qemu_key(0, 0x1e)
    process.wait(timeout=120)
    assert status(tenon) == (ord('a') - ord('Z')) & 255
    # The VM has ended, and with it the view.
    assert viewing.wait(timeout=20) == 0, viewing.stderr.read()
    tenon.expect_nothing_left()
    qmp.close()


@needs_seabios
def test_only_what_has_changed_is_sent(tenon):
    # Writes a character for each key.
    process, qmp = on_screen(tenon, b'\x31\xc0\xcd\x16\xb4\x0e\xbb\x07\x00\xcd\x10\xeb\xf3')
    viewing, where = view(tenon)
    viewer = rfb.Viewer(where)
    before = viewer.picture()
    viewer.request(incremental=True)
    viewer.key(KEY_A)
    area = 0
    while viewer.rows() == before[2]:
        area += viewer.update()
        viewer.request(incremental=True)
    # A letter and the cursor: tiles of 64 by 64, not the whole screen.
    assert 0 < area <= 8 * 64 * 64 < 720 * 400
    def same():
        viewer.update()
        viewer.request(incremental=True)
        return viewer.rows() == shot(tenon, 'after.png')[2]
    if viewer.rows() != shot(tenon, 'after.png')[2]:
        wait_for(same, 60, 'the letter')
    viewing.terminate()
    assert viewing.wait(timeout=20) == 0
    # The VM runs on, and others may look.
    viewing, where = view(tenon)
    assert rfb.Viewer(where).picture() == shot(tenon, 'wanted.png')
    qmp.command('quit')
    process.wait(timeout=60)
    qmp.close()


@needs_seabios
def test_passwords_and_what_they_allow(tenon):
    process, qmp = on_screen(tenon, TWO_KEYS)
    viewing, where = view(tenon, '--vnc-password-file', secret(tenon, 'all', 'typist'),
                          '--vnc-look-password-file', secret(tenon, 'look', 'visitor'))
    for wrong in 'nobody', '', 'typis':
        with pytest.raises(rfb.Refused, match='wrong password'):
            rfb.Viewer(where, wrong, security=rfb.VNC)
    with pytest.raises(rfb.Refused):
        rfb.Viewer(where, security=rfb.NONE)
    visitor = rfb.Viewer(where, 'visitor', security=rfb.VNC)
    typist = rfb.Viewer(where, 'typist', security=rfb.VNC)
    assert visitor.picture() == typist.picture() == shot(tenon, 'wanted.png')
    visitor.key(ord('q'))
    visitor.picture()  # the answer comes after the key
    typist.key(ord('c'))
    typist.key(KEY_A)
    process.wait(timeout=120)
    assert status(tenon) == (ord('a') - ord('c')) & 255
    viewing.wait(timeout=20)
    qmp.close()


@needs_seabios
def test_tls_with_a_certificate(tenon):
    process, qmp = on_screen(tenon, TWO_KEYS)
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'key.pem', '-out',
                    'cert.pem', '-days', '2', '-subj', '/CN=localhost', '-addext',
                    'subjectAltName=DNS:localhost'], cwd=tenon.directory, check=True, capture_output=True)
    long = 'a password that is longer than eight characters'
    viewing, where = view(tenon, '--vnc-password-file', secret(tenon, 'all', long), '--vnc-certificate',
                          'cert.pem', '--vnc-key', 'key.pem', '--vnc-tls-only')
    authority = tenon.directory / 'cert.pem'
    with pytest.raises(rfb.Refused, match='wrong password'):
        rfb.Viewer(where, long[:8], authority=authority)
    with pytest.raises(rfb.Refused):
        rfb.Viewer(where, long, security=rfb.VNC)
    with pytest.raises(rfb.Refused, match='TLS'):
        rfb.Viewer(where, long, version=b'003')
    viewer = rfb.Viewer(where, long, authority=authority)
    assert viewer.offered == [rfb.VENCRYPT] and viewer.socket.version().startswith('TLSv1')
    assert viewer.picture() == shot(tenon, 'wanted.png')
    viewer.close()
    qmp.command('quit')
    process.wait(timeout=60)
    viewing.wait(timeout=20)
    qmp.close()


def capture(tenon, where, password):
    """gvnccapture, which asks on a terminal, and forgets what was typed before it hides the password."""
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(['timeout', '--foreground', '-k', '5', '100', 'gvnccapture', where, 'taken.png'],
                               cwd=tenon.directory, stdin=terminal, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    said = b''

    def hides():
        return not termios.tcgetattr(terminal)[3] & termios.ECHO
    while piece := os.read(process.stdout.fileno(), 1000):
        said += piece
        for question, answer in ((b'Username: ', 'user'), (b'Password: ', password)):
            if piece.endswith(question):
                if question == b'Password: ':
                    wait_for(hides, 60, 'gvnccapture to hide what is typed')
                os.write(keyboard, (answer + '\n').encode())
    assert process.wait() == 0, said
    process.stdout.close()
    os.close(keyboard)
    os.close(terminal)


@needs_seabios
@pytest.mark.skipif(not shutil.which('gvnccapture'), reason='gvnccapture is missing (package gvncviewer)')
@pytest.mark.parametrize('password', [None, 'tenon'])
def test_gvnccapture_takes_the_same_picture(tenon, password):
    """It chooses VeNCrypt and anonymous TLS by itself."""
    process, qmp = on_screen(tenon, TWO_KEYS)
    options = ['--vnc-tls-only']
    if password:
        options += ['--vnc-password-file', secret(tenon, 'all', password)]
    viewing, where = view(tenon, *options)
    address, port = where.split(':')
    capture(tenon, '%s:%d' % (address, int(port) - 5900), password)
    assert png(tenon.directory / 'taken.png') == shot(tenon, 'wanted.png')
    qmp.command('quit')
    process.wait(timeout=60)
    viewing.wait(timeout=20)
    qmp.close()


def listens(path):
    """A socket has its name before anybody listens on it."""
    try:
        rfb.connect(path).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


@needs_seabios
def test_run_with_vnc(tenon):
    process = start(tenon, TEXT_MODE + bios_text('what now?') + KEY + EXIT, '--vga', '--vnc', './vnc.sock')
    wait_for(lambda: listens(tenon.directory / 'vnc.sock'), 60, 'the socket')
    assert (tenon.directory / 'vnc.sock').stat().st_mode & 0o777 == 0o600
    viewer = rfb.Viewer(tenon.directory / 'vnc.sock')
    wait_for(lambda: viewer.picture()[:2] == (720, 400) and viewer.rows() == shot(tenon, 'seen.png')[2]
             and any(map(any, viewer.rows())), PATIENCE, 'the text')
    viewer.pointer(3, 3, 1)
    viewer.key(ord('K'))
    process.wait(timeout=120)
    # A key that came before the guest asked waits in the BIOS.
    assert status(tenon) == ord('K')
    assert not (tenon.directory / 'vnc.sock').exists()
    tenon.expect_nothing_left()


@needs_seabios
def test_the_vm_survives_its_view(tenon):
    process = start(tenon, TEXT_MODE + KEY + EXIT, '--vga', '--vnc', '0')
    qmp = Qmp(tenon.directory / 'qmp.sock', 60)
    subprocess.run(['kill', '-9', str(tenon.find('tenon-view'))], check=True)
    wait_for(lambda: not [1 for _, line in tenon.left() if 'tenon-view' in line], 10, 'its end')
    assert qmp.command('query-status')['running']
    qmp.command('quit')
    _, said = process.communicate(timeout=60)
    assert b'tenon-view was killed by signal 9 (Killed); the VM runs on without it' in said
    qmp.close()


def test_what_a_viewer_may_not_share(tenon):
    guest = tenon.guest('guest', b'\xf4\xeb\xfd')
    process = tenon.start('run', '--accel', 'soft', '--kernel', guest, '--qmp', 'qmp.sock', '--vga', '--console',
                          'serial,backend=null')
    qmp = Qmp(tenon.directory / 'qmp.sock')
    answer = qmp.raw({'execute': 'tenon-screen-share'})
    assert 'SCM_RIGHTS' in answer['error']['desc']
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    socket.send_fds(qmp.socket, [b'{"execute": "tenon-screen-share"}'], [theirs.fileno()])
    theirs.close()
    while 'return' not in qmp.message():
        pass
    # Memory that could be taken away again is not taken.
    memory = os.memfd_create('screen', os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, 64 << 20)
    socket.send_fds(ours, [b'\1'], [memory])
    ours.settimeout(20)
    assert ours.recv(100) == b''
    ours.close()
    os.close(memory)
    qmp.command('quit')
    process.wait(timeout=60)
    qmp.close()


def test_usage(tenon):
    guest = tenon.guest('guest', b'\xf4')
    secret(tenon, 'empty', '')
    expect_failure(tenon.run('view'), 2, 'give a VM')
    expect_failure(tenon.run('view', 'nobody'), 1, "no VM 'nobody' runs")
    expect_failure(tenon.run('run', '--kernel', guest, '--vnc', '0'), 2, '--vga')
    run = ['run', '--accel', 'soft', '--vga', '--console', 'serial,backend=null', '--kernel', guest]
    expect_failure(tenon.run(*run, '--vnc', '0.0.0.0:0'), 2, '0.0.0.0:0', '--vnc-password-file')
    expect_failure(tenon.run(*run, '--vnc', '0', '--vnc-password-file', 'empty'), 2, 'password is empty')
    expect_failure(tenon.run(*run, '--vnc', '0', '--vnc-password-file', 'none'), 1, "cannot read 'none'")
    expect_failure(tenon.run(*run, '--vnc', '0', '--vnc-key', 'empty'), 2, 'go together')
    expect_failure(tenon.run(*run, '--vnc', '0', '--vnc-key', 'empty', '--vnc-certificate', 'empty'), 2,
                   'certificate')
    expect_failure(tenon.run(*run, '--vnc', 'nowhere:1'), 2, 'no place to listen')
    assert not list(pathlib.Path(tenon.directory).glob('*.sock'))
