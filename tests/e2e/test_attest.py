"""
`tenon attest`: a start with GRUB under OVMF is proved by the TPM and its event log; another kernel
and another command line are named.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import pathlib
import re
import subprocess

from conftest import HALT, Qmp, e2fsprogs
from test_firmware_disk import choose_shell
from test_tpm import look_inside, needs_swtpm


def root_file(image, *commands):
    """Runs debugfs on the root file system, the second partition."""
    with open(image, 'rb') as file:
        file.seek(1024 + 128 + 32)
        start = int.from_bytes(file.read(8), 'little') * 512
    for command in commands:
        done = e2fsprogs('debugfs', '-w', '-R', command, '%s?offset=%d' % (image, start))
        assert done.returncode == 0, done.stderr


def change_file(image, path, change):
    copy = image.parent / 'copy'
    root_file(image, 'dump %s %s' % (path, copy))
    before = copy.read_bytes()
    copy.write_bytes(change(before))
    assert len(before) and copy.read_bytes() != before
    root_file(image, 'rm ' + path, 'write %s %s' % (copy, path))


class Machine:
    def __init__(self, tenon, tmp_path, image):
        self.tenon, self.tmp_path = tenon, tmp_path
        self.image = tmp_path / 'disk.img'
        subprocess.run(['cp', '--sparse=always', image, self.image], check=True)

    def boot(self):
        """Up to the shell of the second menu entry."""
        process = self.tenon.start(
            'run', '--accel', 'soft', '--firmware', 'uefi', '--firmware-vars', 'vars.fd', '--tpm',
            '--tpm-state', 'tpm', '--disk', self.image, '--qmp', 'qmp.sock',
            stdin=subprocess.PIPE)
        choose_shell(process)
        return process

    def attest(self, *words):
        return self.tenon.run_beside('attest', 'qmp.sock', *words)


def expect_measurements(pcrs, out):
    """UEFI firmware and GRUB have measured what they started; the kernel has their log."""
    for index in (0, 1, 4, 5, 7, 8, 9):
        assert int(pcrs[index], 16), (index, out[-3000:])
    assert int(pcrs[16], 16) == 0
    size = re.search(r'(\d+) /sys/kernel/security/tpm0/binary_bios_measurements', out)
    assert size and int(size.group(1)) > 2000, out[-3000:]
    assert 'Spec ID Event03' in out and 'kernel_cmdline: /boot/vmlinuz' in out


def stages(result):
    return {line[2:20].strip(): line[21:] for line in result.stdout.splitlines()[1:]}


@needs_swtpm
def test_a_changed_kernel_is_named(tenon, tmp_path, disk):
    machine = Machine(tenon, tmp_path, disk('uefi'))
    process = machine.boot()
    saved = machine.attest('--save', 'reference')
    assert saved.returncode == 0, (saved.stdout, saved.stderr)
    assert 'the quote is genuine' in saved.stdout and 'lead to its PCRs' in saved.stdout
    again = machine.attest('--reference', 'reference')
    assert again.returncode == 0, again.stdout
    assert set(stages(again).values()) == {'unchanged'}
    reference = json.loads((tmp_path / 'reference').read_text())
    assert any(event['about'] == '/boot/vmlinuz' and event['stage'] == 'kernel'
               for event in reference['events'])
    expect_measurements(*look_inside(process))

    change_file(machine.image, '/boot/vmlinuz', lambda kernel: kernel + bytes(16))
    # Not a word that makes the kernel speak: its lines would cut those that are waited for.
    change_file(machine.image, '/boot/grub/grub.cfg',
                lambda text: text.replace(b'quiet disk.mode=shell', b'quiet other=1 disk.mode=shell'))
    process = machine.boot()
    changed = machine.attest('--reference', 'reference')
    assert changed.returncode == 1, changed.stdout
    assert 'lead to its PCRs' in changed.stdout
    found = stages(changed)
    assert found['kernel'] == 'CHANGED: PCR 9: /boot/vmlinuz', changed.stdout
    assert found['command line'].startswith('CHANGED') and 'other=1' in found['command line']
    assert found['initial RAM disk'] == found['partitions'] == 'unchanged'
    assert found['firmware'] == 'unchanged'
    assert 'TPM' not in found
    process.kill()


@needs_swtpm
def test_what_cannot_be_attested(tenon, tmp_path):
    kernel = tenon.guest('halt', HALT)
    plain = tenon.start('run', '--accel', 'soft', '--kernel', kernel, '--qmp', 'plain.sock')
    Qmp(tmp_path / 'plain.sock').close()
    result = tenon.run_beside('attest', 'plain.sock')
    assert result.returncode == 1 and 'no TPM: start it with --tpm' in result.stderr
    plain.kill()

    tenon.start('run', '--accel', 'soft', '--kernel', kernel, '--tpm', '--tpm-state', 'tpm',
                '--qmp', 'tpm.sock')
    qmp = Qmp(tmp_path / 'tpm.sock')
    result = tenon.run_beside('attest', 'tpm.sock')
    assert result.returncode == 1, result.stdout
    # Nobody has started the TPM: TPM_RC_INITIALIZE.
    assert 'refuses command' in result.stderr and '0x100' in result.stderr, result.stderr
    for wrong in ('8', 'zz', '80010000000b', '00' * 5000, ''):
        assert 'error' in qmp.raw({'execute': 'tpm-command', 'arguments': {'command': wrong}})
    assert qmp.command('tpm-command', command='80010000000c000001440000') == {
        'response': '80010000000a00000000'}
    result = tenon.run_beside('attest', 'tpm.sock')
    assert result.returncode == 1 and 'no event log' in result.stderr, result.stderr
    (tmp_path / 'junk').write_bytes(os.urandom(5000))
    result = tenon.run_beside('attest', 'tpm.sock', '--log', 'junk')
    assert result.returncode == 1 and 'does not begin like one' in result.stderr
    log = pathlib.Path(__file__).parents[1] / 'fuzz/corpus/event_log/ovmf'
    result = tenon.run_beside('attest', 'tpm.sock', '--log', log, '--save', 'no')
    assert result.returncode == 1, result.stdout
    assert 'do not lead to PCR 0 1 ' in result.stdout and not (tmp_path / 'no').exists()
    qmp.close()


def test_usage(tenon):
    assert tenon.run('attest').returncode == 2
    assert tenon.run('attest', 'a', 'b').returncode == 2
    gone = tenon.run('attest', 'nobody')
    assert gone.returncode == 1 and 'nobody' in gone.stderr
