"""
The life of a VM under `tenon run`: how it ends and what is said then, signals, killed processes, the
terminal, consoles, QMP, the sandbox, two VMs at once. The guests are a few bytes of machine code.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time

import pytest

from conftest import (ECHO, HALT, SPIN, TRIPLE_FAULT, Qmp, debug_exit, out_byte, read_until, serial_text,
                      wait_for)

SOFT = ('run', '--accel', 'soft')


# ---- the end, and what is said ----

@pytest.mark.parametrize('value, status', [(0, 0), (1, 1), (3, 1), (255, 1)])
def test_debug_exit(tenon, value, status):
    kernel = tenon.guest('k', debug_exit(value) + HALT)
    result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--json')
    assert result.returncode == status, result.stderr
    report = json.loads(result.stdout)
    assert report['result'] == 'exit' and report['status'] == value
    assert report['engine'] == 'soft' and report['name'] == 'vm'
    assert report['exit_status'] == status and report['forced'] is False


def test_disk_is_free_when_the_vm_has_ended(tenon):
    """At once: the kernel keeps an io_uring's files open for some time, but the lock is given back."""
    kernel, disk = tenon.guest('k', debug_exit(0) + HALT), tenon.disk()
    for _ in range(4):
        assert tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--disk', disk).returncode == 0
        with open(disk, 'r+b') as file:
            fcntl.fcntl(file, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK



def test_console_on_standard_output(tenon):
    kernel = tenon.guest('k', serial_text('hello, world\n') + debug_exit(0) + HALT)
    result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel)
    assert result.stdout == 'hello, world\n'
    assert "VM 'vm'" in result.stderr and 'first guest instruction' in result.stderr
    quiet = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--quiet')
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, 'hello, world\n', '')
    pure = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--json', '--quiet')
    assert json.loads(pure.stdout)['result'] == 'exit' and pure.stderr == 'hello, world\n'


def test_report_file_and_timeline(tenon, tmp_path):
    kernel = tenon.guest('k', serial_text('x') + debug_exit(0) + HALT)
    before = time.monotonic_ns()
    result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--report', 'r.json')
    after = time.monotonic_ns()
    report = json.loads((tmp_path / 'r.json').read_text())
    stages = {row['stage']: row['at_ns'] for row in report['timeline']}
    order = ['exec', 'config', 'memory', 'devices', 'first guest instruction', 'first output', 'end']
    times = [stages[stage] for stage in order]
    assert times == sorted(times), stages
    assert before <= times[0] and times[-1] <= after
    assert report['stats']['pio'] >= 2
    table = tenon.run('timeline', 'r.json')
    assert table.returncode == 0 and table.stdout in result.stderr
    assert [row['stage'] for row in json.loads(tenon.run('timeline', 'r.json', '--json').stdout)] \
        == [row['stage'] for row in report['timeline']]
    (tmp_path / 'bad.json').write_text('{"timeline": 1}')
    assert tenon.run('timeline', 'bad.json').returncode == 1
    assert tenon.run('timeline', 'gone.json').returncode == 1


def test_crash(tenon):
    kernel = tenon.guest('k', TRIPLE_FAULT)
    result = tenon.run(*SOFT, '--kernel', kernel, '--on-reset', 'exit', '--report', 'r.json')
    report = json.loads((tenon.directory / 'r.json').read_text())
    assert report['result'] in ('crash', 'reset'), report
    assert result.returncode == (1 if report['result'] == 'crash' else 0)


def test_vmfile(tenon, tmp_path):
    tenon.guest('k', serial_text('from the file\n') + debug_exit(0) + HALT)
    (tmp_path / 'vm').mkdir()
    (tmp_path / 'vm/vm.yaml').write_text('kernel: ../k\naccel: soft\ndebug-exit: true\nname: x\n')
    result = tenon.run('run', 'vm/vm.yaml', '--memory', '64M')
    assert result.returncode == 0 and result.stdout == 'from the file\n'
    assert "VM 'x', 1 CPU, 64 MiB" in result.stderr


