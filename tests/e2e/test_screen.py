"""
The VGA screen: as text in a terminal, as a picture, with the keys of its keyboard.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import fcntl
import json
import os
import pathlib
import re
import select
import shutil
import socket
import struct
import subprocess
import termios
import zlib

import pytest

from conftest import PATIENCE, ROOT, Qmp, out_byte, read_until, wait_for
from test_firmware import bios_text, boot_sector, expect_failure, needs_seabios
from terminal import Terminal

GOLDEN = pathlib.Path(__file__).parent / 'golden'

TEXT_MODE = b'\xb8\x03\x00\xcd\x10'        # int 0x10: mode 3, which clears the screen
KEY = b'\x31\xc0\xcd\x16'                  # int 0x16: al is the next key's character
EXIT = b'\xba\xf4\x00\xee'                 # al to the debug-exit port
READY = b'\xba\xf8\x03\xb0R\xee\xf4\xeb\xfd'  # 'R' to the serial port, then nothing more


class Screen:
    """What a terminal shows that was sent these bytes: the few sequences that a screen is drawn with."""

    TOKEN = re.compile(r'\x1b\[(\??)([0-9;]*)([A-Za-z])|([^\x1b])', re.S)

    def __init__(self):
        self.cells = {}
        self.at = (1, 1)
        self.rest = b''

    def feed(self, data):
        data = self.rest + data
        # A sequence or a character may come in two pieces.
        cut = max(data.rfind(b'\x1b'), 0) if re.search(rb'\x1b[^A-Za-z]*$', data) else len(data)
        while cut and cut == len(data) and data[cut - 1] & 0x80 and cut > len(data) - 3:
            try:
                data.decode()
                break
            except UnicodeDecodeError:
                cut = max(i for i in range(len(data)) if data[i] & 0xc0 == 0xc0)
        self.rest = data[cut:]
        for private, numbers, final, character in self.TOKEN.findall(data[:cut].decode()):
            values = [int(number or 1) for number in numbers.split(';')]
            if final == 'H':
                self.at = (values[0], values[1]) if len(values) == 2 else (1, 1)
            elif final == 'J':
                self.cells = {}
            elif character and character not in '\r\n':
                self.cells[self.at] = character
                self.at = (self.at[0], self.at[1] + 1)

    def text(self):
        rows = max((row for row, _ in self.cells), default=0)
        return '\n'.join(''.join(self.cells.get((row, column), ' ') for column in range(1, 133)).rstrip()
                         for row in range(1, rows + 1))


class Watch:
    """A VM whose screen is on standard output, and whose keyboard is standard input."""

    def __init__(self, process):
        self.process = process
        self.screen = Screen()
        os.set_blocking(process.stdout.fileno(), False)

    def text(self):
        while select.select([self.process.stdout], [], [], 0)[0]:
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                break
            self.screen.feed(piece)
        return self.screen.text()

    def expect(self, text, timeout=PATIENCE):
        wait_for(lambda: text in self.text(), timeout, lambda: '%r on\n%s' % (text, self.text()))

    def type(self, keys):
        self.process.stdin.write(keys)
        self.process.stdin.flush()


def picture(path):
    """(width, height, rows of bytes) of a PNG that Tenon wrote: 8-bit colours, no filters."""
    data = path.read_bytes()
    assert data.startswith(b'\x89PNG\r\n\x1a\n')
    at, packed = 8, b''
    while at < len(data):
        size, kind = struct.unpack('>I4s', data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b'IHDR':
            width, height, *form = struct.unpack('>IIBBBBB', body)
            assert form == [8, 2, 0, 0, 0]
        elif kind == b'IDAT':
            packed += body
        at += size + 12
    raw = zlib.decompress(packed)
    stride = 3 * width + 1
    assert len(raw) == height * stride
    assert not any(raw[y * stride] for y in range(height))
    return width, height, [raw[y * stride + 1:(y + 1) * stride] for y in range(height)]


def expect_golden(tenon, name, ignore=range(0), timeout=PATIENCE):
    """The screen becomes the picture of that name; rows in `ignore` tell versions."""
    wanted = picture(GOLDEN / name)

    def look():
        result = tenon.run_beside('screenshot', 'qmp.sock', name)
        assert result.returncode == 0, result.stderr
        width, height, rows = picture(tenon.directory / name)
        return (width, height) == wanted[:2] and all(
            rows[y] == wanted[2][y] for y in range(height) if y not in ignore)
    wait_for(look, timeout, 'the picture ' + name)


def start(tenon, code, *args, console='serial', **options):
    sector = boot_sector(tenon.directory, code)
    return tenon.start('run', '--accel', 'soft', '--firmware', 'bios', '--disk', sector, '--debug-exit',
                    '--console', console, '--qmp', 'qmp.sock', '--report', 'report.json', *args,
                    **options)


def status(tenon):
    return json.loads((tenon.directory / 'report.json').read_text())['status']


@needs_seabios
def test_text_and_keys_of_a_bios(tenon):
    process = start(tenon, TEXT_MODE + bios_text('what now?') + KEY + EXIT, console='vga',
                    stdin=subprocess.PIPE)
    watch = Watch(process)
    wait_for(lambda: watch.text().strip() == 'what now?', PATIENCE, watch.text)
    watch.type(b'X')
    process.wait(timeout=120)
    assert status(tenon) == ord('X')
    said = process.stderr.read().decode()
    assert '  screen: VGA adapter' in said and 'console c0: text of the screen on ' in said


@needs_seabios
@pytest.mark.parametrize('screen', [('--vga',), ()], ids=['screen', 'blind'])
def test_keys_by_name_and_as_text(tenon, screen):
    """A VM that starts with firmware has a keyboard, with or without a screen."""
    process = start(tenon, TEXT_MODE + KEY + b'\x50' + KEY + b'\x5b\x28\xd8' + EXIT + READY, *screen)
    Qmp(tenon.directory / 'qmp.sock', 60).close()
    read_until(process, 'Booting from Hard Disk', timeout=PATIENCE)
    result = tenon.run_beside('keys', 'qmp.sock', 'shift-z', '--text', '!')
    assert result.returncode == 0, result.stderr
    process.communicate(timeout=120)
    assert status(tenon) == (ord('!') - ord('Z')) & 255


def test_the_mouse_moves(tenon):
    # Takes the i8042's bytes for the mouse by itself: on, report; then three bytes, and their sum.
    code = bytes.fromhex('b0a8e664b0d4e664b0f4e660e460')  # port on, 0xf4 to the mouse, take its answer
    code += out_byte(0x3F8, ord('R'))
    wait = bytes.fromhex('e464a80174fae460')              # in al, 0x64; test al, 1; jz; in al, 0x60
    code += b'\x31\xdb' + (wait + b'\x00\xc3') * 3 + b'\x88\xd8\x66\xba\xf4\x00\xee\xf4'
    process = tenon.start('run', '--accel', 'soft', '--vga', '--kernel', tenon.guest('guest', code),
                       '--debug-exit', '--qmp', 'qmp.sock', '--report', 'report.json')
    read_until(process, 'R')
    qmp = Qmp(tenon.directory / 'qmp.sock')
    qmp.command('input-send-event', events=[
        {'type': 'btn', 'data': {'down': True, 'button': 'right'}}])
    process.wait(timeout=60)
    assert status(tenon) == 0x08 | 0x02
    qmp.close()


@needs_seabios
def test_picture_of_a_graphics_mode(tenon):
    # Mode 0x13: byte n of the screen is n.
    code = (b'\xb8\x13\x00\xcd\x10\xb8\x00\xa0\x8e\xc0\x31\xff\xb9\x00\xfa'
            + b'\x89\xf8\xaa\xe2\xfb' + READY)
    process = start(tenon, code, '--vga')
    qmp = Qmp(tenon.directory / 'qmp.sock', 60)
    # The last byte of the last line is 0xff, and black; the one before it is not.
    wait_for(lambda: shot(tenon, 'a.png')[:2] == (640, 400), PATIENCE, 'the mode')
    wait_for(lambda: any(shot(tenon, 'a.png')[2][399]), PATIENCE, 'the last line')
    width, height, rows = shot(tenon, 'a.png')
    assert (width, height) == (640, 400)
    palette = {}
    for y in range(height):
        for x in range(0, width, 2):
            index = (y // 2 * 320 + x // 2) & 255
            assert palette.setdefault(index, rows[y][3 * x:3 * x + 3]) == rows[y][3 * x:3 * x + 3]
            assert rows[y][3 * x:3 * x + 3] == rows[y][3 * x + 3:3 * x + 6]
    assert palette[0] == b'\0\0\0' and palette[4] == b'\xa8\0\0' and palette[15] == b'\xff\xff\xff'
    result = tenon.run_beside('screenshot', 'qmp.sock', 'a.ppm')
    assert result.returncode == 0, result.stderr
    assert (tenon.directory / 'a.ppm').read_bytes() == b'P6\n640 400\n255\n' + b''.join(rows)
    qmp.command('quit')
    process.wait(timeout=60)


def shot(tenon, name):
    result = tenon.run_beside('screenshot', 'qmp.sock', name)
    assert result.returncode == 0, result.stderr
    return picture(tenon.directory / name)


def test_the_framebuffer_moves_under_a_guest(tenon):
    # A hundred times: BAR 0 goes to the other of two places by ports 0xcf8 and 0xcfc, one more word is
    # written there and read many times; at the end all words are as they were. 0x11: good.
    code = bytes.fromhex(
        '31dbb9000000d0f6c301740681c10000000266baf80cb810080080ef66bafc0c89c8ef891c99beb80b00008b0499'
        '39d875184e75f64383fb6472c74b8b049939d875074b79f6b011eb02b02266baf400eef4')
    for modes in ((), ('--accel-debug', 'lockstep'), ('--accel-debug', 'xlate-after=1')):
        tenon.run('run', '--accel', 'soft', '--vga', '--kernel', tenon.guest('guest', code), '--debug-exit',
               '--report', 'report.json', '--console', 'serial,backend=null', *modes, timeout=300)
        assert status(tenon) == 0x11


@needs_seabios
def test_a_terminal_of_its_own_size(tenon):
    sector = boot_sector(tenon.directory, TEXT_MODE + bios_text('far' + '\n' * 20 + 'near')
                         + KEY + EXIT)
    terminal = Terminal(tenon, 'run', '--accel', 'soft', '--firmware', 'bios', '--disk', sector,
                        '--debug-exit', '--console', 'vga', '--report', 'report.json')
    try:
        fcntl.ioctl(terminal.slave, termios.TIOCSWINSZ, struct.pack('HHHH', 10, 40, 0, 0))
        screen = Screen()
        fed = 0

        def text():
            nonlocal fed
            seen = terminal.read()
            screen.feed(seen[fed:])
            fed = len(seen)
            return screen.text()
        wait_for(lambda: 'near' in text(), PATIENCE, lambda: text())
        # The rows around the cursor, and no row or column beyond.
        wait_for(lambda: 'far' not in text() and len(text().splitlines()) <= 10, 60, lambda: text())
        assert all(column <= 40 for _, column in screen.cells)
        fcntl.ioctl(terminal.slave, termios.TIOCSWINSZ, struct.pack('HHHH', 30, 100, 0, 0))
        wait_for(lambda: 'far' in text() and 'near' in text(), 60, lambda: text())
        terminal.type(b'k')
        terminal.end(120)
        terminal.expect_restored()
        assert status(tenon) == ord('k')
    finally:
        terminal.close()


def test_grub_menu_and_linux_console(tenon, disk):
    copy = tenon.directory / 'disk.img'
    subprocess.run(['cp', '--sparse=always', disk('bios'), copy], check=True)
    process = tenon.start('run', '--accel', 'soft', '--firmware', 'bios', '--disk', copy, '--console',
                       'vga', '--console', 'serial,backend=socket,path=serial.sock', '--qmp',
                       'qmp.sock', stdin=subprocess.PIPE)
    watch = Watch(process)
    # A key that comes early waits in the BIOS, and stops the menu's clock.
    watch.expect('GRUB')
    watch.type(b'\x1b[B')
    watch.expect('with shell')
    watch.type(b'\x1b[B')
    watch.expect('*Tenon, with shell')
    # The title tells GRUB's version.
    expect_golden(tenon, 'grub-menu.png', ignore=range(16, 32))
    serial = socket.socket(socket.AF_UNIX)
    serial.connect(str(tenon.directory / 'serial.sock'))
    watch.type(b'\r')
    said = b''

    def heard(text):
        nonlocal said
        while select.select([serial], [], [], 0)[0]:
            piece = serial.recv(65536)
            assert piece, said[-2000:]
            said += piece
        return text in said
    wait_for(lambda: heard(b'disk: a shell'), PATIENCE, lambda: said[-2000:])
    # The kernel's own console, on the same screen; and its keyboard.
    serial.sendall(b"printf '\\033[2J\\033[Hon the console: %d' $((6*7)) >/dev/tty1\n")
    watch.expect('on the console: 42')
    serial.sendall(b'read word </dev/tty1; echo heard: $word.\n')
    watch.type(b'Typed-here!\r')
    wait_for(lambda: heard(b'heard: Typed-here!.'), PATIENCE, lambda: said[-2000:])
    serial.sendall(b'exit\n')
    process.wait(timeout=PATIENCE)
    assert process.returncode == 0, process.stderr.read()
    serial.close()


def test_grub_menu_under_uefi(tenon, disk):  # noqa: F811
    """OVMF draws text as a picture; the keys are those of the PS/2 keyboard."""
    process = tenon.start('run', '--accel', 'soft', '--firmware', 'uefi', '--firmware-vars', 'vars.fd',
                          '--vga', '--disk', '%s,readonly' % disk('uefi'), '--qmp', 'qmp.sock')
    # A key that comes early waits in the firmware, and stops the menu's clock.
    read_until(process, 'BdsDxe: starting', timeout=PATIENCE)
    assert tenon.run_beside('keys', 'qmp.sock', 'down').returncode == 0
    read_until(process, '*Tenon, with shell', timeout=PATIENCE)
    expect_golden(tenon, 'grub-menu-uefi.png', ignore=range(104, 130))
    assert tenon.run_beside('keys', 'qmp.sock', 'ret').returncode == 0
    read_until(process, 'disk: a shell', timeout=PATIENCE)
    qmp = Qmp(tenon.directory / 'qmp.sock')
    qmp.command('quit')
    qmp.close()
    process.wait(timeout=60)


INIT = r"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod /modules/$module; done </modules/order
exec >/dev/tty1
printf '\033[2J\033[H\033[1;33;44m Tenon \033[0m framebuffer console\n\n'
for c in 0 1 2 3 4 5 6 7; do
    printf "\033[3${c}mcolour $c \033[1mbright\033[0m \033[4${c}m background \033[0m\n"
done
printf '\n0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ\n'
echo 'screen: drawn' >/dev/ttyS0
exec /bin/busybox sleep 100000
"""


