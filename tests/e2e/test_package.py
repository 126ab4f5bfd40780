"""
The Debian package: what debian/ says agrees with the sources, and, in soak, on a clean Debian it installs, works, and its
removal leaves nothing.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import re
import shutil
import subprocess

import pytest

from conftest import ECHO, ROOT, multiboot

PROGRAMS = {'/usr/bin/tenon', '/usr/sbin/tenond', *('/usr/libexec/tenon/tenon-' + name for name in ('vmm', 'slirp', 'view'))}
# Built with npm's help.
WEB = '/usr/share/tenon/web/index.html'
FILES = PROGRAMS | {
    WEB, '/usr/lib/systemd/system/tenond.service', '/usr/lib/systemd/system/tenond.socket', '/usr/share/man/man1/tenon-run.1.gz',
    '/usr/share/man/man8/tenond.8.gz', '/usr/share/bash-completion/completions/tenon',
    '/usr/share/zsh/vendor-completions/_tenon', '/usr/share/fish/vendor_completions.d/tenon.fish',
    '/usr/share/doc/tenon/copyright', '/usr/share/doc/tenon/changelog.Debian.gz', '/usr/share/doc/tenon/examples/demo.yaml'}
# The build's own packages, of which Debian's builders have these anyway, and the unit tests' library.
NOT_DECLARED = {'gcc', 'libc6-dev', 'make', 'linux-libc-dev', 'libcmocka-dev'}


def fields(text):
    """The fields of a control file; of two with the same name in two paragraphs, the last one."""
    return dict(re.findall(r'^([A-Z][\w-]*):\s*(.*(?:\n .*)*)', text, re.M))


def packages(value):
    return {re.split(r'[\s(:]', item.strip())[0] for item in re.split(r'[,|]', value) if item.strip()}


def test_control_agrees_with_the_sources():
    control = fields((ROOT / 'debian/control').read_text())
    wanted = re.search(r"^build='([^']*)'", (ROOT / 'tools/install-deps').read_text(), re.M).group(1).split()
    declared = packages(control['Build-Depends']) - {'debhelper-compat', 'python3'}
    assert declared == set(wanted) - NOT_DECLARED
    version = re.search(r"version: '([^']*)'", (ROOT / 'meson.build').read_text()).group(1)
    assert (ROOT / 'debian/changelog').read_text().startswith('tenon (%s-' % version)
    # dpkg-shlibdeps cannot see the libraries that are loaded when they are needed, nor programs and firmware.
    sources = '\n'.join(path.read_text() for path in (ROOT / 'src').rglob('*.c'))
    loaded = set(re.findall(r'library_load\(\s*"[^"]*",\s*"([^"]*)"', sources)) - {'libssl3'}  # linked as well
    used = loaded | set(re.findall(r'\{"\w+", "(\w+)", "/usr/share/', sources))
    assert {'libcurl4', 'libnbd0', 'seabios', 'ovmf'} <= used
    related = set().union(*(packages(control[name]) for name in ('Depends', 'Recommends', 'Suggests')))
    assert used <= related, used - related


@pytest.fixture(scope='module')
def package():
    """The package that `make deb` builds: minutes on two cores."""
    made = subprocess.run(['timeout', '-k', '5', '1500', 'make', 'deb'], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-1000:] + made.stderr[-3000:]
    found, = (ROOT / 'build-deb/packages').glob('tenon_*.deb')
    return found


@pytest.mark.soak
def test_install_run_and_purge(package, demo_guest, tmp_path):
    if not shutil.which('mmdebstrap'):
        pytest.skip('mmdebstrap is missing (package mmdebstrap)')
    (tmp_path / 'echo').write_bytes(multiboot(ECHO))
    shutil.copy(package, tmp_path / 'tenon.deb')
    copied = [tmp_path / 'tenon.deb', tmp_path / 'echo', demo_guest / 'vmlinuz', demo_guest / 'initrd']
    done = subprocess.run(
        ['timeout', '-k', '60', '900', 'mmdebstrap', '--variant=apt', '--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr',
         '--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "3"',
         *('--customize-hook=copy-in %s /tmp' % path for path in copied),
         '--customize-hook=%s "$1"' % (ROOT / 'tests/e2e/package_hook'), 'bookworm', '/dev/null'],
        cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]

    def read(name):
        return (tmp_path / name).read_text()
    before, installed, after = (set(read(name).splitlines()) for name in ('before', 'installed', 'after'))
    assert len(before) > 4000 and not [line for line in before if 'tenon' in line]
    assert FILES <= {line.split()[0].removeprefix('.') for line in installed - before}
    assert re.fullmatch(r'tenon \d+\.\d+\.\d+\n', read('version'))
    report = json.loads(read('doctor.json'))
    marks = {finding['id']: finding['mark'] for finding in report['findings']}
    assert report['can_run'] and marks['vmm'] == marks['slirp'] == marks['view'] == 'ok', report
    assert 'demo: done' in read('guest') and 'FAILED' not in read('guest'), read('guest')
    assert '<title>Tenon' in read('page'), read('page')
    assert re.search(r'^web +\d+ +running', read('ps'), re.M), read('ps')
    assert {'ovmf', 'seabios', 'swtpm'} <= set(re.findall(r'^Inst (\S+)', read('recommended'), re.M))
    assert after == before, sorted(after ^ before)


@pytest.mark.soak
def test_lintian(package):
    if not shutil.which('lintian'):
        pytest.skip('lintian is missing (package lintian)')
    result = subprocess.run(['lintian', '--allow-root', '--display-info', '--fail-on', 'error,warning,info', package],
                            capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and not result.stdout, result.stdout + result.stderr