# ---- standard input and output ----

def test_input_reaches_the_guest(tenon):
    kernel = tenon.guest('k', ECHO)
    result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, input=b'HAL\x1dq')
    assert result.stdout == 'IBM\x1e'


def test_end_of_input_ends_nothing(tenon):
    """/dev/null and a closed pipe: the VM goes on, and tenon does not spin."""
    kernel = tenon.guest('k', HALT)
    for stdin in (subprocess.DEVNULL, subprocess.PIPE):
        process = tenon.start(*SOFT, '--kernel', kernel, stdin=stdin)
        if process.stdin:
            process.stdin.close()
        tenon.find('tenon-vmm')
        time.sleep(0.3)
        before = cpu_ticks(process.pid)
        time.sleep(0.5)
        assert process.poll() is None
        assert cpu_ticks(process.pid) - before <= 2
        process.kill()
        process.wait()
        tenon.expect_nothing_left()


def cpu_ticks(pid):
    fields = pathlib.Path('/proc/%d/stat' % pid).read_text().rsplit(')', 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_closed_standard_descriptors(tenon):
    kernel = tenon.guest('k', serial_text('x' * 100) + debug_exit(0) + HALT)
    command = '%s run --accel soft --debug-exit --kernel %s <&- >&- 2>&-' % (tenon.path, kernel)
    assert subprocess.run(['sh', '-c', command], timeout=30).returncode == 0


def test_reader_that_goes_away(tenon):
    kernel = tenon.guest('k', serial_text('y\n' * 300) + debug_exit(0) + HALT)
    process = tenon.start(*SOFT, '--debug-exit', '--kernel', kernel)
    process.stdout.close()
    assert process.wait(30) == 0
    tenon.expect_nothing_left()


# ---- signals and killed processes ----

def start_guest(tenon, code=HALT, *args, **options):
    kernel = tenon.guest('g', code)
    process = tenon.start(*SOFT, '--kernel', kernel, '--qmp', 'qmp', *args, **options)
    Qmp(tenon.directory / 'qmp').close()
    return process


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP])
def test_second_signal_ends_the_vm(tenon, number):
    """A guest that does not listen to its power button."""
    process = start_guest(tenon, SPIN, '--report', 'r.json')
    process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(10) == 1
    tenon.expect_nothing_left()
    report = json.loads((tenon.directory / 'r.json').read_text())
    assert report['result'] == 'quit' and report['forced'] is True
    assert b'power down' in process.stderr.read()
    assert not (tenon.directory / 'qmp').exists()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_guest_that_goes_on_is_ended(tenon, number):
    """One signal is enough, as from timeout(1)."""
    process = start_guest(tenon, SPIN, '--report', 'r.json', '--grace', '1')
    process.send_signal(number)
    assert process.wait(60) == 1
    tenon.expect_nothing_left()
    assert json.loads((tenon.directory / 'r.json').read_text())['forced'] is True
    assert b'the guest did not power down in 1 s: ending the VM' in process.stderr.read()


def test_a_grace_that_is_no_time(tenon):
    for words in ('', '-1', '1m', '86401'):
        result = tenon.run('run', '--grace', words)
        assert result.returncode == 2 and '--grace is 0 to 86400 seconds' in result.stderr


def test_third_signal_kills(tenon):
    process = start_guest(tenon)
    vmm = tenon.find('tenon-vmm')
    os.kill(vmm, signal.SIGSTOP)  # it cannot answer
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert process.wait(10) == 1
    tenon.expect_nothing_left()


def test_vmm_that_hangs_is_killed(tenon):
    process = start_guest(tenon)
    os.kill(tenon.find('tenon-vmm'), signal.SIGSTOP)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert process.wait(15) == 1
    tenon.expect_nothing_left()


