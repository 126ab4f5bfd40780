"""The software engine against QEMU TCG, row by row.

The guest is Debian's cloud kernel and one static program, bench/engine/, as its /init. Every
contender boots it, then each row runs in all of them one after another: the noise of a shared
machine meets them alike. What counts is the CPU time of the vCPU thread. The guest waits for the
driver before and after a row, so the clock is read while the vCPU is idle.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import re
import select
import statistics
import subprocess
import sys
import time

import qemu10
from common import DEMO, QEMU, ROOT, child_named

CFLAGS = ['-O2', '-fno-tree-vectorize', '-fno-tree-loop-distribute-patterns', '-fno-math-errno',
          '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror', '-static']
APPEND = 'console=ttyS0 quiet'
MEMORY = '512M'
BOOT = 'boot-to-init'
KINDS = {'scalar': 'scalar', 'simd': 'SIMD, floating point and memory copies', 'system': 'system',
         'program': 'real programs'}
TIMEOUT_S = 900  # a Debian boots in silence


class Failed(Exception):
    """A machine did not do what the driver asked; says why."""


class Machine:
    """A contender: a VM that runs rows on request."""

    def __init__(self, name, command, vmm_name, thread_name):
        self.name = name
        self.command = command
        self.vmm_name = vmm_name  # of the child that holds the vCPU thread, or None: itself
        self.thread_name = thread_name
        self.process = None
        self.counts = {}  # row: units that are worth measuring, from the first round
        self.dead = {}  # row: why it is not tried again
        self.prepare = None  # what to do before each start

    def launch(self):
        if self.prepare:
            self.prepare()
        self.text = b''
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, bufsize=0,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def start(self):
        """Boots; {row: kind}, {row: why skipped} and nanoseconds of CPU time up to the guest's list."""
        self.launch()
        lines = []
        while not lines or 'bench ready' not in lines[-1]:
            lines.append(self.line())
        self.thread = self.find_thread()
        rows = dict(m.groups() for m in map(re.compile(r'list (\S+) (\S+)').search, lines) if m)
        skips = dict(m.groups() for m in map(re.compile(r'skip (\S+) (.*)').search, lines) if m)
        return rows, skips, self.clock()

    def vmm(self):
        """Process id of the program that holds the guest."""
        return child_named(self.process.pid, self.vmm_name) if self.vmm_name else self.process.pid

    def find_thread(self):
        for task in pathlib.Path('/proc/%s/task' % self.vmm()).glob('*'):
            if (task / 'comm').read_text().strip() == self.thread_name:
                return task
        sys.exit('bench: %s has no thread %s' % (self.name, self.thread_name))

    def clock(self):
        """Nanoseconds of CPU time that the vCPU thread has had; None if the host does not count."""
        try:
            return int((self.thread / 'schedstat').read_text().split()[0])
        except OSError:
            return None

    def until(self, mark):
        """What the guest says up to the mark."""
        end = time.monotonic() + TIMEOUT_S
        while mark not in self.text:
            ready = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]
            piece = os.read(self.process.stdout.fileno(), 65536) if ready else b''
            if not piece:
                raise Failed('%s after: %s' % ('the VM ended' if ready else 'silence',
                                               self.text.decode(errors='replace')[-200:]))
            self.text += piece
        said, self.text = self.text.split(mark, 1)
        return said.decode(errors='replace')

    def line(self):
        return self.until(b'\n').strip()

    def answer(self, pattern):
        """The match of the next line that fits; kernel messages may come between."""
        while True:
            line = self.line()
            match = re.search(pattern, line)
            if match:
                return match
            if re.search('FAILED|changed|panic|Oops|BUG', line):
                raise Failed(line)

    def say(self, text):
        try:
            self.process.stdin.write(text.encode() + b'\n')
        except BrokenPipeError:
            raise Failed('the VM ended') from None

    def run(self, row):
        """(nanoseconds for one operation, checksum): CPU time or, without it, guest time."""
        self.say('%s %d' % (row, self.counts.get(row, 0)))
        self.counts[row] = int(self.answer(r'begin %s (\d+)' % row).group(1))
        start = self.clock()
        self.say('go')
        match = self.answer(r'row %s (\d+) (\d+) ([0-9a-f]+)' % row)
        spent = int(match.group(2)) if start is None else self.clock() - start
        return spent / int(match.group(1)), match.group(3)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Native:
    """The same program on the bare CPU, for rows that only compute."""

    name = 'bare CPU'

    def __init__(self, program):
        self.program = program
        self.dead = {}

    def run(self, row):
        done = subprocess.run([self.program, '--native', row], capture_output=True, text=True)
        match = re.search(r'^row %s (\d+) (\d+) ([0-9a-f]+)' % row, done.stdout, re.M)
        if not match:
            raise Failed(done.stdout.strip().splitlines()[-1])
        return int(match.group(2)) / int(match.group(1)), match.group(3)


