"""
`tenon run IMAGE`: what is chosen, and that the image stays as it was.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import pathlib
import shutil
import subprocess

import pytest

from conftest import read_until
from test_firmware import boot_sector, exit_with, needs_seabios

# Writes its own sector over sector 2 through int 0x13, then ends with status 0, or 3 on an error.
WRITES = (b'\x31\xc0\x8e\xd8\x8e\xc0'
          + b'\xb8\x01\x03\xb9\x03\x00\xbb\x00\x7c'    # ax = 0x0301, cx = 3, bx = 0x7c00
          + b'\xb6\x00\xcd\x13\x72\x07'                # dh = 0, int 0x13; jc error
          + exit_with(0) + exit_with(3))


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ('XDG_CACHE_HOME', 'XDG_STATE_HOME'):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    return tmp_path


def left_in_cache(home):
    return [path for path in (home / 'XDG_CACHE_HOME').rglob('*') if path.is_file()]


@needs_seabios
@pytest.mark.parametrize('kind', ['raw', 'qcow2'])
def test_the_image_stays_as_it_was(tenon, home, kind):
    image = boot_sector(home, WRITES, 'my disk.raw')
    if kind == 'qcow2':
        subprocess.run([tenon.path, 'image', 'convert', '-O', 'qcow2', image, home / 'd.qcow2'],
                       check=True, stdout=subprocess.DEVNULL)
        image = home / 'd.qcow2'
    before = image.read_bytes()
    result = tenon.run('run', image, '--accel', 'soft', '--debug-exit', timeout=300)
    assert result.returncode == 0, result.stderr
    assert image.read_bytes() == before
    assert left_in_cache(home) == []
    report = result.stderr
    for words in ("VM '%s'" % ('my-disk' if kind == 'raw' else 'd'), 'board q35', 'firmware: bios',
                  'changes are dropped', 'net n0: user NAT', 'console c0: serial'):
        assert words in report, report
    assert len(report.split('stage')[0].splitlines()) == 6

    result = tenon.run('run', image, '--write', '--accel', 'soft', '--debug-exit', timeout=300)
    assert result.returncode == 0, result.stderr
    assert image.read_bytes() != before


def test_firmware_follows_the_partition_table(tenon, home):
    sfdisk = shutil.which('sfdisk', path='/usr/sbin:/sbin:/usr/bin')
    if not sfdisk:
        pytest.skip('sfdisk is missing (package fdisk)')
    tables = {'esp': ('label: gpt\nsize=2048, type=L\nsize=2048, type=U\n', 'uefi'),
              'gpt': ('label: gpt\nsize=2048, type=L\n', 'bios'),
              'mbr': ('label: dos\nsize=2048, type=83\n', 'bios')}
    for name, (table, firmware) in tables.items():
        image = home / (name + '.img')
        with open(image, 'wb') as file:
            file.truncate(8 << 20)
        subprocess.run([sfdisk, '-q', image], input=table.encode(), check=True)
        dry = tenon.run('run', image, '--dry-run').stdout
        assert 'firmware: ' + firmware in dry and 'name: ' + name in dry
        assert 'kind: user' in dry and 'memory: %d' % (1 << 30) in dry
        # A flag has the last word.
        assert 'firmware: bios' in tenon.run('run', image, '--dry-run', '--firmware', 'bios').stdout
        assert 'memory: %d' % (2 << 30) in tenon.run('run', '--memory', '2G', image, '--dry-run').stdout
    # A table that points anywhere is no table.
    data = bytearray((home / 'esp.img').read_bytes())
    for at, value in ((72, 0xffffffffffffffff), (84, 0xffffffff), (80, 0)):
        broken = bytearray(data)
        broken[512 + at:512 + at + 8] = value.to_bytes(8, 'little')
        (home / 'broken.img').write_bytes(broken)
        assert 'firmware: bios' in tenon.run('run', home / 'broken.img', '--dry-run').stdout


def efi_image(path, *programs):
    """A disk of one EFI system partition with these boot programs (package mtools)."""
    sfdisk = shutil.which('sfdisk', path='/usr/sbin:/sbin:/usr/bin')
    if not sfdisk or not shutil.which('mcopy'):
        pytest.skip('sfdisk or mcopy is missing (packages fdisk, mtools)')
    with open(path, 'wb') as file:
        file.truncate(40 << 20)
    subprocess.run([sfdisk, '-q', path], input=b'label: gpt\nstart=2048, type=U\n', check=True)
    at = '%s@@1M' % path
    subprocess.run(['mformat', '-i', at, '-T', '65536', '::'], check=True)
    subprocess.run(['mmd', '-i', at, '::EFI', '::EFI/BOOT'], check=True)
    for program in programs:
        subprocess.run(['mcopy', '-i', at, '/dev/null', '::EFI/BOOT/' + program], check=True)
    return path


def test_an_image_of_another_architecture(tenon, home):
    """Named before anything is started, whatever the format; not when the flags know better."""
    image = efi_image(home / 'arm.img', 'BOOTAA64.EFI', 'GRUBAA64.EFI')
    subprocess.run([tenon.path, 'image', 'convert', '-O', 'qcow2', image, home / 'arm.qcow2'],
                   check=True, stdout=subprocess.DEVNULL)
    for path in (image, home / 'arm.qcow2'):
        result = tenon.run('run', path)
        assert result.returncode == 1 and 'boots on arm64 only' in result.stderr, result.stderr
        assert 'amd64' in result.stderr and str(path) in result.stderr
    other = efi_image(home / 'riscv.img', 'BOOTRISCV64.EFI')
    assert 'boots on RISC-V only' in tenon.run('run', other).stderr
    for words in (('--boot', 'd0'), ('--kernel', 'k')):
        assert tenon.run('run', image, '--dry-run', *words).returncode == 0
    both = efi_image(home / 'both.img', 'BOOTAA64.EFI', 'BOOTX64.EFI')
    none = efi_image(home / 'none.img')
    for path in (both, none):
        assert 'firmware: uefi' in tenon.run('run', path, '--dry-run').stdout


def test_a_disc_of_another_architecture(tenon, home):
    if not shutil.which('xorriso') or not pathlib.Path('/usr/share/OVMF/OVMF_CODE_4M.fd').exists():
        pytest.skip('packages xorriso and ovmf are needed')
    discs = {}
    for name, programs in (('arm', ['BOOTAA64.EFI']), ('pc', ['BOOTAA64.EFI', 'BOOTX64.EFI'])):
        whole = efi_image(home / 'esp.img', *programs).read_bytes()
        root = home / name
        root.mkdir()
        (root / 'efi.img').write_bytes(whole[1 << 20:(1 << 20) + (32 << 20)])
        discs[name] = home / (name + '.iso')
        subprocess.run(['xorriso', '-as', 'mkisofs', '-quiet', '-o', discs[name], '-e', 'efi.img',
                        '-no-emul-boot', root], check=True, capture_output=True)
    words = ('run', '--accel', 'soft', '--firmware', 'uefi', '--firmware-vars', 'vars.fd')
    result = tenon.run(*words, '--cdrom', discs['arm'])
    assert result.returncode == 1 and "disk 'd0'" in result.stderr, result.stderr
    assert 'boots on arm64 only' in result.stderr
    # Beside a disk it is a disc like any other.
    for drives in (('--cdrom', discs['pc']), ('--cdrom', discs['arm'], '--disk', tenon.disk())):
        process = tenon.start(*words, *drives)
        read_until(process, 'BdsDxe', timeout=300)
        process.kill()
        process.wait()


@needs_seabios
def test_cloud_init_finds_its_seed(tenon, home, demo_guest):
    """A Linux guest reads the seed as cloud-init would, as a CD's file system with its label."""
    user, key = home / 'user', home / 'id.pub'
    user.write_text('#cloud-config\npackages: [htop]\n')
    key.write_text('# mine\nssh-ed25519 AAAAC3NzaC1 me@here\n')
    disk = home / 'data.img'
    files = home / 'files'
    files.mkdir()
    (files / 'hello.txt').write_text('hello')
    for module in ('cdrom.ko', 'isofs.ko'):
        shutil.copy(next(demo_guest.joinpath('modules').rglob(module)), files / module)
    (files / 'script').write_text('insmod /mnt/cdrom.ko; insmod /mnt/isofs.ko; mkdir /tmp/cd\n'
                                  'echo label $(dd if=/dev/vdb bs=1 skip=32808 count=6)\n'
                                  'mount -t iso9660 -o ro /dev/vdb /tmp/cd && '
                                  'cat /tmp/cd/meta-data /tmp/cd/user-data\n')
    with open(disk, 'wb') as image:
        image.truncate(16 << 20)
    subprocess.run(['/sbin/mke2fs', '-q', '-t', 'ext4', '-d', files, disk], check=True)
    result = tenon.run('run', '--accel', 'soft', '--kernel', demo_guest / 'vmlinux', '--initrd',
                       demo_guest / 'initrd', '--append', 'console=ttyS0 tenon.demo=script',
                       '--disk', disk, '--user-data', user, '--ssh-key', key, '--hostname', 'web1',
                       timeout=600)
    out = result.stdout.replace('\r', '')
    assert 'local-hostname: web1\n' in out, out[-3000:]
    assert 'public-keys:\n  - "ssh-ed25519 AAAAC3NzaC1 me@here"\n' in out
    assert '#cloud-config\npackages: [htop]\n' in out
    assert 'instance-id: tenon-' in out
    assert 'label cidata\n' in out
    assert left_in_cache(home) == []