def test_killed_tenon_leaves_nothing(tenon):
    process = start_guest(tenon, SPIN, '--net', 'user', '--cpus', '2')
    assert len(tenon.left()) == 3
    process.kill()
    process.wait()
    tenon.expect_nothing_left(2)


def test_killed_vmm(tenon):
    process = start_guest(tenon, SPIN, '--net', 'user')
    os.kill(tenon.find('tenon-vmm'), signal.SIGKILL)
    assert process.wait(10) == 1
    assert b'tenon-vmm was killed by signal 9' in process.stderr.read()
    tenon.expect_nothing_left()
    assert not (tenon.directory / 'qmp').exists()


def test_killed_slirp(tenon):
    """The network goes, the VM stays."""
    process = start_guest(tenon, HALT, '--net', 'user')
    os.kill(tenon.find('tenon-slirp'), signal.SIGKILL)
    time.sleep(0.3)
    assert process.poll() is None
    qmp = Qmp(tenon.directory / 'qmp')
    assert qmp.command('query-status')['running'] is True
    qmp.command('quit')
    assert process.wait(10) == 0
    assert b"net 'n0': tenon-slirp was killed" in process.stderr.read()


@pytest.mark.parametrize('moment', range(8))
def test_killed_during_start(tenon, moment):
    kernel = tenon.guest('k', SPIN)
    process = tenon.start(*SOFT, '--kernel', kernel, '--net', 'user')
    time.sleep(moment * 0.002)
    process.kill()
    process.wait()
    tenon.expect_nothing_left()


def test_suspend_pauses_the_guest(tenon):
    process = start_guest(tenon)
    qmp = Qmp(tenon.directory / 'qmp')
    process.send_signal(signal.SIGTSTP)
    qmp.event('STOP')
    assert qmp.command('query-status')['status'] == 'paused'
    state = pathlib.Path('/proc/%d/stat' % process.pid)
    wait_for(lambda: state.read_text().rsplit(')', 1)[1].split()[0] == 'T', 5, 'the stop')
    process.send_signal(signal.SIGCONT)
    qmp.event('RESUME')
    qmp.command('quit')
    assert process.wait(10) == 0


# Machine code that waits for its power button and then switches itself off.
WAIT_FOR_BUTTON = {
    'q35': (b'\x66\xba\x00\x06'          # 1: mov dx, 0x600 (PM1 status)
            b'\x66\xed'                  # in ax, dx
            b'\xf6\xc4\x01'              # test ah, 1 (power button)
            b'\x74\xf5'                  # jz 1b
            b'\x66\xba\x04\x06'          # mov dx, 0x604 (PM1 control)
            b'\x66\xb8\x00\x20'          # mov ax, 0x2000 (SLP_EN, S5)
            b'\x66\xef'),                # out dx, ax
    'micro': (b'\xa1\x00\x00\xd4\xfe'    # 1: mov eax, [0xfed40000] (events)
              b'\xa8\x01'                # test al, 1 (power button)
              b'\x74\xf7'                # jz 1b
              b'\xc6\x05\x08\x00\xd4\xfe\x34'),  # mov byte [0xfed40008], 0x34 (S5, SLP_EN)
}


@pytest.mark.parametrize('board', sorted(WAIT_FOR_BUTTON))
@pytest.mark.parametrize('way', ['SIGTERM', 'SIGINT', 'SIGHUP', 'QMP', 'escape'])
def test_power_button(tenon, terminal, board, way):
    """A guest that listens powers off, and that is a success."""
    code = WAIT_FOR_BUTTON[board] + HALT
    args = ('--board', board, '--report', 'r.json')
    if way == 'escape':
        it = terminal(code, *args)
        it.wait_raw()
        it.type(b'\x1dp')
        assert it.end() == 0
        it.expect_restored()
    else:
        process = start_guest(tenon, code, *args)
        if way == 'QMP':
            Qmp(tenon.directory / 'qmp').command('system_powerdown')
        else:
            process.send_signal(getattr(signal, way))
        assert process.wait(10) == 0
    tenon.expect_nothing_left()
    report = json.loads((tenon.directory / 'r.json').read_text())
    assert report['result'] == 'poweroff' and report['forced'] is False


