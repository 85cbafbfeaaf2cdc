"""Have a warm process (`warm.py`) run a program as a fork of itself.

As a program, `python -IS warm_client.py SOCKET COMMAND` runs `python COMMAND` with its own open files, folder,
environment and process group, and ends as that ends: it takes 20 ms instead of the imports.
"""

import _signal
import _socket  # `socket` takes longer to import than all else here
import marshal
import os
import sys
from array import array

LARGEST = 2**18  # bytes of a call
FILES = (0, 1, 2)  # standard input, output and error
DAY = 86_400.0


def call(address: str, program: tuple, files=FILES) -> int:
    """The exit status of a program, or the negative number of the signal that ended it.

    ``program``: the arguments of `python`, folder, environment, process group and seconds. It joins that group; 0 is
    one of its own, of which nothing is left after the seconds.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    connection.connect(address)
    opened = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", files))
    connection.sendmsg([marshal.dumps(program)], [opened])
    answer = connection.recv(LARGEST)
    connection.close()
    if not answer:
        raise RuntimeError(f"the process that should run {program[0]} has ended")
    return int(answer)


if __name__ == "__main__":
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    _, address, *command = sys.argv
    here = os.getcwd()  # noqa: PTH109  pathlib takes as long to import as all else
    status = call(address, (command, here, dict(os.environ), os.getpgrp(), DAY))
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)
