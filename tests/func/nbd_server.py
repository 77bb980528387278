"""nbd_server.py - qemu-nbd as a server of remote disks."""

import os
import shutil
import signal
import subprocess
import time

from tap import Skip, expect


class Server:
    """qemu-nbd with one export, on a socket in `folder`."""

    def __init__(self, folder, file, *options, form="raw"):
        if not shutil.which("qemu-nbd"):
            raise Skip("qemu-utils is not installed")
        self.socket = f"{folder}/sock"
        self.process = subprocess.Popen(["qemu-nbd", "-t", "-f", form, "-k", self.socket, "-x", "disk",
                                         "-e", "4", *options, file], stderr=subprocess.PIPE)
        self.uri = f"nbd+unix:///disk?socket={self.socket}"
        for _ in range(200):
            if os.path.exists(self.socket) or self.process.poll() is not None:
                break
            time.sleep(0.05)
        expect(self.process.poll() is None, "qemu-nbd did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        if os.path.exists(self.socket):
            os.unlink(self.socket)