# ---- QMP ----

def test_qmp(tenon):
    process = start_guest(tenon, SPIN, '--name', 'control', '--report', 'r.json')
    qmp = Qmp(tenon.directory / 'qmp')
    assert 'version' in qmp.greeting['QMP']
    assert qmp.command('query-status') == {'running': True, 'singlestep': False,
                                           'status': 'running'}
    assert qmp.command('query-name') == {'name': 'control'}
    assert qmp.command('query-kvm') == {'enabled': False, 'present': True}
    names = {entry['name'] for entry in qmp.command('query-commands')}
    assert {'query-status', 'stop', 'cont', 'system_powerdown', 'quit', 'query-version',
            'query-stats', 'qmp_capabilities'} <= names
    qmp.command('stop')
    qmp.event('STOP')
    assert qmp.command('query-status')['status'] == 'paused'

    def instructions():
        stats = qmp.command('query-stats', target='vm')[0]['stats']
        return {entry['name']: entry['value'] for entry in stats}['instructions']
    stopped = instructions()
    time.sleep(0.2)
    assert instructions() == stopped
    assert 'error' in qmp.raw({'execute': 'system_powerdown'})
    qmp.command('cont')
    qmp.event('RESUME')
    wait_for(lambda: instructions() > stopped, 5, 'progress')
    assert 'error' in qmp.raw({'execute': 'query-stats', 'arguments': {'target': 'cryptodev'}})
    assert qmp.raw({'execute': 'nonsense', 'id': 'i'})['id'] == 'i'
    qmp.command('system_powerdown')
    qmp.event('POWERDOWN')
    qmp.command('quit')
    shutdown = qmp.event('SHUTDOWN')
    assert shutdown['data'] == {'guest': False, 'reason': 'host-qmp-quit'}
    report = qmp.event('TENON_REPORT')['data']
    assert report['result'] == 'quit'
    assert process.wait(10) == 0
    assert json.loads((tenon.directory / 'r.json').read_text())['result'] == 'quit'


def test_qmp_looks_at_the_machine(tenon):
    disk = tenon.disk()
    process = start_guest(tenon, SPIN, '--cpus', '2', '--memory', '64M', '--board', 'q35', '--disk',
                          disk)
    qmp = Qmp(tenon.directory / 'qmp')

    def running():
        cpus = qmp.command('query-cpus-fast')
        return cpus if all(cpu['thread-id'] for cpu in cpus) else None
    cpus = wait_for(running, 5, 'the threads')
    assert [cpu['cpu-index'] for cpu in cpus] == [0, 1]
    for cpu in cpus:
        thread, = pathlib.Path('/proc').glob('*/task/%d/comm' % cpu['thread-id'])
        name = thread.read_text()
        assert name == 'vcpu%02d\n' % cpu['cpu-index']
    assert qmp.command('query-memory-size-summary') == {'base-memory': 64 << 20, 'plugged-memory': 0}
    chardevs = qmp.command('query-chardev')
    assert [(entry['label'], entry['filename']) for entry in chardevs] == [('c0', 'stdio')]
    devices = qmp.command('query-pci')[0]['devices']
    ids = {(entry['id']['vendor'], entry['id']['device']): entry for entry in devices}
    assert ids[0x8086, 0x29c0]['class_info'] == {'class': 0x600}
    blk = ids[0x1af4, 0x1042]
    assert blk['class_info']['class'] == 0x180
    assert all(region['size'] and region['address'] % region['size'] == 0
               for region in blk['regions'])
    qmp.command('quit')
    assert process.wait(10) == 0