def bochs_initrd(directory, modules):
    """An initramfs that loads bochs-drm and draws on the console."""
    root = directory / 'root'
    for name in ('bin', 'dev', 'modules'):
        (root / name).mkdir(parents=True)
    shutil.copy('/bin/busybox', root / 'bin/busybox')
    order = subprocess.run([ROOT / 'tools/demo-guest.d/module-order', modules, 'bochs'], check=True,
                           capture_output=True, text=True).stdout.split()
    for module in order:
        shutil.copy(modules / module, root / 'modules')
    (root / 'modules/order').write_text(''.join(os.path.basename(path) + '\n' for path in order))
    (root / 'init').write_text(INIT)
    (root / 'init').chmod(0o755)
    names = subprocess.run(['find', '.'], cwd=root, check=True, capture_output=True).stdout
    packed = subprocess.run(['cpio', '-o', '-H', 'newc', '--quiet'], cwd=root, input=names, check=True,
                            capture_output=True).stdout
    (directory / 'initrd').write_bytes(packed)
    return directory / 'initrd'


def test_framebuffer_console_of_bochs_drm(tenon, demo_guest):
    guest = demo_guest.parent / 'generic'
    if not (guest / 'vmlinuz').exists():
        pytest.skip('no generic kernel in %s: run tools/demo-guest --kernel generic' % guest)
    process = tenon.start('run', '--accel', 'soft', '--vga', '--kernel', guest / 'vmlinuz', '--initrd',
                       bochs_initrd(tenon.directory, guest / 'modules'), '--append',
                       'console=ttyS0 vt.global_cursor_default=0', '--qmp', 'qmp.sock')
    read_until(process, 'screen: drawn', timeout=PATIENCE)
    expect_golden(tenon, 'framebuffer-console.png')
    qmp = Qmp(tenon.directory / 'qmp.sock')
    qmp.command('quit')
    qmp.close()
    process.wait(timeout=60)


