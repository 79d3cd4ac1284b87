"""A private PostgreSQL that can be lost, and what is kept elsewhere to have it back: a base backup and its WAL.

The commands are those of docs/operations.md. The folder `elsewhere` stands for another machine.
"""

import shutil
from pathlib import Path

import psycopg

from bench.place import wait_for
from scripts.servers.postgresql import Postgresql, connect
from scripts.servers.private import clean_environment
from scripts.servers.process import Process, launch

RECEIVER = "pg_receivewal"  # its program, and the name by which PostgreSQL knows it
SLOT = "backup"


class KeptPostgresql(Postgresql):
    """Its WAL is streamed elsewhere from `receive` on; `lose` leaves nothing else, and `restore` starts from that."""

    receiver: Process | None = None

    @property
    def elsewhere(self) -> Path:
        return self.data / "elsewhere"

    def receive(self, synchronous: bool) -> None:
        """Stream the WAL into an empty folder from now on; `synchronous`: a commit waits until it is on disk there."""
        shutil.rmtree(self.elsewhere, ignore_errors=True)
        for folder in (self.elsewhere, self.elsewhere / "wal"):
            folder.mkdir()
            self._give(folder)
        self.use(RECEIVER, *self._address(), "--slot", SLOT, "--create-slot", "--if-not-exists", **self._login())
        command = [str(self.program(RECEIVER)), *self._address(), "--slot", SLOT, "--synchronous"]
        with self.log_path.open("ab") as log:
            self.receiver = launch(
                [*command, "-D", str(self.elsewhere / "wal")],
                environment=clean_environment(**self._login()),
                output=log,
                folder=self.data,
                user=self.user(),
                stop_signal=2,
            )
        with connect(self.url) as connection:
            if synchronous:
                connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{RECEIVER}'")
                connection.execute("SELECT pg_reload_conf()")
            wanted = ("streaming", "sync" if synchronous else "async")
            state = "SELECT state, sync_state FROM pg_stat_replication WHERE application_name = %s"
            wait_for(lambda: connection.execute(state, [RECEIVER]).fetchone() == wanted, "the WAL's receiver")

    def take_base(self) -> None:
        """A base backup, checked against its manifest."""
        base = str(self.elsewhere / "base")
        self.use("pg_basebackup", *self._address(), "-D", base, "--checkpoint", "fast", **self._login())
        self.use("pg_verifybackup", "--quiet", base)

    def lose(self) -> None:
        """kill -9, and its disk is gone; what was received elsewhere is there."""
        self.kill()
        shutil.rmtree(self.data / "cluster")
        if self.receiver is not None:
            self.receiver.stop(grace=10)

    def restore(self, until: str | None) -> None:
        """Start from the base backup and all WAL there is, or the WAL `until` a moment (as PostgreSQL writes it)."""
        cluster, wal = self.data / "cluster", self.elsewhere / "wal"
        shutil.copytree(self.elsewhere / "base", cluster)
        settings = [
            # The newest segment is not full: pg_receivewal calls it .partial.
            f"restore_command = 'cp {wal}/%f %p || cp {wal}/%f.partial %p'",
            "synchronous_standby_names = ''",  # nobody receives yet: every commit would wait
        ]
        if until:
            settings += [f"recovery_target_time = '{until}'", "recovery_target_action = 'promote'"]
        with (cluster / "postgresql.auto.conf").open("a") as file:
            file.write("\n".join(settings) + "\n")
        (cluster / "recovery.signal").touch()
        for path in (cluster, *cluster.rglob("*")):
            self._give(path)
        cluster.chmod(0o700)
        self.start()
        with connect(self.url) as connection:  # it answers readers before it is through
            recovering = "SELECT pg_is_in_recovery()"
            wait_for(lambda: connection.execute(recovering).fetchone() == (False,), "the end of the recovery")
            for setting in settings:  # they would be in the next backup, and stop its recovery at the old moment
                connection.execute(f"ALTER SYSTEM RESET {setting.partition(' ')[0]}")

    def remove(self) -> None:
        if self.receiver is not None:
            self.receiver.kill()
        super().remove()

    def _address(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]

    def _login(self) -> dict[str, str]:
        return {"PGPASSWORD": self.password}

    def _give(self, path: Path) -> None:
        user = self.user()
        if user:
            shutil.chown(path, user)


def moment(url: str) -> str:
    """Now, by the clock of the PostgreSQL at `url`, as it writes it."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT clock_timestamp()::text").fetchone()
    assert row is not None
    return str(row[0])
