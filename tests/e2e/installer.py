"""
What Debian's network installer needs around it: a mirror on loopback, and answers to its questions.

Of partman the package registries have only parts, so that a component of ours takes its place: the
installer fetches it like any other and runs it from its main menu; it partitions the disk with
sfdisk, makes a file system and powers off. What comes before is the installer's own: its boot, the
network, the answers over HTTP, the mirror, Debian's components with the drivers of disks.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import functools
import hashlib
import http.server
import os
import re
import shutil
import subprocess
import threading

import pytest

from conftest import ROOT

IMAGES = 'usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64'
DRIVERS = ('ata-modules', 'cdrom-core-modules', 'sata-modules', 'scsi-modules')
SUITE = 'bookworm'
INDEX = 'main/debian-installer/binary-amd64/Packages'
ARCHITECTURE = 'main/binary-amd64/Release'
KEYS = '/usr/share/keyrings/debian-archive-keyring.gpg'

ANSWERS = """d-i debian-installer/locale string en_US.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/get_hostname string installed
d-i netcfg/get_domain string
d-i hw-detect/load_firmware boolean false
d-i mirror/country string manual
d-i mirror/http/hostname string 10.0.2.2:%d
d-i mirror/http/directory string /debian
d-i mirror/http/proxy string
d-i mirror/suite string bookworm
d-i debian-installer/allow_unauthenticated boolean true
"""

CONTROL = """Package: partitioner
Version: 1
Architecture: all
Maintainer: Tenon
Section: debian-installer
Priority: standard
Installer-Menu-Item: 4200
Description: Partition the disk
"""

# The disk is the one of `sectors`: a disc image may be there as a disk, too.
PARTITION = """#!/bin/sh
exec >/dev/console 2>&1
depmod -a
for module in virtio_blk ahci sd_mod; do modprobe $module; done
update-dev >/dev/null
disk=$(grep -lx %d /sys/block/*/size | cut -d/ -f4)
echo "installer: disk $disk"
export LD_LIBRARY_PATH=/opt
/opt/sfdisk -q /dev/$disk </opt/table && update-dev >/dev/null &&
    /opt/mke2fs -q -t ext4 -L installed $(ls /dev/${disk}*2) && echo 'installer: partitioned'
sync
poweroff
"""

TABLE = 'label: gpt\nsize=8M, type=U\ntype=L\n'


def apt(folder, *words, source='deb', component='main/debian-installer'):
    """apt-get whose only source is one component, the installer's if none is told, beside the system's own state."""
    for name in ('none', 'state/lists/partial', 'cache/archives/partial'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / 'sources').write_text('%s [signed-by=%s] http://deb.debian.org/debian %s %s\n'
                                    % (source, KEYS, SUITE, component))
    options = {'Dir::Etc::sourcelist': folder / 'sources', 'Dir::Etc::sourceparts': folder / 'none',
               'Dir::State': folder / 'state', 'Dir::State::status': '/dev/null',
               'Dir::Cache': folder / 'cache', 'APT::Sandbox::User': ''}
    got = subprocess.run(['apt-get', '-q', *('-o%s=%s' % it for it in options.items()), *words],
                         cwd=folder, capture_output=True, text=True)
    if got.returncode:
        pytest.skip('%s cannot be fetched: %s' % (component, got.stderr[-200:]))


def drivers(initrd):
    """Folder with Debian's components for the kernel of the installer's initrd."""
    listing = subprocess.run(['sh', '-c', 'zcat "$0" | cpio -t --quiet "lib/modules/*/modules.order"',
                              initrd], check=True, capture_output=True, text=True).stdout
    release = re.search('lib/modules/([^/]+)/', listing).group(1)
    folder = ROOT / '.cache/packages' / ('installer-' + release)
    if not folder.exists():
        work = folder.with_name('%s.%d' % (folder.name, os.getpid()))
        work.mkdir(parents=True)
        try:
            apt(work / 'apt', 'update')
            apt(work / 'apt', 'download', *('%s-%s-di' % (name, release) for name in DRIVERS))
            (work / 'pool').mkdir()
            for path in (work / 'apt').glob('*.udeb'):
                path.rename(work / 'pool' / path.name)
            (work / 'pool').rename(folder)
        finally:
            shutil.rmtree(work)
    return folder


def needed_libraries(program):
    """Paths of the libraries that a program brings along; the installer has the C library."""
    listing = subprocess.run(['ldd', program], check=True, capture_output=True, text=True).stdout
    return [path for path in re.findall(r'=> (/\S+)', listing) if '/libc.so' not in path]


def build_partitioner(folder, sectors):
    """The component as a package in `folder`."""
    root = folder / 'partitioner'
    (root / 'DEBIAN').mkdir(parents=True)
    (root / 'opt').mkdir()
    (root / 'DEBIAN/control').write_text(CONTROL)
    (root / 'DEBIAN/postinst').write_text(PARTITION % sectors)
    (root / 'DEBIAN/postinst').chmod(0o755)
    (root / 'opt/table').write_text(TABLE)
    for program in ('/sbin/sfdisk', '/sbin/mke2fs'):
        for path in [program, *needed_libraries(program)]:
            shutil.copy(path, root / 'opt')
    subprocess.run(['dpkg-deb', '-b', '-Zgzip', '--root-owner-group', root,
                    folder / 'partitioner_1_all.udeb'], check=True, capture_output=True)
    shutil.rmtree(root)


def stanza(pool, path):
    """What the index says of a package."""
    control = subprocess.run(['dpkg-deb', '-f', path], check=True, capture_output=True, text=True)
    data = path.read_bytes()
    return '%sFilename: pool/%s\nSize: %d\nSHA256: %s\n' % (
        control.stdout, path.name, len(data), hashlib.sha256(data).hexdigest())


class Mirror:
    """Serves answers and components until it is closed; `requests` are the paths asked for."""

    def __init__(self, folder, initrd, sectors):
        pool, suite = folder / 'debian/pool', folder / 'debian/dists' / SUITE
        pool.mkdir(parents=True)
        for path in drivers(initrd).iterdir():
            shutil.copy(path, pool)
        build_partitioner(pool, sectors)
        index = '\n'.join(stanza(pool, path) for path in sorted(pool.iterdir())).encode()
        for name in (INDEX, ARCHITECTURE):
            (suite / name).parent.mkdir(parents=True)
        (suite / ARCHITECTURE).write_text('Architecture: amd64\n')
        (suite / INDEX).write_bytes(index)
        (suite / 'Release').write_text(
            'Origin: Debian\nSuite: oldstable\nCodename: %s\nArchitectures: amd64\n'
            'Components: main\nSHA256:\n %s %d %s\n'
            % (SUITE, hashlib.sha256(index).hexdigest(), len(index), INDEX))
        self.requests = requests = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_request(self, *_):
                requests.append(self.path)

            def log_error(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(
            ('127.0.0.1', 0), functools.partial(Handler, directory=str(folder)))
        self.port = self.server.server_port
        (folder / 'answers').write_text(ANSWERS % self.port)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
