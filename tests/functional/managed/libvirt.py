# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of libvirt: a libvirtd, and one domain on managed memory.

The distribution's own libvirtd runs it, from an ordinary domain XML with one
argument for QEMU more; there is no wrapper around QEMU. libvirtd gets a mount
namespace in which its folders are empty ones of the test, so that it neither
sees nor changes what the host's libvirt has, and in which the manager is where
managers are. So hosts have the same paths, and the domain's XML names none of
the test's. It also gets the accounts that Debian's package
libvirt-daemon-system would make, and that it asks for even if its
configuration names others.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import uuid

from . import environment
from .guest import GuestConsole
from .sandbox import die_with_parent
from .vm import KERNEL_ARGS

NAME = "managed"
START_TIMEOUT_S = 60
VIRSH_TIMEOUT_S = 60
LIBVIRT_GID = 64055
MANAGER_RUN = "/run/qemu-memory-manager"
# All of /run is the namespace's own.
FOLDERS = ("/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt",
           "/var/cache/libvirt")
RUN_FOLDER = "/run/libvirt"
ACCOUNTS = {
    "/etc/passwd": "libvirt-qemu:x:64055:{gid}::/nonexistent:/bin/false",
    "/etc/group": "libvirt-qemu:x:{gid}:",
}
HOSTS = 2

DAEMON_CONF = """
host_uuid = "{uuid}"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:stderr"
"""

QEMU_CONF = """
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
migration_address = "{address}"
"""

DOMAIN = """
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <memory unit='MiB'>512</memory>
  <vcpu>2</vcpu>
  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{guest}/vmlinuz</kernel>
    <initrd>{guest}/initrd</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'>
    <model fallback='forbid'>qemu64</model>
    <feature policy='disable' name='svm'/>
  </cpu>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    <serial type='unix'>
      <source mode='bind' path='{run}/serial'/>
      <target port='0'/>
    </serial>
    <memballoon model='virtio'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-object'/>
    <qemu:arg value='managed-memory,id=mm0,limit=128M'/>
  </qemu:commandline>
</domain>
"""


def missing():
    """Why there can be no libvirtd here; empty if there can."""
    if os.geteuid() != 0:
        return "libvirtd's system mode needs root"
    if not (shutil.which("libvirtd") and shutil.which("virsh")):
        return "no libvirt here"
    return ""


class LibvirtError(Exception):
    """virsh or libvirtd has failed."""


