# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU with the test guest."""

import contextlib
import os
import pwd
import socket
import subprocess

from . import autopsy, environment
from .guest import GuestConsole
from .sandbox import die_with_parent
from .upstream import QEMUMachine, QEMUMachineError, VMLaunchFailure

QMP_TIMEOUT_S = 60
END_TIMEOUT_S = 5

# What to change in "-cpu max". Managed memory refuses guests that could run
# guests themselves. With five-level page tables, TCG of the base breaks the
# guest's programs.
CPU = "max,svm=off,vmx=off,la57=off"

# Quiet, but with errors; reboot at once on a panic. The guest would otherwise
# doubt its clock whenever the host does not let it run for a moment.
# An emulated CPU on a host that has little time for it may stand still for
# longer than guests expect; one that hangs is found by the tests' own limits.
KERNEL_ARGS = ("console=ttyS0 quiet loglevel=4 panic=-1 tsc=reliable "
               "memhp_default_state=online rcupdate.rcu_cpu_stall_timeout=100 "
               "watchdog_thresh=50")


class VmError(Exception):
    """QEMU did not start, or did not end, as it should."""


class GuestVM(QEMUMachine):
    """A QEMU that boots the test guest, with QMP and the guest's console.

    guest   the GuestConsole, once launched

    QEMUMachine does the rest: command(), event_wait(), shutdown(), ...
    """

    # pylint: disable=too-many-arguments,too-many-instance-attributes
    def __init__(self, box, name="guest", manager=None, limit=None,
                 memory="1G", backend=None, cpus=2, accel="tcg", disk="64M",
                 image=None,
                 free_page_reporting=False, free_page_hint=False, run="",
                 parameters="",
                 user=None, reboot=False, aio=None, prefix=(), extra=(),
                 stock=False):
        """
        box         Sandbox
        manager     Manager that owns the guest's memory; None: ordinary memfd
        limit       resident limit, None for none
        backend     -object text that makes "ram0", instead of the default
        accel       "tcg" or "kvm"; see accel.choose()
        disk        size of the virtio disk, None for no disk
        image       disk_path of another one, whose disk it gets
        run         mm.run of the agent: commands at boot
        parameters  more of the kernel command line
        user        run QEMU as this user
        reboot      let the guest reboot instead of ending QEMU then
        free_page_reporting, free_page_hint   whether the balloon has them
        aio         how QEMU does the disk's I/O; None: io_uring if it can
        prefix      words before QEMU's command
        extra       more arguments for QEMU
        stock       Debian's QEMU instead of ours
        """
        options = []
        if user is not None:
            entry = pwd.getpwnam(user)
            options = [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}",
                       "--clear-groups"]
        super().__init__(environment.stock_program() if stock else
                         environment.program("qemu-system-x86_64"),
                         wrapper=[*die_with_parent(options), *prefix],
                         name=name,
                         base_temp_dir=box.run, log_dir=str(box.logs),
                         qmp_timer=QMP_TIMEOUT_S)
        self.box = box
        self.guest = None
        self.disk_path = None
        self._console = None
        self._manager = manager
        self.memory = environment.parse_size(memory)
        self._add_memory(manager, limit, memory, backend)
        self._add_guest(run, parameters, accel, cpus)
        self._add_balloon(free_page_reporting, free_page_hint)
        self._add_disk(disk, image, aio)
        if not reboot:
            self.add_args("-no-reboot")
        self.add_args(*extra)
        box.on_exit(self._clean_up)

    def launch(self):
        """Start QEMU and read the guest's console."""
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        self._console = theirs
        try:
            super().launch()
        except VMLaunchFailure as err:
            raise VmError(f"QEMU did not start (status {err.exitcode}): "
                          f"{err.output}") from err
        finally:
            self._console = None
            theirs.close()
        self.box.know(self.get_pid())
        self._qmp.settimeout(QMP_TIMEOUT_S)
        self.guest = GuestConsole(ours, self.box.log(f"{self._name}-console"),
                                  self._tell_end,
                                  lambda: autopsy.report(self, self._manager))

    def _tell_end(self):
        """How QEMU has ended, for the message that the guest is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(END_TIMEOUT_S)
        return f"QEMU's status is {self._popen.poll()}; "

    def event_wait(self, name, timeout=60.0, match=None):
        """Wait for a QMP event; raise asyncio.TimeoutError if it is late."""
        # What is inherited takes any true value but a float for "for ever".
        return super().event_wait(name, float(timeout), match)

    def command_within(self, timeout, name, **arguments):
        """A QMP command; asyncio.TimeoutError if it takes longer (s)."""
        self._qmp.settimeout(timeout)
        try:
            return self.command(name, **arguments)
        finally:
            self._qmp.settimeout(QMP_TIMEOUT_S)

    def poweroff(self, timeout=30):
        """Have the guest switch itself off, and see that QEMU ends well."""
        self.guest.send("poweroff")
        try:
            self.wait(timeout)
        except QEMUMachineError as err:
            raise VmError(f"the guest did not switch itself off within "
                          f"{timeout} s") from err
        if self.exitcode() != 0:
            raise VmError(f"QEMU ended with status {self.exitcode()}: "
                          f"{self.get_log()}")

    def resident_bytes(self):
        """Guest RAM that the kernel has pages for, by its own count.

        Counts the memfds of QEMU that are as large as a memory backend.
        """
        folder = f"/proc/{self.get_pid()}/fd"
        files = {}
        # Descriptors, and QEMU itself, may go away meanwhile.
        with contextlib.suppress(FileNotFoundError):
            for fd in os.listdir(folder):
                path = os.path.join(folder, fd)
                if os.readlink(path).startswith("/memfd:"):
                    status = os.stat(path)
                    files[status.st_ino] = status
        return sum(status.st_blocks * 512 for status in files.values()
                   if status.st_size == self.memory)

    @property
    def _base_args(self):
        args = super()._base_args
        if self._console is not None:
            args += ["-chardev",
                     f"socket,id=console,fd={self._console.fileno()}",
                     "-serial", "chardev:console"]
        return args

    def _add_memory(self, manager, limit, memory, backend):
        if backend is None and manager is not None:
            backend = (f"memory-backend-managed,id=ram0,size={memory},"
                       f"path={manager.attach_path}")
            if limit is not None:
                backend += f",limit={limit}"
        elif backend is None:
            backend = f"memory-backend-memfd,id=ram0,size={memory},share=on"
        self.add_args("-name", self._name, "-nodefaults",
                      "-object", backend, "-m", f"{self.memory >> 20}M",
                      "-machine", "q35,memory-backend=ram0")

    def _add_guest(self, run, parameters, accel, cpus):
        accel += ",thread=multi" if accel == "tcg" else ""
        words = [KERNEL_ARGS, parameters] + ([f"mm.run={run}"] if run else [])
        self.add_args("-accel", accel, "-cpu", CPU, "-smp", str(cpus),
                      "-kernel", str(environment.GUEST / "vmlinuz"),
                      "-initrd", str(environment.GUEST / "initrd"),
                      "-append", " ".join(words))

    def _add_balloon(self, reporting, hint):
        device = "virtio-balloon-pci,id=balloon0"
        if reporting:
            device += ",free-page-reporting=on"
        if hint:
            device += ",free-page-hint=on,iothread=hinting"
            self.add_args("-object", "iothread,id=hinting")
        self.add_args("-device", device)

    def _make_image(self, size):
        path = os.path.join(self.box.disk, f"{self._name}.img")
        with open(path, "wb") as image:
            image.truncate(environment.parse_size(size))
        os.chmod(path, 0o666)
        return path

    def _add_disk(self, disk, image, aio):
        if disk is None:
            return
        self.disk_path = image or self._make_image(disk)
        if aio is None:
            aio = "io_uring" if environment.have_io_uring() else "threads"
        self.add_args("-blockdev", f"driver=file,node-name=disk0,aio={aio},"
                      f"cache.direct=on,filename={self.disk_path}",
                      "-device", "virtio-blk-pci,drive=disk0")

    def _post_shutdown(self):
        super()._post_shutdown()
        if self.guest is not None:
            self.guest.close()

    def _clean_up(self):
        """Whatever state it is in: end it."""
        self.kill()
