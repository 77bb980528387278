"""kill_calls.py - kills a program before its n-th system call that may change a file: all the instants that
matter to what it leaves, one after the other."""

import ctypes
import os
import signal
import struct

from tap import Skip

TRACEME, SYSCALL, GETREGS, SETOPTIONS = 0, 24, 12, 0x4200
TRACESYSGOOD, EXITKILL = 1, 1 << 20
STOPPED = signal.SIGTRAP | 0x80
REGS, ORIG_RAX = struct.Struct("27Q"), 15  # struct user_regs_struct

# open and openat count if they create; an openat2 never does here
OPEN, OPENAT = 2, 257
CREATES = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)
CHANGING = {1, 18, 20, 296, 328,  # write, pwrite64, writev, pwritev, pwritev2
            76, 77, 285, 326,  # truncate, ftruncate, fallocate, copy_file_range
            82, 264, 316,  # rename, renameat, renameat2
            83, 84, 258,  # mkdir, rmdir, mkdirat
            85, 86, 87, 88, 263, 265, 266,  # creat, link, unlink, symlink; ...at
            90, 91, 268}  # chmod, fchmod, fchmodat

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _start(args):
    """The process, stopped at its beginning."""
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            # leaks are looked for by means of ptrace, which takes one at a time
            os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
            if _libc.ptrace(TRACEME, 0, None, None) == 0:
                os.execv(args[0], args)
        finally:
            os._exit(127)
    if not os.WIFSTOPPED(os.waitpid(pid, 0)[1]):
        raise Skip("ptrace is not allowed here")
    _libc.ptrace(SETOPTIONS, pid, None, TRACESYSGOOD | EXITKILL)
    return pid


def _changes(pid):
    regs = ctypes.create_string_buffer(REGS.size)
    _libc.ptrace(GETREGS, pid, None, regs)
    r = REGS.unpack(regs.raw)
    call, rsi, rdx = r[ORIG_RAX], r[13], r[12]
    if call in (OPEN, OPENAT):
        return bool((rsi if call == OPEN else rdx) & CREATES)
    return call in CHANGING


def kill_before(n, *args):
    """Runs a program of one thread and kills it before its n-th changing call, from 1; None: it was killed,
    otherwise its exit code."""
    pid, sig, entry = _start(args), 0, False
    while True:
        _libc.ptrace(SYSCALL, pid, None, sig)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            return None if os.WTERMSIG(status) == signal.SIGKILL else -os.WTERMSIG(status)
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        sig = 0 if os.WSTOPSIG(status) == STOPPED else os.WSTOPSIG(status)
        if not sig:
            entry = not entry
            n -= entry and _changes(pid)
            if entry and n == 0:
                os.kill(pid, signal.SIGKILL)