def build_guest(folder):
    """The program and an initramfs of it."""
    root = pathlib.Path(folder) / 'root'
    root.mkdir()
    program = root / 'init'
    subprocess.run(['gcc'] + CFLAGS + ['-o', program] + sorted((ROOT / 'bench/engine').glob('*.c')),
                   check=True)
    initrd = pathlib.Path(folder) / 'initrd'
    with open(initrd, 'wb') as out:
        subprocess.run(['cpio', '-o', '-H', 'newc', '-R', '0:0', '--quiet'], cwd=root,
                       input=b'.\ninit\n', stdout=out, check=True)
    return program, initrd


def machines_with(args, memory, qemu_words, tenon_words):
    """The VMs, each with words of its own, and why one is missing."""
    options = ['-name', 'bench,debug-threads=on', '-nodefaults', '-no-user-config', '-display',
               'none', '-serial', 'stdio', '-M', 'q35', '-accel', 'tcg', '-cpu', 'max',
               '-m', memory] + list(qemu_words)
    tenon = [args.tenon, 'run', '--quiet', '--board', 'q35', '--accel', 'soft', '--memory', memory]
    machines = [Machine('QEMU 7.2', [QEMU] + options, None, 'CPU 0/TCG')]
    missing = None
    try:
        machines.append(Machine('QEMU 10.0', qemu10.command() + options, None, 'CPU 0/TCG'))
    except RuntimeError as why:
        missing = 'QEMU 10.0 is left out: %s' % why
    machines.append(Machine('Tenon', tenon + list(tenon_words), 'tenon-vmm', 'vcpu00'))
    return machines, missing


def contenders(args, initrd, append=APPEND, memory=MEMORY, disks=((), ())):
    """The VMs with a kernel to start; `disks` are the words for QEMU's and for Tenon's."""
    kernel = {'kernel': str(DEMO / 'vmlinux'), 'initrd': str(initrd), 'append': append}
    qemu, tenon = list(disks[0]), list(disks[1])
    for name, value in kernel.items():
        qemu += ['-' + name, value]
        tenon += ['--' + name, value]
    return machines_with(args, memory, qemu, tenon)


class Results:
    def __init__(self, boot=BOOT):
        self.boot = boot  # the row of the start itself
        self.kinds = {}
        self.each = {}  # (row, contender): [nanoseconds for one operation]
        self.sums = {}  # row: {contender: set of checksums}
        self.skips = []  # what a contender's CPU does not have
        self.failures = []

    def add(self, row, name, nanoseconds, checksum=None):
        self.each.setdefault((row, name), []).append(nanoseconds)
        if checksum:
            self.sums.setdefault(row, {}).setdefault(name, set()).add(checksum)

    def median(self, row, name):
        values = self.each.get((row, name))
        return statistics.median(values) if values else None

    def wrong(self):
        """Rows whose checksums differ, each with who got what."""
        return ['%s: %s' % (row, '; '.join('%s %s' % (name, ' '.join(sorted(sums)))
                                           for name, sums in by.items()))
                for row, by in self.sums.items() if len(set.union(*by.values())) > 1]


def attempt(machine, row, results):
    """Runs a row; a machine that fails is booted again and not asked for this row any more."""
    if row in machine.dead:
        return
    try:
        nanoseconds, checksum = machine.run(row)
        results.add(row, machine.name, nanoseconds, checksum)
    except Failed as why:
        machine.dead[row] = str(why)
        results.failures.append('%s fails in %s: %s' % (machine.name, row, why))
        if isinstance(machine, Machine):
            machine.stop()
            machine.start()


def one_round(machines, native, results, wanted):
    try:
        for machine in machines:
            rows, skips, boot = machine.start()
            results.kinds.update({row: kind for row, kind in rows.items()
                                  if re.fullmatch(wanted, row) or re.fullmatch(wanted, kind)})
            if boot is not None:
                results.add(results.boot, machine.name, boot)
            for row in skips:
                if row not in machine.dead:
                    results.skips.append('%s skips %s: %s' % (machine.name, row, skips[row]))
                machine.dead[row] = skips[row]
        for row, kind in results.kinds.items():
            for machine in machines + ([native] if native and kind != 'system' else []):
                attempt(machine, row, results)
            print('.', end='', file=sys.stderr, flush=True)
    finally:
        for machine in machines:
            if machine.process:
                machine.stop()


