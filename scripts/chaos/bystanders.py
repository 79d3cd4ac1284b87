"""What a staying fault did to those whom it does not concern: how long their requests took meanwhile."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from scripts.chaos.fault import Struck
from scripts.chaos.probes import Probe
from scripts.chaos.witness import Row

PROMPT_SECONDS = 3.0  # from asked to finished
ALLOWED = 0.01  # of a fault's requests may take longer


@dataclass
class Stay:
    """One fault that stayed, and the seconds of each request that bystanders asked for while it counted, sorted."""

    fault: Struck
    took: list[float]
    stalled: list[str] = field(default_factory=list)  # what is one too many
    slow: int = 0
    unfinished: int = 0  # asked for at least PROMPT_SECONDS before it was healed, and not finished by then


def stays(faults: Iterable[Struck], probes: Iterable[Probe], rows: Iterable[Row]) -> list[Stay]:
    """Judge each fault that stayed.

    What was unfinished at its end is stalled, and what else took over PROMPT_SECONDS beyond one in a hundred.
    """
    finished = {row.id: row.finished for row in rows if row.finished is not None}
    asked = sorted(probes, key=lambda probe: probe.asked)
    return [_judge(fault, asked, finished) for fault in faults if fault.counts_to]


def _judge(fault: Struck, probes: list[Probe], finished: dict[str, float]) -> Stay:
    counted = [probe for probe in probes if fault.counts_from <= probe.asked < fault.counts_to]
    stay = Stay(fault, sorted(finished.get(probe.request, math.inf) - probe.asked for probe in counted))
    late: list[tuple[float, str]] = []
    for probe in counted:
        took = finished.get(probe.request, math.inf) - probe.asked
        what = f"{fault.name} ({fault.detail}): {probe.user} asked {probe.asked - fault.struck:.1f} s after it struck"
        what = f"{what}, which took {took:.1f} s" if probe.request else f"{what}, and was never accepted"
        if took > PROMPT_SECONDS and probe.asked + PROMPT_SECONDS <= fault.counts_to < probe.asked + took:
            stay.unfinished += 1
            stay.stalled.append(what)
        elif took > PROMPT_SECONDS:
            stay.slow += 1
            late.append((took, what))
    late.sort(reverse=True)
    stay.stalled += [what for _, what in late[: max(0, len(late) - int(ALLOWED * len(counted)))]]
    if not counted:
        stay.stalled.append(f"{fault.name}: no bystander asked for anything while it stayed")
    return stay


def by_fault(stays: Iterable[Stay]) -> dict[str, dict[str, float]]:
    """The figures of each kind for the report; seconds, None for one that never finished."""
    kinds: dict[str, list[Stay]] = defaultdict(list)
    for stay in stays:
        kinds[stay.fault.name].append(stay)
    return {name: _figures(kinds[name]) for name in sorted(kinds)}


def _figures(some: list[Stay]) -> dict[str, float]:
    took = sorted(seconds for stay in some for seconds in stay.took)
    return {
        "times": len(some),
        "requests": len(took),
        "over 3 s": sum(stay.slow for stay in some),
        "unfinished": sum(stay.unfinished for stay in some),
        "stalled": sum(len(stay.stalled) for stay in some),
        **{name: _shown(took, share) for name, share in (("median", 0.5), ("99 %", 0.99), ("max", 1.0))},
    }


def _shown(took: list[float], share: float) -> float:
    """The value below which that share lies; -1 for none and for one that never came."""
    value = took[max(0, math.ceil(share * len(took)) - 1)] if took else math.inf
    return round(value, 3) if math.isfinite(value) else -1.0
