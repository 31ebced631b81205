"""No process outlives the one that started it, not even one that is killed with kill -9."""

import ctypes
import os
import signal
import sys
import threading
import time

PARENT = "OPTBENCH_PARENT"  # the process that started this one and must be there for it to go on
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tie() -> None:
    """Die when the process dies that OPTBENCH_PARENT names, and let those that this one starts die with it.

    The pool names itself for each of its runs; a run names itself for the ranks of DDP, which Lightning starts with
    its environment. Linux then kills the process when the thread dies that started it: start processes from the main
    one. Who lost the parent before this call, while Python and Hydra were loading, finds another one here and ends.
    """
    parent = int(os.environ.get(PARENT) or 0)
    if not parent:
        return
    os.environ[PARENT] = str(os.getpid())
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        die()


def watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
