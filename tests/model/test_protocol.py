"""Every promise of the protocol holds in every state of its model, and each rule is needed for one of them."""

from dataclasses import fields, replace

import pytest

from tests.model.protocol import Protocol
from tests.model.state import Rules, Size
from tests.model.walk import at_random, everywhere

pytestmark = pytest.mark.no_cover  # no code of the project runs here, and being watched takes half as long again

SMALL = [
    Size(users=2, requests=1, dispatchers=2, workers=2, faults=1, failures=1),
    Size(users=1, requests=2, dispatchers=2, workers=2, faults=2, failures=1),
    Size(users=2, requests=1, dispatchers=2, workers=1, faults=2, failures=0),
    Size(users=1, requests=1, dispatchers=2, workers=2, faults=3, failures=2),
    Size(users=2, requests=1, dispatchers=1, workers=2, faults=2, failures=0, limit=1),
]
# The least in which the protocol breaks without a rule: of one user, unless it says otherwise.
ONE_USER = Size(users=1, requests=2, dispatchers=2, workers=2, faults=1, failures=1)
TWO_USERS = Size(users=2, requests=1, dispatchers=2, workers=1, faults=1, failures=0)
BESIDE_A_SLOW_ONE = Size(users=2, requests=1, dispatchers=1, workers=2, faults=1, failures=0)
OF_A_LIMITED_KIND = replace(BESIDE_A_SLOW_ONE, limit=1)
NEEDS = {
    **dict.fromkeys(("skip_locked", "set_silent_aside", "each_row_its_own_guard"), TWO_USERS),  # a bystander waits
    "give_back_beside_a_slow_one": BESIDE_A_SLOW_ONE,
    "begin_nothing_that_may_be_given_back": replace(BESIDE_A_SLOW_ONE, faults=2),
    "ask_for_a_permit": OF_A_LIMITED_KIND,
    "decide_one_after_another": OF_A_LIMITED_KIND,
    "permits_end_with_the_lease": OF_A_LIMITED_KIND,
    "call_those_held_back": OF_A_LIMITED_KIND,
}


@pytest.mark.parametrize("size", SMALL, ids=str)
def test_every_state_keeps_every_promise(size: Size) -> None:
    walked = everywhere(Protocol(size, Rules()))
    assert not walked.broken, (walked.broken, walked.trail)
    assert walked.states > 10_000, "it was no walk"


@pytest.mark.parametrize("rule", [field.name for field in fields(Rules)])
def test_without_any_of_its_rules_the_protocol_breaks(rule: str) -> None:
    walked = everywhere(Protocol(NEEDS.get(rule, ONE_USER), replace(Rules(), **{rule: False})))
    assert walked.broken


@pytest.mark.parametrize("seed", range(4))
def test_long_walks_at_random_through_a_large_one_come_to_their_end(seed: int) -> None:
    for limit in (0, 2):
        size = Size(users=3, requests=3, dispatchers=3, workers=3, faults=8, failures=4, limit=limit)
        walked = at_random(Protocol(size, Rules()), seed, walks=100)
        assert not walked.broken, (walked.broken, walked.trail[-30:])
