"""
What the end-to-end tests share: the program under test, tiny guests, and a look at what is left over.

The build is found by TENON_BUILD, or is ./build. A test guest is a few bytes of machine code behind a
Multiboot header, so that most tests need no kernel and end in milliseconds.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import uuid

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get('TENON_BUILD') or ROOT / 'build').resolve()
NOBODY = 65534
SOFT = ('run', '--accel', 'soft')
# Seconds that one step of a guest may take on a loaded machine: a test that hangs must end, and be named,
# before the whole run is given up.
PATIENCE = int(os.environ.get('TENON_TEST_PATIENCE', '300'))
FIRMWARE = {'bios': '/usr/share/seabios/bios-256k.bin', 'uefi': '/usr/share/OVMF/OVMF_CODE_4M.fd'}
GRUB = {'bios': 'i386-pc', 'uefi': 'x86_64-efi'}


def multiboot(code):
    """A Multiboot 1 image: header with address fields, then 32-bit code, loaded at 1 MiB."""
    base = 0x100000
    flags = 1 << 16
    header = struct.pack('<IIIIIIII', 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF,
                         base, base, 0, 0, base + 32)
    return header + code


def out_byte(port, value):
    """mov dx, port; mov al, value; out dx, al"""
    return b'\x66\xba' + struct.pack('<H', port) + b'\xb0' + bytes([value]) + b'\xee'


def debug_exit(value):
    return out_byte(0xF4, value)


def serial_text(text):
    return b''.join(out_byte(0x3F8, byte) for byte in text.encode())


HALT = b'\xfa\xf4\xeb\xfd'       # cli; 1: hlt; jmp 1b
SPIN = b'\xeb\xfe'               # 1: jmp 1b
TRIPLE_FAULT = b'\x0f\x01\x1d\x00\x00\x00\x00\x0f\x0b'  # lidt [0]; ud2
# Sends every byte of ttyS0 back, one up: 'a' comes back as 'b'. 'q' ends the VM with status 0.
ECHO = (b'\x66\xba\xfd\x03'      # 1: mov dx, 0x3fd
        b'\xec'                  # in al, dx
        b'\xa8\x01'              # test al, 1
        b'\x74\xf7'              # jz 1b
        b'\x66\xba\xf8\x03'      # mov dx, 0x3f8
        b'\xec'                  # in al, dx
        b'\x3c\x71'              # cmp al, 'q'
        b'\x74\x05'              # je 2f
        b'\xfe\xc0'              # inc al
        b'\xee'                  # out dx, al
        b'\xeb\xe9'              # jmp 1b
        ) + debug_exit(0) + HALT


def pytest_configure(config):
    config.addinivalue_line('markers', 'soak: long; only on request, by -m soak')


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr:
        long = [item for item in items if item.get_closest_marker('soak')]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


class Tenon:
    """The command, with a mark in the environment that finds every process it leaves."""

    def __init__(self, folder, directory):
        self.path = str(folder / 'tenon')
        self.directory = directory
        self.mark = 'TENON_TEST=' + uuid.uuid4().hex
        self.processes = []
        self.known = {}  # pid: command line, of those that have been seen

    def guest(self, name, code):
        path = self.directory / name
        path.write_bytes(multiboot(code))
        return str(path)

    def disk(self, name='disk.img', size=1 << 20):
        path = self.directory / name
        with open(path, 'wb') as image:
            image.truncate(size)
        return str(path)

    def environment(self):
        key, value = self.mark.split('=')
        return dict(os.environ, **{key: value})

    def start(self, *args, prefix=(), **options):
        options.setdefault('stdin', subprocess.DEVNULL)
        options.setdefault('stdout', subprocess.PIPE)
        options.setdefault('stderr', subprocess.PIPE)
        process = subprocess.Popen([*prefix, self.path, *map(str, args)], env=self.environment(),
                                   cwd=self.directory, **options)
        self.processes.append(process)
        return process

    def run(self, *args, timeout=60, prefix=(), input=None):
        """Runs to the end; status, stdout, stderr as text. Nothing may be left running."""
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        process = self.start(*args, prefix=prefix, stdin=stdin)
        try:
            out, err = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail('no end after %d s: %s %s' % (timeout, out[-500:], err[-2000:]))
        self.expect_nothing_left()
        return subprocess.CompletedProcess(args, process.returncode, out.decode(errors='replace'),
                                           err.decode(errors='replace'))

    def run_beside(self, *args, timeout=120):
        """The same while a VM runs: what is left is not looked for."""
        return subprocess.run([self.path, *map(str, args)], cwd=self.directory, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, timeout=timeout)

    def left(self):
        """
        Processes that carry the mark and have not ended: (pid, command line). One that dies loses
        its memory, and the mark, before its files: it counts until it is gone.
        """
        for entry in os.listdir('/proc'):
            if not entry.isdigit():
                continue
            try:
                environment = pathlib.Path('/proc', entry, 'environ').read_bytes()
                command = pathlib.Path('/proc', entry, 'cmdline').read_bytes()
            except OSError:
                continue
            if self.mark.encode() in environment and command:
                self.known[int(entry)] = command.replace(b'\0', b' ').decode()
        for pid in list(self.known):
            try:
                state = pathlib.Path('/proc/%d/stat' % pid).read_text().rsplit(')', 1)[1].split()[0]
            except OSError:
                state = 'X'
            if state in 'XZ':
                del self.known[pid]
        return sorted(self.known.items())

    def find(self, program, timeout=10):
        """The pid of a child program, once it is there."""
        def look():
            return [pid for pid, command in self.left()
                    if pathlib.Path(command.split()[0]).name == program]
        return wait_for(look, timeout, 'a process ' + program)[0]

    def expect_nothing_left(self, timeout=3):
        wait_for(lambda: not self.left(), timeout, lambda: 'the end of %s' % self.left())

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
            process.wait()
        end = time.monotonic() + 3
        while self.left() and time.monotonic() < end:
            time.sleep(0.01)
        left = self.left()
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, 'left running: %s' % left


def wait_for(condition, timeout=10, what='it'):
    """Waits until `condition()` is true and returns its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail('waited %.0f s for %s' % (timeout, what() if callable(what) else what))
        time.sleep(0.01)


