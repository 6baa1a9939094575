# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest that does not go on, its QEMU and its pager are doing."""

import sys
from pathlib import Path

QMP_TIMEOUT_S = 5


def _read(path):
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as err:
        return f"({err.strerror})"


def threads(pid):
    """Lines: each thread of a process, and where it is in the kernel."""
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
        status = _read(task / "stat").rpartition(")")[2].split()
        lines.append(f"  {task.name} {_read(task / 'comm')}: "
                     f"{status[0] if status else '?'}, ticks "
                     f"{'+'.join(status[11:13])}, in {_read(task / 'wchan')}")
    return lines


def _hmp(vm, command):
    """Lines that a command of the human monitor prints."""
    try:
        return vm.command_within(QMP_TIMEOUT_S, "human-monitor-command",
                                 **{"command-line": command}).splitlines()
    except Exception as err:  # pylint: disable=broad-except
        return [f"{command}: {err!r}"]


def _code(vm, registers):
    """The bytes that a processor is at: another one may have changed them."""
    for line in registers:
        name, _, rest = line.partition("=")
        if name in ("RIP", "EIP"):
            return _hmp(vm, f"x /16xb 0x{rest.split()[0]}")
    return []


def guest_cpus(vm):
    """Lines: what the guest's processors do, and what is pending for them."""
    lines = []
    for cpu in range(len(_hmp(vm, "info cpus"))):
        _hmp(vm, f"cpu {cpu}")
        registers = _hmp(vm, "info registers")
        lines += [f"  {line}" for line in
                  [*registers[:12], *_code(vm, registers),
                   *_hmp(vm, "info lapic")]]
    return lines


def _pager(vm, manager):
    """Lines: the pager and what it says."""
    try:
        state = manager.vm(vm)
        reply = {key: value for key, value in state.reply.items()
                 if key != "latency"}
        return [f"pager {state.pager_pid}: {reply}",
                *threads(state.pager_pid)]
    except Exception as err:  # pylint: disable=broad-except
        # Whatever it is, the error that we are called for tells more.
        return [f"manager: {err}"]


def report(vm, manager):
    """Print all of it to standard error, which is kept with the test's log."""
    lines = [f"QEMU {vm.get_pid()}:", *threads(vm.get_pid()),
             *guest_cpus(vm)]
    if manager is None:
        lines.append("no managed memory")
    else:
        lines += _pager(vm, manager)
    print("\n".join(f"# {line}" for line in lines), file=sys.stderr)
