"""QEMU 10.0 from Debian's bookworm-backports, unpacked beside the system.

apt runs with lists, sources and archives of our own under .cache/qemu10, so that the system's
configuration stays as it is and nothing is installed.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import shutil
import subprocess

from common import ROOT

HOME = ROOT / '.cache/qemu10'
PACKAGES = ['qemu-system-x86', 'qemu-utils', 'qemu-system-common', 'qemu-system-data', 'seabios']
SOURCE = ('deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] '
          'http://deb.debian.org/debian bookworm-backports main\n')


def run(command, cwd=None):
    """Runs a command; RuntimeError with its last line if it fails."""
    try:
        done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, text=True, timeout=600,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from None
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ['status %d' % done.returncode]
        raise RuntimeError('%s: %s' % (command[0], lines[-1]))
    return done.stdout


def unpack():
    shutil.rmtree(HOME, ignore_errors=True)
    for folder in ('lists/partial', 'archives/partial', 'debs', 'new'):
        (HOME / folder).mkdir(parents=True)
    (HOME / 'sources.list').write_text(SOURCE)
    apt = ['apt-get', '-q', '-o', 'Dir::Etc::SourceList=%s/sources.list' % HOME,
           '-o', 'Dir::Etc::SourceParts=/dev/null', '-o', 'Dir::State::Lists=%s/lists' % HOME,
           '-o', 'Dir::Cache=%s' % HOME, '-o', 'APT::Sandbox::User=',
           '-o', 'Acquire::Languages=none', '-o', 'APT::Update::Error-Mode=any']
    run(apt + ['update'])
    run(apt + ['download'] + PACKAGES, HOME / 'debs')
    for package in sorted((HOME / 'debs').glob('*.deb')):
        run(['dpkg-deb', '-x', str(package), str(HOME / 'new')])
    (HOME / 'new').rename(HOME / 'root')


def command():
    """The words that start QEMU 10; RuntimeError says why there is none."""
    root = HOME / 'root'
    if not root.exists():
        unpack()
    words = [str(root / 'usr/bin/qemu-system-x86_64'), '-L', str(root / 'usr/share/qemu'),
             '-L', str(root / 'usr/share/seabios')]
    run(words + ['--version'])
    return words