# ---- bad input ----

def test_what_cannot_be(tenon):
    guest = tenon.guest('guest', b'\xf4')
    expect_failure(tenon.run('run', '--kernel', guest, '--vga', '--board', 'micro'), 2, 'VGA', 'q35')
    expect_failure(tenon.run('run', '--kernel', guest, '--console', 'vga,backend=null', '--console', 'vga'),
                   2, '2 consoles show the VGA screen')
    expect_failure(tenon.run('screenshot', 'qmp.sock'), 2, 'control socket')
    expect_failure(tenon.run('screenshot', 'nowhere.sock', 'a.png'), 1, 'nowhere.sock')
    expect_failure(tenon.run('screenshot', 'q', 'a.png', '--format', 'gif'), 2, 'png and ppm', 'gif')
    expect_failure(tenon.run('screenshot', guest, 'a.png'), 1, 'no VM listens')
    expect_failure(tenon.run('keys', 'qmp.sock'), 2, '--text')
    expect_failure(tenon.run('keys', 'qmp.sock', 'ctrl-any'), 2, "no key 'any'")
    expect_failure(tenon.run('keys', 'qmp.sock', '--text', 'ä'), 2, '0xc3')
    expect_failure(tenon.run('keys', 'qmp.sock', 'a', '--hold', '0'), 2, '--hold')
    assert not (tenon.directory / 'a.png').exists()


