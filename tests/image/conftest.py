"""
Disk images, in both directions with qemu-img and qemu-io.

The build is found by TENON_BUILD, or is ./build.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import pathlib
import random
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get('TENON_BUILD') or ROOT / 'build').resolve()


class Images:
    """tenon image, qemu-img and qemu-io in a folder of their own."""

    def __init__(self, directory):
        self.directory = directory

    def call(self, *command, status=0, timeout=600, preexec_fn=None):
        done = subprocess.run([str(word) for word in command], cwd=self.directory, timeout=timeout,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors='replace', preexec_fn=preexec_fn)
        if status is not None:
            assert done.returncode == status, (command, done.returncode, done.stdout, done.stderr)
        return done

    def tenon_program(self):
        return BUILD / 'src/cmd/tenon'

    def tenon(self, *args, status=0, **options):
        return self.call(self.tenon_program(), 'image', *args, status=status, **options)

    def qemu(self, *args, status=0):
        """Again where QEMU fails by chance: it measures how fast a key is made, and may see no time at all."""
        for _ in range(20):
            done = self.call('qemu-img', *args, status=None)
            if 'Unable to get accurate CPU usage' not in done.stderr:
                break
        assert status is None or done.returncode == status, (args, done.returncode, done.stdout, done.stderr)
        return done

    def io(self, image, *commands, status=0):
        words = [word for command in commands for word in ('-c', command)]
        done = self.call('qemu-io', *words, image, status=status)
        assert 'Pattern verification failed' not in done.stdout, done.stdout
        return done

    def path(self, name):
        return self.directory / name

    def info(self, name, *args):
        return json.loads(self.tenon('info', '--output=json', *args, name).stdout)

    def sound(self, name, image_format='qcow2'):
        """Both programs find nothing to complain of."""
        self.qemu('check', '-f', image_format, name)
        self.tenon('check', '-f', image_format, name)

    def same(self, one, two):
        self.qemu('compare', one, two)
        self.tenon('compare', one, two)

    def mixed(self, name, size=8 << 20, seed=1):
        """A raw file of holes, noise, text and zeros that are written."""
        draw = random.Random(seed)
        with open(self.path(name), 'wb') as file:
            file.truncate(size)
            at = 0
            while at < size:
                length = min(draw.choice([512, 4096, 5000, 65536, 200000, 1 << 20]), size - at)
                kind = draw.randrange(4)
                if kind == 1:
                    data = draw.randbytes(length)
                elif kind == 2:
                    data = (b'the same words again and again ' * (length // 31 + 1))[:length]
                else:
                    data = bytes(length)
                if kind:
                    file.seek(at)
                    file.write(data)
                at += length
        return name


@pytest.fixture
def images(tmp_path):
    if not shutil.which('qemu-img') or not shutil.which('qemu-io'):
        pytest.skip('qemu-img and qemu-io are missing (package qemu-utils)')
    if not os.access(BUILD / 'src/cmd/tenon', os.X_OK):
        pytest.fail('tenon is missing in %s: build first, or set TENON_BUILD' % BUILD)
    return Images(tmp_path)