def test_qmp_resets(tenon):
    process = start_guest(tenon, serial_text('begin.') + SPIN)
    qmp = Qmp(tenon.directory / 'qmp')
    qmp.command('system_reset')
    assert qmp.event('RESET')['data'] == {'guest': False, 'reason': 'host-qmp-system-reset'}
    assert read_until(process, 'begin.').count('begin.') == 1
    qmp.command('inject-nmi')
    qmp.command('quit')
    assert process.wait(10) == 0


def test_qmp_says_that_the_guest_reset(tenon):
    process = start_guest(tenon, out_byte(0xCF9, 6) + SPIN)
    qmp = Qmp(tenon.directory / 'qmp')
    assert qmp.event('RESET')['data'] == {'guest': True, 'reason': 'guest-reset'}
    qmp.command('quit')
    assert process.wait(10) == 0


def test_qmp_survives_hostile_clients(tenon):
    process = start_guest(tenon)
    path = str(tenon.directory / 'qmp')
    for junk in (b'\0' * 100000, b'{' * 100000, b'"' * 70000, os.urandom(50000), b'{"execute":',
                 b'[]' * 1000 + b'\n'):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            wait_for(lambda: client.connect_ex(path) == 0, 10, 'a place')
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
                client.sendall(junk)
    # Clients that send commands and never read.
    deaf = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for client in deaf:
        client.settimeout(0.5)
        wait_for(lambda: client.connect_ex(path) == 0, 10, 'a place')
        with contextlib.suppress(OSError):
            client.sendall(b'{"execute":"qmp_capabilities"}')
            for _ in range(20000):
                client.sendall(b'{"execute":"query-commands"}')
    qmp = Qmp(path)
    assert qmp.command('query-status')['running'] is True
    qmp.command('quit')
    assert process.wait(10) == 0
    for client in deaf:
        client.close()


# ---- consoles ----

def test_socket_console(tenon):
    process = start_guest(tenon, ECHO, '--debug-exit', '--console',
                          'serial,backend=socket,path=con')
    path = tenon.directory / 'con'
    assert os.stat(path).st_mode & 0o777 == 0o600
    for _ in range(2):  # one client after another
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(b'a')
            assert client.recv(10) == b'b'
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b'q')
        assert process.wait(10) == 0
    assert not path.exists()


def test_pty_console(tenon):
    process = start_guest(tenon, ECHO, '--debug-exit', '--console', 'serial,backend=pty')
    line = wait_for(lambda: re.search(rb'on (/dev/pts/\d+)', read_some(process.stderr)), 10, 'pty')
    for _ in range(2):  # it can be left and come back to
        fd = os.open(line.group(1), os.O_RDWR | os.O_NOCTTY)
        os.write(fd, b'a')
        assert os.read(fd, 10) == b'b'
        os.close(fd)
    fd = os.open(line.group(1), os.O_RDWR | os.O_NOCTTY)
    os.write(fd, b'q')
    assert process.wait(10) == 0
    os.close(fd)


def read_some(stream):
    os.set_blocking(stream.fileno(), False)
    read_some.seen = getattr(read_some, 'seen', {})
    seen = read_some.seen.setdefault(id(stream), bytearray())
    with contextlib.suppress(BlockingIOError):
        seen += os.read(stream.fileno(), 65536)
    return bytes(seen)


def test_file_console(tenon):
    kernel = tenon.guest('k', serial_text('to a file\n') + debug_exit(0) + HALT)
    result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--console',
                       'serial,backend=file,path=out.txt')
    assert result.returncode == 0 and result.stdout == ''
    assert (tenon.directory / 'out.txt').read_text() == 'to a file\n'


# ---- the terminal ----