class Libvirt:
    """A libvirtd of the test's own, and virsh.

    uri   where other hosts, and virsh, find it
    """

    def __init__(self, manager, number=1):
        """
        manager   that of the host
        number    from 1; the host's name and its address have it
        """
        self.box = manager.box
        self.manager = manager
        self._number = number
        self._root = os.path.join(self.box.run, "libvirt")
        self._run = self._root + RUN_FOLDER
        self.uri = f"qemu+unix:///system?socket={self._run}/libvirt-sock"
        self._log = self.box.log("libvirtd")
        self._process = None

    def start(self):
        """Start libvirtd and wait until it answers."""
        for folder in (*FOLDERS, RUN_FOLDER):
            os.makedirs(self._root + folder)
        for folder in FOLDERS:
            os.makedirs(folder, exist_ok=True)
        for path, line in ACCOUNTS.items():
            self._write_accounts(path, line)
        self._write_hosts()
        self._write("etc/libvirt/libvirtd.conf",
                    DAEMON_CONF.format(uuid=uuid.uuid4()))
        self._write("etc/libvirt/qemu.conf",
                    QEMU_CONF.format(address=self._address(self._number)))
        # Ended by stop() at the latest.
        # pylint: disable=consider-using-with
        self._process = subprocess.Popen(
            [*die_with_parent(), "unshare", "--mount", "--uts", "sh", "-ec",
             self._script()],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        self.box.know(self._process.pid)
        self.box.on_exit(self.stop)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None:
                raise LibvirtError("libvirtd ended: " + self.last_words())
            if time.monotonic() > deadline:
                raise LibvirtError("libvirtd does not answer: "
                                   + self.last_words())
            time.sleep(0.1)

    def stop(self):
        """End the domain by force if there is one, and libvirtd."""
        self.destroy()
        self._process.terminate()
        self._process.wait(START_TIMEOUT_S)
        self._log.close()

    def destroy(self):
        """End the domain by force if there is one."""
        with contextlib.suppress(LibvirtError):
            self.virsh("destroy", NAME)

    def start_domain(self, parameters=""):
        """Define and start the domain; return the guest's console.

        parameters   more of the guest's kernel command line
        """
        path = os.path.join(self.box.run, "domain.xml")
        with open(path, "w", encoding="ascii") as file:
            file.write(DOMAIN.format(
                name=NAME, guest=environment.GUEST, run=RUN_FOLDER,
                cmdline=f"{KERNEL_ARGS} {parameters}",
                emulator=environment.program("qemu-system-x86_64")))
        self.virsh("define", path)
        self.virsh("start", NAME, "--paused")
        console = self.console()
        self.virsh("resume", NAME)
        return console

    def console(self):
        """The console of the guest that runs here; it is there just once."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(os.path.join(self._run, "serial"))
        console = GuestConsole(sock, self.box.log("console"))
        self.box.on_exit(console.close)
        return console

    def virsh(self, *args, timeout=VIRSH_TIMEOUT_S):
        """Output of a virsh command, which has to succeed."""
        with self.begin(*args) as process:
            return self.finish(process, timeout)

    def begin(self, *args):
        """Start a virsh command, for finish()."""
        # Whoever calls waits for it.
        # pylint: disable=consider-using-with
        process = subprocess.Popen(["virsh", "-q", "-c", self.uri, *args],
                                   stdin=subprocess.DEVNULL, text=True,
                                   stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        self.box.know(process.pid)
        return process

    def finish(self, process, timeout=VIRSH_TIMEOUT_S):
        """Output of a virsh command when it ends, which has to succeed.

        QEMUs that libvirtd has left become our children. It waits for their
        end, which is not before we have reaped them.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.box.reap_orphans()
            try:
                out, err = process.communicate(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    process.kill()
        if process.returncode:
            raise LibvirtError(f"{' '.join(process.args)}: {err.strip()}; "
                               + self.last_words())
        return out

    def qmp(self, command, **arguments):
        """A QMP command by way of virsh."""
        text = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(self.virsh("qemu-monitor-command", NAME,
                                     text))["return"]

    def has_domain(self):
        """Whether the domain runs here."""
        return NAME in self.virsh("list", "--name").split()

    def vm(self):
        """The state of the domain's memory, from the manager."""
        vms = self.manager.vms()
        if len(vms) != 1:
            raise LibvirtError(f"the manager has not one VM: {vms}")
        return vms[0]

    def last_words(self):
        """The last lines that libvirtd has printed."""
        text = (self.box.logs / "libvirtd.log").read_text(errors="replace")
        return " / ".join(text.strip().splitlines()[-3:])

    def qemu_log(self):
        """What QEMU has printed."""
        path = f"{self._root}/var/log/libvirt/qemu/{NAME}.log"
        with contextlib.suppress(FileNotFoundError):
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        return ""

    def _answers(self):
        try:
            return self.virsh("uri")
        except LibvirtError:
            return None

    def _script(self):
        """Commands that make the host, and become libvirtd."""
        binds = {path: self._root + path
                 for path in (*FOLDERS, RUN_FOLDER, *ACCOUNTS, "/etc/hosts")}
        binds[MANAGER_RUN] = self.manager.run
        return "\n".join([
            f"hostname {self._name(self._number)}", "mount -t tmpfs run /run",
            f"mkdir {RUN_FOLDER} {MANAGER_RUN}",
            *(f"mount --bind '{path}' '{where}'"
              for where, path in binds.items()),
            "exec libvirtd"])

    @staticmethod
    def _name(number):
        """Where libvirt tells other hosts to migrate to."""
        return f"libvirt-host-{number}"

    @staticmethod
    def _address(number):
        """One of this machine that nobody else is likely to use."""
        return f"127.77.0.{number}"

    def _write_accounts(self, path, line):
        """A copy of a file of accounts, with one line more if need be."""
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if f"\n{line.partition(':')[0]}:" not in text:
            text += line.format(gid=LIBVIRT_GID) + "\n"
        self._write(path[1:], text)

    def _write_hosts(self):
        """Names of all hosts, for whoever has to find them."""
        self._write("etc/hosts", "127.0.0.1 localhost\n" + "".join(
            f"{self._address(number)} {self._name(number)}\n"
            for number in range(1, HOSTS + 1)))

    def _write(self, path, text):
        with open(os.path.join(self._root, path), "w",
                  encoding="utf-8") as file:
            file.write(text)
