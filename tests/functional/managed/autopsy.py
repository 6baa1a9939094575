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


def guest_cpus(vm):
    """Lines: where the guest's processors are."""
    try:
        text = vm.command_within(
            QMP_TIMEOUT_S, "human-monitor-command",
            **{"command-line": "info registers -a"})
    except Exception as err:  # pylint: disable=broad-except
        return [f"  QEMU's monitor: {err!r}"]
    return ["  " + line for line in text.splitlines()
            if line.startswith(("CPU#", "EIP=", "RIP="))]


def report(vm, manager):
    """Print all of it to standard error, which is kept with the test's log."""
    lines = [f"QEMU {vm.get_pid()}:", *threads(vm.get_pid()),
             *guest_cpus(vm)]
    try:
        state = manager.vm(vm)
        reply = {key: value for key, value in state.reply.items()
                 if key != "latency"}
        lines += [f"pager {state.pager_pid}: {reply}",
                  *threads(state.pager_pid)]
    except Exception as err:  # pylint: disable=broad-except
        # Whatever it is, what follows tells more.
        lines.append(f"manager: {err}")
    print("\n".join(f"# {line}" for line in lines), file=sys.stderr)
