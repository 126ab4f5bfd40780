"""
Discs: a GRUB disc boots from the optical drive under BIOS and UEFI, and as a disk; discs change under
a running guest, which locks its drive and opens it.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import pathlib
import shutil
import subprocess

import pytest

from conftest import FIRMWARE, GRUB, PATIENCE, ROOT, read_until
from test_ahci import start_words
from test_live import control

TOOLS = ('grub-mkrescue', 'xorriso', 'mformat')


@pytest.fixture(scope='session')
def disc(pc_guest, tmp_path_factory):
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    missing += [path for path in GRUB.values() if not pathlib.Path('/usr/lib/grub', path).exists()]
    if missing:
        pytest.skip('GRUB and its tools are missing (tools/install-deps test): %s' % missing)
    path = tmp_path_factory.mktemp('disc') / 'disc.iso'
    subprocess.run([ROOT / 'tools/disc-image', path], check=True, capture_output=True)
    return path


@pytest.mark.parametrize('kind, how', [
    ('bios', ('--boot', 'cdrom', '--disk', 'empty.img,bus=ahci', '--cdrom', '{}')),
    ('uefi', ('--cdrom', '{}')),
    ('bios', ('--disk', '{},bus=sata,readonly')),  # the same image as a disk
], ids=['bios', 'uefi', 'hybrid'])
def test_a_disc_boots(tenon, pc_guest, disc, kind, how):
    if not pathlib.Path(FIRMWARE[kind]).exists():
        pytest.skip('%s is missing' % FIRMWARE[kind])
    tenon.disk('empty.img')
    extra = ('--firmware-vars', 'vars.fd') if kind == 'uefi' else ()
    result = tenon.run('run', '--accel', 'soft', '--memory', '512M', '--firmware', kind, '--no-rng',
                       *extra, *(word.format(disc) for word in how), timeout=PATIENCE)
    text = result.stdout
    assert result.returncode == 0, (text[-2000:], result.stderr)
    digest = hashlib.sha256((pc_guest / 'initrd').read_bytes()).hexdigest()
    drive = 'sda' if how[0] == '--disk' else 'sr0'
    assert 'demo: disc mounted from %s, initrd sha256 %s' % (drive, digest) in text, text[-2000:]
    assert 'FAILED' not in text


class Shell:
    """A shell in the guest: the output of one command after another."""

    def __init__(self, process):
        self.process = process
        self.count = 0

    def run(self, command):
        self.count += 1
        mark = 'END%d' % self.count
        # The mark is put together by the guest: its echo of the line does not have it.
        self.process.stdin.write(('%s; echo EN""D%d\n' % (command, self.count)).encode())
        self.process.stdin.flush()
        return read_until(self.process, mark, PATIENCE)


def test_discs_change_under_a_guest(tenon, pc_guest):
    for letter in 'ab':
        (tenon.directory / (letter + '.iso')).write_bytes(letter.encode() * 2048 * 600)
    process = tenon.start(*start_words(pc_guest, 'quiet tenon.demo=shell tenon.disk=/dev/sr0'),
                          '--cdrom', 'a.iso', '--disk', 'path=b.iso,media=cdrom,id=second',
                          '--qmp', 'qmp.sock', stdin=subprocess.PIPE)
    read_until(process, 'exit powers', PATIENCE)
    shell, qmp = Shell(process), control(tenon)
    drives = {drive['device']: drive for drive in qmp.command('query-block')}
    assert drives['d0']['removable'] and not drives['d0']['tray_open']
    assert drives['d0']['inserted']['image']['virtual-size'] == 2048 * 600
    assert 'abbbb' in shell.run('head -c 1 /dev/sr0; head -c 4 /dev/sr1').replace('\r', '')
    # Another disc, while nobody looks.
    qmp.command('blockdev-change-medium', device='d0',
                filename=qmp.hand_over(tenon.directory / 'b.iso'))
    assert [qmp.event('DEVICE_TRAY_MOVED')['data']['tray-open'] for _ in '12'] == [True, False]
    assert 'bbbb' in shell.run('head -c 4 /dev/sr0')
    # The guest holds it: only by force; and is told when somebody presses the button.
    shell.run('exec 3</dev/sr0')
    assert 'is locked' in qmp.refused('eject', device='d0')
    assert {drive['device']: drive for drive in qmp.command('query-block')}['d0']['locked']
    shell.run('exec 3<&-')
    qmp.command('eject', device='d0')
    assert qmp.event('DEVICE_TRAY_MOVED')['data'] == {'device': 'd0', 'id': 'd0', 'tray-open': True}
    assert 'inserted' not in {drive['device']: drive for drive in qmp.command('query-block')}['d0']
    # Linux closes a tray to see what is in it.
    assert 'No medium' in shell.run('head -c 4 /dev/sr0')
    assert not qmp.event('DEVICE_TRAY_MOVED')['data']['tray-open']
    qmp.command('blockdev-change-medium', id='d0',
                filename=qmp.hand_over(tenon.directory / 'a.iso'))
    assert 'aaaa' in shell.run('head -c 4 /dev/sr0')
    process.stdin.write(b'exit\n')
    process.stdin.flush()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err.decode(errors='replace')[-2000:]
