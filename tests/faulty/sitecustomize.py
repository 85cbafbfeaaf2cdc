"""Decoders that hang or kill their process, in every Python process with this folder in PYTHONPATH.

An image's size says what happens while it is decoded: 60 x 41 hangs, 60 x 42 hangs and lets no other thread run,
60 x 43 dies of SIGSEGV, 60 x 44 is killed as if out of memory, 60 x 45 kills the process only among other threads.
"""

import ctypes
import os
import signal
import threading
import time

from PIL import PngImagePlugin

_load = PngImagePlugin.PngImageFile.load


def load(self, *arguments):
    match self.size:
        case 60, 41:
            time.sleep(1000)
        case 60, 42:
            ctypes.PyDLL(None).sleep(1000)  # unlike CDLL, it keeps the interpreter locked
        case 60, 43:
            ctypes.string_at(0)
        case 60, 44:
            os.kill(os.getpid(), signal.SIGKILL)
        case 60, 45 if threading.active_count() > 1:
            ctypes.string_at(0)
    return _load(self, *arguments)


PngImagePlugin.PngImageFile.load = load