def start_guest(tenon, code=HALT, *args, **options):
    """A VM that runs this code, with its control socket `qmp` there."""
    kernel = tenon.guest('g', code)
    process = tenon.start(*SOFT, '--kernel', kernel, '--qmp', 'qmp', *args, **options)
    Qmp(tenon.directory / 'qmp').close()
    return process


def cpu_ticks(pid):
    """What a process has used, in hundredths of a second."""
    fields = pathlib.Path('/proc/%d/stat' % pid).read_text().rsplit(')', 1)[1].split()
    return int(fields[11]) + int(fields[12])


def read_until(process, text, timeout=30):
    """Reads standard output of a process until `text` has come; returns what was read."""
    os.set_blocking(process.stdout.fileno(), False)
    seen = b''

    def more():
        nonlocal seen
        try:
            piece = os.read(process.stdout.fileno(), 65536)
        except BlockingIOError:
            return False
        seen += piece
        if not piece and text.encode() not in seen:
            pytest.fail('the end instead of %r in %r' % (text, seen[-2000:]))
        return text.encode() in seen
    wait_for(more, timeout, lambda: '%r in %r' % (text, seen[-2000:]))
    return seen.decode(errors='replace')


def e2fsprogs(*words):
    """The outcome of a command of package e2fsprogs, or a skipped test."""
    environment = dict(os.environ, PATH=os.environ.get('PATH', '') + ':/usr/sbin:/sbin')
    if not shutil.which(words[0], path=environment['PATH']):
        pytest.skip('%s is missing (package e2fsprogs)' % words[0])
    return subprocess.run(words, capture_output=True, text=True, env=environment)


