"""iscsi_target.py - tgtd as an iSCSI target, in user space and without privileges."""

import os
import shutil
import socket
import subprocess
import time

from tap import Skip, expect

PATH = os.environ["PATH"] + ":/usr/sbin"


class Target:
    def __init__(self, folder, file):
        for tool in ("tgtd", "tgtadm"):
            if not shutil.which(tool, path=PATH):
                raise Skip("tgt is not installed")
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        self.number = str(port % 30000 + 1)
        self.env = dict(os.environ, PATH=PATH, TGT_IPC_SOCKET=f"{folder}/ipc")
        self.process = subprocess.Popen(["tgtd", "-f", "-C", self.number, "--iscsi",
                                         f"portal=127.0.0.1:{port}"], env=self.env,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        name = "iqn.2026-01.test:d"
        for _ in range(100):
            if self.admin("--op", "new", "--mode", "target", "--tid", "1", "-T", name):
                break
            time.sleep(0.1)
        expect(self.admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b",
                          file), "no logical unit")
        self.admin("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-P",
                   "thin_provisioning=1")
        expect(self.admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"), "no bind")
        self.portal = f"iscsi://127.0.0.1:{port}"
        self.url = f"{self.portal}/{name}/1"

    def admin(self, *args):
        return subprocess.run(["tgtadm", "-C", self.number, "--lld", "iscsi", *args], env=self.env,
                              capture_output=True, timeout=30).returncode == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
