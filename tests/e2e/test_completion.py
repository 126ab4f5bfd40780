"""
The scripts of `tenon completion`, in the shells that they are for.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pty
import shutil
import subprocess

import pytest

from conftest import wait_for

# What is typed, and what a shell makes of it.
CASES = [
    ('sta', 'start'),
    ('run --fir', 'run --firmware'),
    ('run --no-usb-t', 'run --no-usb-tablet'),
    ('set web --mem', 'set web --memory'),
    ('run --board q', 'run --board q35'),
    ('token create x --role op', 'token create x --role operator'),
    ('token rev', 'token revoke'),
    ('image conv', 'image convert'),
    ('start w', 'start web'),
    ('completion f', 'completion fish'),
]


@pytest.fixture
def shell(tenon, request):
    """(name, completion script, environment with a `tenon` that lists one VM and notes other words)."""
    name = request.param
    if not shutil.which(name):
        pytest.skip('%s is missing (package %s)' % (name, name))
    script = tenon.directory / 'completion'
    script.write_text(tenon.run('completion', name).stdout)
    stub = tenon.directory / 'bin/tenon'
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\n'
                    '[ "$1" != ps ] || { printf "NAME PID\\nweb  1\\n"; exit; }\n'
                    'echo "$*" >>"%s/typed"\n' % tenon.directory)
    stub.chmod(0o755)
    environment = dict(os.environ, PATH='%s:%s' % (stub.parent, os.environ['PATH']), HOME=str(tenon.directory),
                       TERM='dumb', XDG_CONFIG_HOME=str(tenon.directory), XDG_DATA_HOME=str(tenon.directory))
    return name, script, environment


def run(words, environment):
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize('shell', ['bash'], indirect=True)
@pytest.mark.parametrize('typed, made', CASES)
def test_bash(shell, typed, made):
    _, script, environment = shell
    words = ('tenon ' + typed).split()
    text = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tenon; printf "%s\\n" "${COMPREPLY[@]}"'
    found = run(['bash', '-c', text, script, *words], environment).split()
    # Which of several it is, the user says with the next letter.
    assert made.split()[-1] in found and all(word.startswith(words[-1]) for word in found)


@pytest.mark.parametrize('shell', ['fish'], indirect=True)
@pytest.mark.parametrize('typed, made', CASES)
def test_fish(shell, typed, made):
    _, script, environment = shell
    found = run(['fish', '--no-config', '-c', 'source $argv[1]; complete -C "tenon $argv[2]"', str(script), typed],
                environment).splitlines()
    assert made.split()[-1] in [line.split('\t')[0] for line in found]


@pytest.mark.parametrize('shell', ['zsh'], indirect=True)
def test_zsh(shell, tenon):
    """At a terminal: it completes nowhere else."""
    _, script, environment = shell
    typed, ready = tenon.directory / 'typed', tenon.directory / 'ready'
    main, terminal = pty.openpty()
    zsh = subprocess.Popen(['zsh', '-f', '-i'], stdin=terminal, stdout=terminal, stderr=terminal, env=environment,
                           cwd=tenon.directory, start_new_session=True)
    os.close(terminal)
    os.set_blocking(main, False)
    seen = b''

    def lines(path):
        """How many lines a file has; what the terminal says must be read meanwhile."""
        nonlocal seen
        try:
            seen += os.read(main, 65536)
        except BlockingIOError:
            pass
        return len(path.read_text().splitlines()) if path.exists() else 0
    # The line editor says when it listens.
    os.write(main, b'autoload -Uz compinit; compinit -u -D; source ./completion; unsetopt list_ambiguous menu_complete;'
                   b'zle-line-init() { echo >>ready }; zle -N zle-line-init\n')
    try:
        unique = [case for case in CASES if case[0] not in ('run --fir',)]
        for count, (text, _) in enumerate(unique):
            wait_for(lambda: lines(ready) > count, 60, lambda: 'the prompt: %r' % seen[-1000:])
            os.write(main, b'tenon %s\t\n' % text.encode())
            wait_for(lambda: lines(typed) > count, 60, lambda: 'tenon %s: %r' % (text, seen[-1000:]))
        assert typed.read_text().splitlines() == [made for _, made in unique]
    finally:
        zsh.kill()
        zsh.wait()
        os.close(main)


def test_wrong_shell(tenon):
    for words in ((), ('tcsh',), ('bash', 'zsh')):
        result = tenon.run('completion', *words)
        assert result.returncode == 2 and 'bash, zsh or fish' in result.stderr