class Qmp:
    """A small QMP client."""

    def __init__(self, path, timeout=10):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)

        def connect():
            try:
                self.socket.connect(str(path))
                return True
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                return False
        wait_for(connect, timeout, 'the control socket')
        self.file = self.socket.makefile('rb')
        self.events = []
        self.greeting = self.message()
        self.command('qmp_capabilities')

    def message(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def raw(self, request):
        self.socket.sendall(json.dumps(request).encode())
        while True:
            message = self.message()
            if message is None or 'event' not in message:
                return message
            self.events.append(message)

    def command(self, name, /, **arguments):
        request = {'execute': name}
        if arguments:
            request['arguments'] = arguments
        answer = self.raw(request)
        assert answer and 'return' in answer, answer
        return answer['return']

    def event(self, name):
        while True:
            for event in self.events:
                if event['event'] == name:
                    self.events.remove(event)
                    return event
            message = self.message()
            assert message, 'the connection ended before ' + name
            if 'event' in message:
                self.events.append(message)

    def close(self):
        self.file.close()
        self.socket.close()


@pytest.fixture(scope='session')
def programs():
    folder = BUILD / 'src/cmd'
    for name in ('tenon', 'tenon-vmm', 'tenon-slirp', 'tenon-view', 'tenond'):
        if not os.access(folder / name, os.X_OK):
            pytest.fail('%s is missing: build first, or set TENON_BUILD' % (folder / name))
    return folder


@pytest.fixture
def tenon(programs, tmp_path):
    it = Tenon(programs, tmp_path)
    yield it
    it.close()


@pytest.fixture
def ordinary(programs):
    """(command, prefix that runs it as an ordinary user, a folder that this user can write)."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix='tenon-e2e-'))
    folder.chmod(0o755)
    work = folder / 'work'
    work.mkdir()
    prefix = ()
    if os.geteuid() == 0:
        if not shutil.which('setpriv'):
            pytest.skip('setpriv is missing (package util-linux)')
        for name in ('tenon', 'tenon-vmm', 'tenon-slirp'):
            shutil.copy(programs / name, folder / name)
        programs = folder
        os.chown(work, NOBODY, NOBODY)
        prefix = ('setpriv', '--reuid=%d' % NOBODY, '--regid=%d' % NOBODY, '--clear-groups')
    it = Tenon(programs, work)
    it.prefix = prefix
    yield it
    it.close()
    shutil.rmtree(folder)


def guest_folder(kernel):
    cache = pathlib.Path(os.environ.get('TENON_DEMO_CACHE') or ROOT / '.cache/demo-guest')
    folder = cache / kernel
    if not (folder / 'vmlinuz').exists() or not (folder / 'initrd').exists():
        pytest.skip('no demonstration guest in %s: run tools/demo-guest build --kernel %s'
                    % (cache, kernel))
    return folder


@pytest.fixture(scope='session')
def demo_guest():
    """Folder with vmlinuz and initrd of the demonstration guest."""
    return guest_folder('cloud')


@pytest.fixture(scope='session')
def pc_guest():
    """The same with Debian's generic kernel, which has drivers for what a PC has."""
    return guest_folder('generic')


@pytest.fixture(scope='session')
def disk(request, demo_guest, tmp_path_factory):
    """The image for a kind of firmware; tests boot copies."""
    made = {}

    def make(kind):
        path = os.environ['PATH'] + ':/usr/sbin:/sbin'
        missing = [tool for tool in ('sfdisk', 'mke2fs', 'grub-mkimage', 'mformat')
                   if not shutil.which(tool, path=path)]
        if missing or not pathlib.Path('/usr/lib/grub', GRUB[kind]).exists():
            pytest.skip('GRUB and its tools are missing (tools/install-deps test): %s' % missing)
        if not pathlib.Path(FIRMWARE[kind]).exists():
            pytest.skip('%s is missing' % FIRMWARE[kind])
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp('disk') / (kind + '.img')
            subprocess.run([ROOT / 'tools/disk-image', kind, made[kind]], check=True,
                           env=dict(os.environ, TENON_DEMO_CACHE=str(demo_guest.parent)))
        return made[kind]
    return make


@pytest.fixture
def terminal(tenon):
    """Starts a guest on a terminal of its own."""
    from terminal import Terminal
    made = []

    def make(code=ECHO, *args):
        kernel = tenon.guest('t', code)
        made.append(Terminal(tenon, *SOFT, '--debug-exit', '--kernel', kernel, *args))
        return made[-1]
    yield make
    for it in made:
        it.close()


@pytest.fixture
def tenond(tenon):
    """A daemon of the test's own."""
    from tenond import Tenond
    it = Tenond(tenon).start()
    yield it
    it.close()


@pytest.fixture
def echo(tenon):
    """A guest that says hello, then sends back what it gets, one up."""
    return tenon.guest('echo', serial_text('hello\n') + ECHO)


@pytest.fixture
def command(tenond):
    """Runs `tenon` for this daemon."""
    def run(*words, status=0, out=False):
        environment = dict(tenond.tenon.environment(), TENON_SOCKET=str(tenond.socket))
        done = subprocess.run([tenond.tenon.path, *map(str, words)], env=environment, text=True,
                              cwd=tenond.directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout if out or not status else done.stderr
    return run
