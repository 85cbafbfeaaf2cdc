"""A full or read-only disk for the jobs of a run: what LOOKALIKE_TEST_DISK says, in scripts that Snakemake starts."""

import ctypes
import errno
import os
import resource
import sys

CAPABILITIES = 0x20080522  # version 3 of Linux's capability.h
WRITE_ANYWHERE = 1 << 1  # CAP_DAC_OVERRIDE, with which root may write into read-only folders


def _obey_permissions():
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice
    if libc.capget(header, sets) == 0:
        sets[0] &= ~WRITE_ANYWHERE
        libc.capset(header, sets)


def _full(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


if any("/.snakemake/scripts/" in argument for argument in sys.orig_argv):
    match os.environ.get("LOOKALIKE_TEST_DISK"):
        case "full":  # not even a log can be written
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        case "full at the end":  # the contents are written, and cannot be stored
            os.fsync = _full
        case "read-only":
            _obey_permissions()
