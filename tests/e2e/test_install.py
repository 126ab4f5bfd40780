"""
A system is installed on a PC without a single virtio device, and boots there: Debian's generic kernel
fetches everything over the 82574L, partitions the SATA disk, puts GRUB and itself on it.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import FIRMWARE, PATIENCE, e2fsprogs, read_until
from installer import needed_libraries
from test_ahci import start_words
from test_discs import Shell
from test_remote_disks import web  # noqa: F401, a fixture

GRUB = pathlib.Path('/usr/lib/grub/i386-pc')
DISK_SIZE = 128 << 20
PARTITION = 1 << 20
DEVICES = ('--disk', 'path=disk.img,bus=ahci', '--net', 'user,model=e1000e', '--no-rng')

GRUB_CFG = """serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
menuentry 'Installed' {
    linux /boot/vmlinuz console=ttyS0 tenon.virtio=no tenon.disk=/dev/sda1 tenon.url=%s
    initrd /boot/initrd
}
"""

# What an installer does, with what it has fetched into the current folder.
INSTALL = r"""
run() { program=$1; shift; ./ld-linux-x86-64.so.2 --library-path . ./$program "$@"; }
set -e
echo 'label: dos
start=2048, type=83, bootable' | run sfdisk -q /dev/sda
dd if=boot.img of=/dev/sda bs=1 count=440 conv=notrunc
dd if=core.img of=/dev/sda bs=512 seek=1 conv=notrunc
run mke2fs -q -t ext4 -L installed /dev/sda1
mkdir -p /tmp/target
mount -t ext4 /dev/sda1 /tmp/target
cp -r root/* /tmp/target
umount /tmp/target
sync
"""


def build_kit(folder, guest, url):
    """The archive that the guest fetches: tools, GRUB, and the system to install."""
    kit = folder / 'kit'
    grub = kit / 'root/boot/grub'
    grub.mkdir(parents=True)
    for program in ('sfdisk', 'mke2fs'):
        path = shutil.which(program, path='/usr/sbin:/sbin:/usr/bin')
        loader = re.search(r'(/\S*ld-linux\S*)', subprocess.run(
            ['ldd', path], check=True, capture_output=True, text=True).stdout).group(1)
        libc = pathlib.Path(loader).resolve().parent / 'libc.so.6'
        for file in (path, loader, libc, *needed_libraries(path)):
            shutil.copy(file, kit)
    shutil.copy(GRUB / 'boot.img', kit)
    subprocess.run(['grub-mkimage', '-O', 'i386-pc', '-p', '(hd0,msdos1)/boot/grub', '-o',
                    kit / 'core.img', 'biosdisk', 'part_msdos', 'ext2', 'normal', 'linux', 'serial'],
                   check=True)
    for name in ('vmlinuz', 'initrd'):
        shutil.copy(guest / name, kit / 'root/boot')
    (grub / 'grub.cfg').write_text(GRUB_CFG % url)
    (kit / 'root/hello.txt').write_text('hello from the installer\n')
    (kit / 'install').write_text(INSTALL)
    subprocess.run(['tar', '-C', kit, '-czf', folder / 'kit.tar.gz', '.'], check=True)
    shutil.rmtree(kit)


def test_a_pc_without_virtio(tenon, pc_guest, web):  # noqa: F811
    if not shutil.which('grub-mkimage') or not GRUB.exists():
        pytest.skip('packages grub-common and grub-pc-bin are needed')
    if not pathlib.Path(FIRMWARE['bios']).exists():
        pytest.skip('%s is missing' % FIRMWARE['bios'])
    tenon.disk('disk.img', DISK_SIZE)
    (tenon.directory / 'page').write_bytes(b'page' * 999)
    port = re.search(r':(\d+)/', web).group(1)
    build_kit(tenon.directory, pc_guest, 'http://:%s/page' % port)

    process = tenon.start(*start_words(pc_guest, 'quiet tenon.demo=shell tenon.disk=/dev/sda'),
                          *DEVICES, stdin=subprocess.PIPE)
    text = read_until(process, 'exit powers', PATIENCE)
    assert 'demo: address 10.0.2.15' in text, text[-2000:]
    shell = Shell(process)
    assert 'unpacked' in shell.run('cd /tmp; wget -q -O - http://10.0.2.2:%s/kit.tar.gz | tar -xz && '
                                   'echo unpa"cke"d' % port)
    text = shell.run('sh install && echo instal"le"d')
    assert 'installed' in text, text
    process.stdin.write(b'exit\n')
    process.stdin.flush()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err.decode(errors='replace')[-2000:]
    clean = ('e2fsck', '-fn', '%s?offset=%d' % (tenon.directory / 'disk.img', PARTITION))
    assert e2fsprogs(*clean).returncode == 0

    result = tenon.run('run', '--accel', 'soft', '--firmware', 'bios', *DEVICES, timeout=PATIENCE)
    text = result.stdout
    assert result.returncode == 0, (text[-3000:], result.stderr)
    assert 'demo: disk mounted, hello.txt says: hello from the installer' in text, text[-3000:]
    assert re.search('demo: checksum sha256 [0-9a-f]{64}', text)
    assert 'NIC Link is Up 1000 Mbps Full Duplex' in text and 'demo: fetched 3996 bytes' in text
    assert 'demo: done' in text and 'FAILED' not in text and 'virtio' not in text.replace(
        'tenon.virtio=no', ''), text[-3000:]
    assert e2fsprogs(*clean).returncode == 0
