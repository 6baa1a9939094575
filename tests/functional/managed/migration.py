# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of migration have in common."""

import os

from .case import GuestTest

MIGRATE_TIMEOUT_S = 90
# A busy guest is not to be done at once, so that all of it is sent repeatedly.
ENDLESS = {"max-bandwidth": 64 << 20, "downtime-limit": 1}
FAST = {"max-bandwidth": 0, "downtime-limit": 10000}
# How a migration ends
COMPLETED = "completed"
ENDS = (COMPLETED, "failed", "cancelled")


class MigrationTest(GuestTest):
    """From one QEMU to another one on this host."""

    def make_target(self, manager, name="target", extra=(), **options):
        """A QEMU that waits for a guest, and the socket on which it does so."""
        path = os.path.join(self.box.run, f"incoming-{name}")
        vm = self.make_vm(manager=manager, name=name,
                          extra=("-incoming", f"unix:{path}", *extra),
                          **{"disk": None, **options})
        vm.launch()
        return vm, path

    # pylint: disable=too-many-arguments
    @staticmethod
    def send(source, target, path, speed, capabilities=(), parameters=()):
        """Begin a migration to who waits at path, or behind it.

        speed          FAST or ENDLESS
        capabilities   {name: state}, and parameters, on both sides
        """
        for vm in (source, target):
            vm.command("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": state}
                for name, state in dict(capabilities).items()])
            vm.command("migrate-set-parameters", **dict(parameters))
        source.command("migrate-set-parameters", **speed)
        source.command("migrate", uri=f"unix:{path}")

    # pylint: disable=too-many-arguments
    def migrate(self, source, manager, rounds=0, meanwhile=None,
                capabilities=(), parameters=(), **options):
        """Migrate a guest to a new QEMU, on a manager or ordinary memory.

        rounds      how often at least its memory is looked through
        meanwhile   called with source and target, once that has been done
        capabilities, parameters   as for send()
        options     of the new one
        """
        target, path = self.make_target(manager, **options)
        self.send(source, target, path, ENDLESS if rounds else FAST,
                  capabilities, parameters)
        self.wait_rounds(source, rounds)
        if meanwhile:
            meanwhile(source, target)
        self.finish_migration(source, target, manager)
        return target

    def finish_migration(self, source, target, manager=None):
        """Have it come to its end; manager: the target's, if it has one."""
        def is_done():
            self.look_at_target(target, manager)
            return self.has_status(source, COMPLETED)

        source.command("migrate-set-parameters", **FAST)
        self.wait(is_done, "migration", MIGRATE_TIMEOUT_S)
        target.event_wait("RESUME", MIGRATE_TIMEOUT_S)

    def look_at_target(self, target, manager):
        """Called again and again while a guest arrives."""

    @staticmethod
    def status(vm):
        """Of its migration."""
        return vm.command("query-migrate").get("status")

    def has_status(self, vm, wanted):
        """Whether its migration has this one; no other may be the end."""
        info = vm.command("query-migrate")
        if info.get("status") != wanted:
            self.assertNotIn(info.get("status"), ENDS, info)
        return info.get("status") == wanted

    def wait_status(self, vm, wanted, timeout=MIGRATE_TIMEOUT_S):
        """Until that is so."""
        self.wait(lambda: self.has_status(vm, wanted), f"status {wanted}",
                  timeout)

    def rounds(self, vm):
        """How often its memory has been looked through for what is dirty."""
        info = vm.command("query-migrate")
        self.assertNotIn(info["status"], ENDS, info)
        return info.get("ram", {}).get("dirty-sync-count", 0)

    def wait_rounds(self, vm, rounds):
        """Until that has been done so often."""
        self.wait(lambda: self.rounds(vm) >= rounds, f"round {rounds}",
                  MIGRATE_TIMEOUT_S)
