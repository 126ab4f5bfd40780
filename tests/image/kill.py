"""
Kills a writer in the middle of its work: at a drawn change of a file, not after a drawn time, so that neither a
fast nor a loaded machine makes it come too late.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import signal
import subprocess

from conftest import BUILD

SHIM = BUILD / 'tests/image/libkill_at.so'


def run(images, command, **variables):
    assert SHIM.exists(), '%s is missing: build first' % SHIM
    return subprocess.run([BUILD / 'src/cmd/tenon', 'image', *command], cwd=images.directory,
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=300,
                          env=dict(os.environ, LD_PRELOAD=str(SHIM), **variables)).returncode


def count_changes(images, command):
    """How many changes of files the whole command makes."""
    name = images.path('changes')
    assert run(images, command, KILL_COUNT=str(name)) == 0
    changes = int(name.read_text())
    name.unlink()
    assert changes > 4, changes
    return changes


def kill_within(images, command, draw, changes):
    """Runs the command and kills it at one of its changes."""
    at = draw.randint(1, changes * 9 // 10)
    assert run(images, command, KILL_AT=str(at)) == -signal.SIGKILL, 'no kill came at change %d' % at
