#!/usr/bin/env python3
# Fills a manual page: a line "@GENERATED part@" becomes what `tenon help --man part` prints, and
# @VERSION@ the version. So options and keys cannot differ from the program.
#
# SPDX-License-Identifier: GPL-2.0-or-later
import re
import subprocess
import sys


def main():
    tenon, template, output, version = sys.argv[1:]
    with open(template) as page:
        text = page.read().replace("@VERSION@", version)

    def generated(match):
        return subprocess.run([tenon, "help", "--man", match.group(1)], check=True,
                              stdout=subprocess.PIPE, text=True).stdout.rstrip("\n")

    text = re.sub(r"^@GENERATED (\w+)@$", generated, text, flags=re.M)
    if "@GENERATED" in text:
        sys.exit(f"{template}: a line @GENERATED ...@ was not understood")
    with open(output, "w") as page:
        page.write(text)


main()
