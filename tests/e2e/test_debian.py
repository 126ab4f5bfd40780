"""
Debian 12 with systemd under the software engine: to its login prompt, used there, powered off; and, by
hand (make soak), real programs inside it.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import re
import subprocess

import pytest

from conftest import PATIENCE, ROOT, e2fsprogs, read_until

# The prompt comes after 15 s here; a busy machine or sanitizers make that many times as long.
SCRIPT = ROOT / 'tests/e2e/workloads'


def parts(*options):
    """Paths of the guest's parts by name, or a skipped test."""
    listing = subprocess.run([ROOT / 'tools/debian-guest', 'paths', *options], check=True,
                             capture_output=True, text=True).stdout
    found = dict(line.split('=', 1) for line in listing.splitlines())
    if not os.path.exists(found['root']):
        pytest.skip('no Debian guest: run tools/debian-guest %s' % ' '.join(options))
    return found


@pytest.fixture
def debian(tenon):
    """A function that gives the arguments of a bootable guest with a fresh root disk root.raw."""
    def make(*options, append=''):
        found = parts(*options)
        subprocess.run(['cp', '--sparse=always', found['root'], tenon.directory / 'root.raw'], check=True)
        return ['run', '--accel', 'soft', '--memory', '1G', '--kernel', found['vmlinux'], '--initrd',
                found['initrd'], '--disk', 'root.raw', '--net', 'user', '--rng', '--append',
                'console=ttyS0 quiet root=/dev/vda rw ' + append]
    yield make
    (tenon.directory / 'root.raw').unlink(missing_ok=True)


def use(process, words, answer, timeout=PATIENCE):
    """Types a line at the guest's prompt; what it says up to the answer."""
    process.stdin.write(words.encode() + b'\n')
    process.stdin.flush()
    return read_until(process, answer, timeout)


def log_in_and_out(tenon, args):
    """To the login prompt, in, a look at the units, and off through ACPI."""
    process = tenon.start(*args, stdin=subprocess.PIPE)
    read_until(process, 'debian login: ', PATIENCE)
    use(process, 'root', 'root@debian:~# ')
    use(process, 'echo "state $(systemctl is-system-running --wait)"', 'state running', PATIENCE)
    use(process, 'echo "failed: $(systemctl --failed --plain --no-legend | wc -l)"', 'failed: 0')
    use(process, 'echo "address $(hostname -I)"', 'address 10.0.2.15')
    use(process, 'poweroff', 'Power down')
    assert process.wait(PATIENCE) == 0
    check = e2fsprogs('e2fsck', '-fn', str(tenon.directory / 'root.raw'))
    assert check.returncode == 0, check.stdout
    tenon.expect_nothing_left()


def test_login(tenon, debian):
    log_in_and_out(tenon, debian())


@pytest.mark.soak
@pytest.mark.parametrize('kernel', ['cloud', 'generic'])
@pytest.mark.parametrize('cpus', [1, 4])
def test_login_everywhere(tenon, debian, kernel, cpus):
    log_in_and_out(tenon, debian('--full', '--kernel', kernel) + ['--cpus', cpus])


def workloads():
    """The names of the functions load_NAME in the script."""
    return re.findall(r'^load_(\w+)\(\)', SCRIPT.read_text(), re.M)


@pytest.mark.soak
@pytest.mark.parametrize('cpus', [1, 4])
@pytest.mark.parametrize('load', workloads())
def test_workload(tenon, debian, load, cpus):
    """Runs one function of the script inside the guest; it must end well, and so must Debian."""
    data = tenon.directory / 'data.raw'
    subprocess.run([ROOT / 'tools/demo-guest', 'disk', data], check=True, capture_output=True)
    e2fsprogs('debugfs', '-w', '-R', 'write %s script' % SCRIPT, str(data))
    args = debian('--full', append='tenon.demo=script load=' + load)
    result = tenon.run(*args, '--disk', data, '--cpus', cpus, timeout=3600)
    text = result.stdout
    assert result.returncode == 0, (text[-3000:], result.stderr[-3000:])
    assert 'load: %s passed' % load in text and 'demo: done' in text, text[-3000:]
    assert 'FAILED' not in text, text[-3000:]