class Terminal:
    """A pseudo-terminal whose session the command leads, with a look at its mode."""

    def __init__(self, tenon, *args):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.seen = b''
        self.process = tenon.start(*args, stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                   start_new_session=True,
                                   preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def read(self):
        while select.select([self.master], [], [], 0)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError as error:
                if error.errno == errno.EIO:
                    return self.seen
                raise
            if not piece:
                break
            self.seen += piece
        return self.seen

    def expect(self, text, timeout=10):
        wait_for(lambda: text in self.read(), timeout, lambda: '%r in %r' % (text, self.seen))

    def type(self, text):
        os.write(self.master, text)

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def wait_raw(self):
        wait_for(self.is_raw, 10, lambda: 'raw mode; %r' % self.read())

    def expect_restored(self):
        assert termios.tcgetattr(self.slave) == self.before

    def end(self, timeout=10):
        def ended():
            self.read()
            return self.process.poll() is not None
        wait_for(ended, timeout, lambda: 'the end; %r' % self.seen)
        self.read()
        return self.process.returncode

    def close(self):
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(tenon):
    made = []

    def make(code=ECHO, *args):
        kernel = tenon.guest('t', code)
        made.append(Terminal(tenon, *SOFT, '--debug-exit', '--kernel', kernel, *args))
        return made[-1]
    yield make
    for it in made:
        it.close()


def test_terminal_is_raw_and_restored(terminal, tenon):
    it = terminal()
    it.wait_raw()
    it.expect(b'Ctrl-]')
    it.type(b'a\x02')       # Ctrl-C and friends are the guest's
    it.expect(b'b\x03')
    it.type(b'\x03')
    it.expect(b'\x04')
    assert it.process.poll() is None
    it.type(b'q')
    assert it.end() == 0
    it.expect_restored()
    tenon.expect_nothing_left()


def test_escape_key(terminal, tenon):
    it = terminal()
    it.wait_raw()
    it.type(b'\x1d?')
    it.expect(b'power button')
    it.type(b'\x1d\x1d')
    it.expect(b'\x1e')      # the guest got Ctrl-], and answered one up
    it.type(b'\x1dp')
    it.expect(b'asking the guest to power down')
    assert it.process.poll() is None
    it.type(b'\x1dq')
    assert it.end() == 0
    it.expect_restored()
    tenon.expect_nothing_left()


def test_terminal_after_a_failed_start(terminal):
    it = terminal(HALT, '--initrd', 'gone')
    assert it.end() == 1
    it.expect_restored()
    it = terminal(HALT, '--console', 'serial', '--kernel', '/dev/null')
    assert it.end() == 1
    it.expect_restored()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_terminal_after_signals(terminal, tenon, number):
    it = terminal()
    it.wait_raw()
    it.process.send_signal(number)
    it.expect(b'power down')
    assert it.is_raw()
    it.process.send_signal(number)
    assert it.end() == 1
    it.expect_restored()
    tenon.expect_nothing_left()


def test_terminal_after_kill_of_tenon(terminal, tenon):
    it = terminal()
    it.wait_raw()
    it.process.kill()
    it.process.wait()
    wait_for(lambda: termios.tcgetattr(it.slave) == it.before, 3, 'the old mode')
    tenon.expect_nothing_left()


def test_terminal_after_kill_of_the_group(terminal, tenon):
    it = terminal()
    it.wait_raw()
    os.killpg(it.process.pid, signal.SIGKILL)
    it.process.wait()
    wait_for(lambda: termios.tcgetattr(it.slave) == it.before, 3, 'the old mode')
    tenon.expect_nothing_left()


def test_terminal_after_kill_of_the_vmm(terminal, tenon):
    it = terminal()
    it.wait_raw()
    os.kill(tenon.find('tenon-vmm'), signal.SIGKILL)
    assert it.end() == 1
    it.expect_restored()
    it.expect(b'killed by signal 9')
    tenon.expect_nothing_left()


def test_terminal_during_suspension(terminal, tenon):
    it = terminal()
    it.wait_raw()
    it.process.send_signal(signal.SIGTSTP)
    wait_for(lambda: termios.tcgetattr(it.slave) == it.before, 3, 'the old mode')
    it.process.send_signal(signal.SIGCONT)
    it.wait_raw()
    it.type(b'aq')
    assert it.end() == 0
    it.expect_restored()


def test_terminal_that_hangs_up(terminal, tenon):
    """The window is closed: SIGHUP comes from the kernel, and the descriptors answer no more."""
    it = terminal(SPIN, '--report', 'r.json')
    it.wait_raw()
    os.close(it.slave)
    os.close(it.master)
    it.slave, it.master = os.open('/dev/null', os.O_RDWR), os.open('/dev/null', os.O_RDWR)
    time.sleep(0.3)
    before = cpu_ticks(it.process.pid)
    time.sleep(0.5)
    assert it.process.poll() is None
    assert cpu_ticks(it.process.pid) - before <= 2
    it.process.send_signal(signal.SIGTERM)
    assert it.process.wait(10) == 1
    tenon.expect_nothing_left()
    assert json.loads((tenon.directory / 'r.json').read_text())['forced'] is True


# ---- the sandbox, from outside ----

def open_files(pid):
    """What the descriptors of a process are, but for those that it closes just now."""
    targets = set()
    for fd in pathlib.Path('/proc/%d/fd' % pid).iterdir():
        try:
            targets.add(os.readlink(fd))
        except FileNotFoundError:
            pass
    return targets


def test_sandbox_of_a_running_vm(tenon):
    start_guest(tenon, SPIN, '--net', 'user', '--disk', tenon.disk(), '--cpus', '2')
    vmm = tenon.find('tenon-vmm')
    threads = list(pathlib.Path('/proc/%d/task' % vmm).iterdir())
    assert len(threads) >= 3
    for thread in threads:
        fields = dict(line.split(':\t', 1) for line in (thread / 'status').read_text().splitlines()
                      if ':\t' in line)
        name = fields['Name']
        assert fields['NoNewPrivs'] == '1', name
        assert fields['Seccomp'] == '2', name
        for capabilities in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb'):
            assert int(fields[capabilities], 16) == 0, (name, capabilities)
    targets = open_files(vmm)
    allowed = re.compile(r'socket:|pipe:|anon_inode:|/memfd:|/dev/null$|%s' %
                         re.escape(str(tenon.directory)))
    assert all(allowed.match(target) for target in targets), targets
    # An own session: no terminal, no signals from one.
    assert os.getsid(vmm) == vmm


def test_inherited_descriptors_do_not_reach_the_vmm(tenon):
    secret = os.open('/etc/hostname', os.O_RDONLY)
    os.set_inheritable(secret, True)
    start_guest(tenon, SPIN, pass_fds=[secret])
    targets = open_files(tenon.find('tenon-vmm'))
    os.close(secret)
    assert '/etc/hostname' not in targets


# ---- several at once ----

def test_two_vms_at_once(tenon):
    kernel = tenon.guest('k', ECHO)
    both = [tenon.start(*SOFT, '--debug-exit', '--kernel', kernel, '--name', 'vm%d' % i, '--quiet',
                        '--net', 'user', stdin=subprocess.PIPE) for i in range(2)]
    for i, process in enumerate(both):
        process.stdin.write(b'ax'[i:i + 1])
        process.stdin.flush()
    for i, process in enumerate(both):
        read_until(process, 'by'[i])
    both[0].stdin.write(b'q')
    both[0].stdin.flush()
    assert both[0].wait(10) == 0
    both[1].stdin.write(b'aq')
    both[1].stdin.flush()
    assert both[1].wait(10) == 0
    tenon.expect_nothing_left()


def test_many_starts_leave_nothing(tenon):
    """One after the other, on the same disk: nothing of the one is in the way of the next."""
    kernel, disk = tenon.guest('k', debug_exit(0) + HALT), tenon.disk()
    for _ in range(10):
        result = tenon.run(*SOFT, '--debug-exit', '--kernel', kernel, '--net', 'user', '--disk',
                           disk, '--quiet')
        assert result.returncode == 0, result.stderr