def test_a_seed_that_cannot_be(tenon, home):
    disk = tenon.disk()
    private = home / 'id'
    private.write_text('-----BEGIN OPENSSH PRIVATE KEY-----\n')
    for flags, status, words in ((('--hostname', '-x'), 2, 'host name'),
                                 (('--hostname', 'a b'), 2, 'host name'),
                                 (('--ssh-key', private), 1, 'public key'),
                                 (('--ssh-key', home / 'gone'), 1, 'does not exist'),
                                 (('--user-data', home / 'gone'), 1, 'does not exist')):
        result = tenon.run('run', '--accel', 'soft', '--disk', disk, *flags)
        assert result.returncode == status and words in result.stderr, result.stderr
    assert left_in_cache(home) == []


def test_what_is_no_image(tenon, home):
    vm = home / 'vm.yaml'
    vm.write_text('kernel: k\n')
    assert 'kernel: ' in tenon.run('run', vm, '--dry-run').stdout
    result = tenon.run('run', vm, '--write')
    assert result.returncode == 2 and '--write' in result.stderr
    odd = home / 'odd.img'
    subprocess.run([tenon.path, 'image', 'create', '-f', 'qcow2', odd, '8M'], check=True,
                   stdout=subprocess.DEVNULL)
    result = tenon.run('run', odd, '--dry-run')
    assert result.returncode == 2 and 'begins like a qcow2 image' in result.stderr
    result = tenon.run('run', home / 'gone.qcow2')
    assert result.returncode == 1 and 'does not exist' in result.stderr