def human(nanoseconds):
    if nanoseconds is None:
        return '-'
    for unit, size in (('s', 1e9), ('ms', 1e6), ('us', 1e3)):
        if nanoseconds >= size:
            return '%.3g %s' % (nanoseconds / size, unit) if nanoseconds < 1000 * size else \
                '%.0f %s' % (nanoseconds / size, unit)
    return '%.3g ns' % nanoseconds


def ratio(results, row, rivals):
    """Time of the fastest rival over Tenon's: above 1 Tenon is faster."""
    ours = results.median(row, 'Tenon')
    theirs = [results.median(row, name) for name in rivals]
    theirs = [value for value in theirs if value]
    return min(theirs) / ours if ours and theirs else None


def table(results, rivals):
    bare = ['bare CPU'] if any(name == 'bare CPU' for _, name in results.each) else []
    names = bare + rivals + ['Tenon']
    print('\n| row | %s | faster QEMU / Tenon | spread of Tenon |' % ' | '.join(names))
    print('|---|' + '---:|' * (len(names) + 2))
    for kind, title in list(KINDS.items()) + [(None, None)]:
        rows = [row for row in results.kinds if results.kinds[row] == kind] if kind else \
            [results.boot]
        ratios = []
        for row in rows:
            factor = ratio(results, row, rivals)
            ratios += [factor] if factor else []
            values = results.each.get((row, 'Tenon'))
            spread = (max(values) - min(values)) / statistics.median(values) if values else 0
            print('| %s | %s | %s | %.0f %% |'
                  % (row, ' | '.join(human(results.median(row, name)) for name in names),
                     '%.2fx' % factor if factor else '-', spread * 100))
        if kind and ratios:
            print('| **geometric mean, %s** |%s **%.2fx** | |'
                  % (title, ' |' * len(names), statistics.geometric_mean(ratios)))


def version(command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                          check=True).stdout.splitlines()[0]


def commands(machines, folder):
    print('\nVersions: %s; sources %s; guest kernel %s.'
          % ('; '.join(version([machine.command[0], '--version']) for machine in machines),
             version(['git', 'describe', '--always', '--dirty']),
             (DEMO / 'release').read_text().strip()))
    print('\n```')
    for machine in machines:
        words = ["'%s'" % word if ' ' in word else word for word in machine.command]
        text = ' '.join(words).replace(str(folder) + '/', '').replace(str(ROOT) + '/', '')
        print(re.sub(r'\S*/src/cmd/tenon', 'tenon', text))
    print('```')


def engine(args, folder):
    """the software engine against QEMU TCG: CPU time of the vCPU thread for one operation"""
    subprocess.run([ROOT / 'tools/demo-guest'], check=True, stdout=subprocess.DEVNULL)
    program, initrd = build_guest(folder)
    machines, missing = contenders(args, initrd)
    results = compare(args, machines, Native(str(program)), Results())
    print('\n### %s\n' % engine.__doc__)
    conclude(machines, missing, results, folder)
    print('\nThe program: %s; gcc %s -o init bench/engine/*.c'
          % (version(['gcc', '--version']), ' '.join(CFLAGS)))


def compare(args, machines, native, results):
    """All rounds; each begins with another machine."""
    for turn in range(args.rounds or 3):
        first = turn % len(machines)
        try:
            one_round(machines[first:] + machines[:first], native, results, args.rows)
        except Failed as why:
            sys.exit('bench: no boot: %s' % why)
    print(file=sys.stderr)
    return results


def conclude(machines, missing, results, folder):
    """The table and what goes with it; ends the run if a result is wrong."""
    print('Medians of %d rounds.' % max(len(values) for values in results.each.values()))
    rivals = [machine.name for machine in machines if machine.name != 'Tenon']
    table(results, rivals)
    for text in [missing] * bool(missing) + results.skips + results.failures:
        print('\n%s' % text)
    wrong = results.wrong()
    print('\nChecksums: %s.' % ('DIFFERENT in ' + ', '.join(wrong) if wrong else
                                'the same on all, in each of the %d rows' % len(results.sums)))
    commands(machines, folder)
    if wrong or results.failures:
        sys.exit('bench: a result is wrong or missing')
