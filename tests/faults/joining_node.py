"""Join a Ray cluster: ``joining_node.py HIDDEN OPTION ...`` with the options of ``ray start``.

HIDDEN is a folder in whose place this node sees an empty one of its own, or nothing.
"""

import os
import sys

hidden, *options = sys.argv[1:]
words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
if hidden:
    hide = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", hide, hidden, *words]
os.execvp(words[0], words)