def test_requests_to_a_vm(tenon):
    guest = tenon.guest('guest', b'\xf4\xeb\xfd')
    process = tenon.start('run', '--accel', 'soft', '--kernel', guest, '--qmp', 'qmp.sock', '--console',
                       'serial,backend=null')
    qmp = Qmp(tenon.directory / 'qmp.sock')
    for arguments in ({}, {'keys': []}, {'keys': [{'type': 'qcode', 'data': 'any'}]},
                      {'keys': [{'type': 'number', 'data': 256}]}, {'keys': ['a']},
                      {'keys': [{'type': 'qcode', 'data': 'a'}], 'hold-time': 1 << 40},
                      {'keys': [{'type': 'qcode', 'data': 'a'}] * 9},
                      {'keys': [{'type': 'qcode', 'data': 'a'}]}):
        answer = qmp.raw({'execute': 'send-key', 'arguments': arguments})
        assert 'error' in answer, arguments
    assert 'no keyboard' in answer['error']['desc']
    for event in ({}, {'type': 'abs', 'data': {'axis': 'x', 'value': 1}}, {'type': 'btn', 'data': {}},
                  {'type': 'rel', 'data': {'axis': 'z', 'value': 1}},
                  {'type': 'rel', 'data': {'axis': 'x', 'value': 1 << 20}},
                  {'type': 'key', 'data': {'down': True, 'key': {'type': 'qcode', 'data': 'any'}}},
                  {'type': 'rel', 'data': {'axis': 'x', 'value': 1}}):
        answer = qmp.raw({'execute': 'input-send-event', 'arguments': {'events': [event]}})
        assert 'error' in answer, event
    assert 'no screen' in answer['error']['desc']
    answer = qmp.raw({'execute': 'screendump', 'arguments': {'filename': '/tmp/a.ppm'}})
    assert '/dev/fdset/' in answer['error']['desc']
    result = tenon.run_beside('screenshot', 'qmp.sock', 'a.png')
    assert result.returncode == 1 and 'no screen' in result.stderr
    assert sorted(path.name for path in tenon.directory.glob('a.png*')) == []
    qmp.command('quit')
    qmp.close()
    process.wait(timeout=60)
