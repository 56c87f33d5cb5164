"""Run a command that cannot outlive the process that started it: `leash.py COMMAND...`

The kernel sends the command SIGTERM when its parent's thread ends, however that ends.
Linux only; standard library only, because it is run with `python -I -S` to start fast.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

parent = os.getppid()
ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
if os.getppid() != parent:  # it died before the kernel knew
    sys.exit(1)
try:
    os.execvp(sys.argv[1], sys.argv[1:])
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error.strerror}")
