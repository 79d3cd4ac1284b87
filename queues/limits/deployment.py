"""What this deployment lets each kind do: what its handlers declare, unless an operator said otherwise."""

from dataclasses import dataclass
from typing import Any

from django.db import OperationalError, transaction
from django.db.models import F
from django.db.models.functions import Now

from queues import kinds
from queues.exceptions import NoSuch
from queues.kinds import Rate
from queues.limits.models import KindLimit
from queues.sql.figures import KINDS_AT_WORK
from queues.sql.locks import LOCK_LIMITS, wait_at_most
from queues.sql.maintenance import ADOPT
from queues.sql.statement import left_out

LOCK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class KindAtWork:
    """A kind, its limits here, and how many run and wait for a permit. `running` None: it has no limit, nobody counts.

    `waits_seconds`: for how long the first in its line has waited.
    """

    kind: str
    has_handler: bool
    max_concurrency: int | None
    rate: Rate | None
    set_here: bool
    paused: bool
    paused_by: str
    running: int | None
    waiting: int
    waits_seconds: float | None


def declare() -> None:
    """Note what this code's handlers declare. To be called before a process runs any of them."""
    missing = kinds.declared_limits().keys() - set(KindLimit.objects.values_list("kind", flat=True))
    KindLimit.objects.bulk_create([KindLimit(kind=kind) for kind in missing], ignore_conflicts=True)
    rows = {row.kind: row for row in KindLimit.objects.all()}
    for kind, (most, rate) in kinds.declared_limits().items():
        row = rows[kind]
        wanted = (most, *(rate or (None, None)))
        if (row.declared_concurrency, row.declared_rate, row.declared_seconds) != wanted:
            names = ("declared_concurrency", "declared_rate", "declared_seconds")
            _change(kind, **dict(zip(names, wanted, strict=True)))


def pause(kind: str, by: str) -> None:
    """Begin no request of this kind any more; what runs ends, and accepting goes on. Raises NoSuch."""
    _known(kind)
    _change(kind, paused=True, paused_at=Now(), paused_by=by[:500])


def resume(kind: str) -> None:
    """Go on with who waited longest. Raises NoSuch."""
    _known(kind)
    _change(kind, paused=False, paused_at=None, paused_by="")


def set_limits(kind: str, **limits: Any) -> None:
    """Set `max_concurrency` (a number, or 0 for none) or `rate` (a Rate, or 0 for none) here, whatever is declared.

    None: as declared. From now on it counts: what runs goes on, and nothing begins while more run than may. Raises
    NoSuch.
    """
    _known(kind)
    values: dict[str, Any] = {}
    if "max_concurrency" in limits:
        values["max_concurrency"] = limits["max_concurrency"]
    if "rate" in limits:
        rate = limits["rate"]
        values["rate"], values["seconds"] = rate if isinstance(rate, Rate) else (rate, None)
    _change(kind, **values)


def at_work() -> list[KindAtWork]:
    """All kinds that this code has, or that have limits here, by name."""
    known = {kind.name for kind in kinds.all_kinds()}
    found = {row.kind: _at_work(row, row.kind in known) for row in KINDS_AT_WORK.rows()}
    for name in known - found.keys():
        most, rate = kinds.declared_limits()[name]
        found[name] = KindAtWork(name, True, most, rate, False, False, "", None, 0, None)
    return [found[name] for name in sorted(found)]


def _at_work(row: Any, has_handler: bool) -> KindAtWork:
    rate = None if row.rate_most is None else Rate(row.rate_most, row.rate_seconds)
    return KindAtWork(
        row.kind, has_handler, row.most, rate, row.set_here, row.paused, row.paused_by,
        row.running if row.limited else None, row.waiting, row.oldest,
    )  # fmt: skip


def _known(kind: str) -> None:
    if kind not in kinds.declared_limits() and not KindLimit.objects.filter(kind=kind).exists():
        raise NoSuch(f"There is no kind {kind!r}: manage.py kind list shows all.")


def _change(kind: str, **values: Any) -> None:
    """Set it, for all decisions from now on. What is claimed of a kind that gets its first limit counts as running."""
    row, _ = KindLimit.objects.get_or_create(kind=kind)
    change = KindLimit.objects.filter(kind=kind)
    if row.limited:
        change.update(**values, version=F("version") + 1)
        return
    with transaction.atomic():
        _wait_for_claims()
        change.update(**values, version=F("version") + 1)
        if KindLimit.objects.get(kind=kind).limited:
            ADOPT.rows(kind=kind)


def _wait_for_claims() -> None:
    """Until this transaction ends nobody claims anything, so that all that is claimed is seen: a few milliseconds.

    Where somebody reads the table for longer, as a backup does, a claim of this very moment may not be counted.
    """
    try:
        with transaction.atomic():
            wait_at_most(LOCK_SECONDS)
            LOCK_LIMITS.rows()
    except OperationalError as error:
        if not left_out(error):
            raise
