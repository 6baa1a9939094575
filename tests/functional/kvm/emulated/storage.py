# SPDX-License-Identifier: GPL-2.0-or-later
"""Network storage: one emulated host has it, the others mount it.

Without the daemons that decide who may mount what, and without those that
configure it: what they would say is said here.
"""

import re
import subprocess
from pathlib import Path

from managed import environment

from . import network

HOST = 3
CABLES = {number: f"storage-{number}" for number in range(1, HOST)}


def shell(script):
    """Run commands, which have to succeed; what they print."""
    done = subprocess.run(["sh", "-ec", script], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise AssertionError(f"{script}: {done.stdout}")
    return done.stdout


class Nfs:
    """Linux's own, mounted "hard": it waits for a server that is away.

    The kernel asks a daemon who may mount what, but not for what it was told
    before: by everybody, EXPORT (no_root_squash, no subtree_check, fsid=0).
    """

    folder = Path("/nfs")
    fails_in_the_end = False
    EXPORT = Path("/srv/nfs")
    SERVE = """
        mkdir -p {export} /var/lib/nfs/v4recovery
        mount -t nfsd nfsd /proc/fs/nfsd
        cd /proc/net/rpc
        for client in {clients}; do
            echo "nfsd $client {never} hosts" > auth.unix.ip/channel
        done
        echo "hosts {export} {never} 9218 65534 65534 0" > nfsd.export/channel
        echo 'hosts 1 \\x00000000 {never} {export}' > nfsd.fh/channel
        cd /proc/fs/nfsd
        echo "-3 +4 +4.1 +4.2" > versions
        echo 4 > threads
        echo Y > v4_end_grace
    """
    MOUNT = """
        mkdir -p {folder}
        mount -t nfs4 -o vers=4.2,hard,addr={server},clientaddr={own} \\
            {server}:/ {folder}
    """

    def serve(self):
        """Be the storage."""
        shell(self.SERVE.format(
            export=self.EXPORT, never=2 ** 31 - 1,
            clients=" ".join(network.address(cable, number)
                             for number, cable in CABLES.items())))

    def mount(self, number):
        """See the storage from a host."""
        shell(self.MOUNT.format(
            folder=self.folder, own=network.address(CABLES[number], number),
            server=network.address(CABLES[number], HOST)))


class GlusterFs:
    """A volume of one brick; what a server that is away has not done fails."""

    folder = Path("/glusterfs")
    fails_in_the_end = True
    BRICK = Path("/srv/brick")
    LOG = "/build/check/glusterfs.log"
    PORT = 24100
    SERVER = """
volume posix
  type storage/posix
  option directory {brick}
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume brick
  type performance/io-threads
  subvolumes locks
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.address-family inet
  option transport.socket.listen-port {port}
  option auth.addr.brick.allow *
  option auth-path brick
  subvolumes brick
end-volume
"""
    # By default, a client waits for 42 s before it gives up.
    CLIENT = """
volume client
  type protocol/client
  option transport-type tcp
  option transport.address-family inet
  option remote-host {server}
  option remote-port {port}
  option remote-subvolume brick
  option ping-timeout 15
end-volume
"""

    def serve(self):
        """Be the storage."""
        self._start("glusterfsd", self.BRICK, self.SERVER.format(
            brick=self.BRICK, port=self.PORT))

    def mount(self, number):
        """See the storage from a host."""
        self._start("glusterfs", self.folder, self.CLIENT.format(
            server=network.address(CABLES[number], HOST), port=self.PORT),
                    str(self.folder))

    def _start(self, program, folder, volume, *arguments):
        folder.mkdir(parents=True)
        path = Path("/etc") / f"{program}.vol"
        path.write_text(volume)
        shell(" ".join((program, "-f", str(path), "-l", self.LOG,
                        *arguments)))


KINDS = {"nfs": Nfs(), "glusterfs": GlusterFs()}

# What is loaded while GlusterFS runs
GLUSTERFS = ("xlator/storage/posix.so", "xlator/features/locks.so",
             "xlator/performance/io-threads.so", "xlator/protocol/server.so",
             "xlator/protocol/client.so", "xlator/mount/fuse.so",
             "xlator/meta.so", "rpc-transport/socket.so", "auth/addr.so",
             "auth/login.so")


def files():
    """More files for the hosts' disk: {path there: path here}."""
    program = Path(environment.find_program("glusterfsd", "glusterfs-common"))
    found = {"usr/sbin/glusterfsd": program, "usr/sbin/glusterfs": program}
    libraries = subprocess.run(["ldd", program], check=True, text=True,
                               capture_output=True).stdout
    library = Path(re.search(r"(/\S+)/libglusterfs\.so\S* \(", libraries)[1])
    folder, = library.resolve().glob("glusterfs/*/xlator")
    for name in GLUSTERFS:
        path = folder.parent / name
        found[str(path).lstrip("/")] = path
    return found
