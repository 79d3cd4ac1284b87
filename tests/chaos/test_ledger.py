"""The ledger finds what is wrong, and nothing else: shown on made-up evidence."""

import pytest

from scripts.chaos.probes import Probe
from tests.chaos.story import ANN, Story, healthy


def test_a_healthy_story_keeps_every_promise() -> None:
    ledger = healthy().judged()
    assert ledger.kept, ledger.violations
    assert (ledger.runs, ledger.attempts, ledger.duplicates, ledger.zombie_runs) == (3, 3, 0, 0)


def test_accepted_without_a_row_is_lost() -> None:
    story = healthy()
    story.clients.accepted[ANN]["r4"] = 4
    assert story.broken() == {"lost"}


def test_never_final_is_lost() -> None:
    assert healthy().accept(4).broken() == {"lost"}


def test_a_success_that_never_ran_is_lost() -> None:
    assert healthy().accept(4).record(1.6, 4).broken() == {"lost"}


def test_a_success_whose_own_row_is_gone_is_lost() -> None:
    story = Story().accept(1, kind="chaos.atomic").lease(1.0).run(1, 1.1, 1.2, kind="chaos.atomic").record(1.21, 1)
    assert story.broken() == {"lost"}
    story.seen.effects.append("r1")
    assert story.broken() == set()
    story.seen.effects.append("r1")
    assert story.broken() == {"recorded_twice"}


def test_an_effect_without_its_success_is_recorded_twice() -> None:
    story = healthy()
    story.seen.effects.append("r9")
    assert story.broken() == {"recorded_twice"}


def test_a_second_outcome_is_recorded_twice() -> None:
    assert healthy().record(1.6, 3).broken() == {"recorded_twice"}


def test_a_sequence_number_that_falls_is_out_of_order() -> None:
    story = healthy()
    story.clients.accepted[ANN] = {"r2": 2, "r1": 1, "r3": 3}
    assert story.broken() == {"out_of_order"}


def test_one_that_starts_before_the_one_ahead_is_over_is_out_of_order() -> None:
    story = Story().accept(1, 2).lease(1.0)
    story.run(2, 1.1, 1.2).run(1, 1.3, 1.4).record(1.5, 1, 2)
    assert story.broken() == {"out_of_order"}


def test_one_that_overtakes_a_failed_attempt_is_out_of_order() -> None:
    story = Story().accept(1, 2).lease(1.0)
    story.run(1, 1.1, 1.2, "error").run(2, 1.3, 1.4).run(1, 1.5, 1.6, attempt=2).record(1.7, 1, 2)
    story.change(1, attempt=2)
    assert story.broken() == {"out_of_order"}


def test_one_recorded_after_a_later_one_is_out_of_order() -> None:
    story = Story().accept(1, 2).lease(1.0)
    story.run(1, 1.1, 1.2).run(2, 1.3, 1.4).record(1.5, 2).record(1.6, 1)
    assert story.broken() == {"out_of_order"}


def test_what_an_owner_cancels_may_end_before_what_waits_ahead() -> None:
    story = Story().accept(1, 2, 3).lease(1.0).record(1.05, 3, status="cancelled")
    story.run(1, 1.1, 1.2).run(2, 1.3, 1.4).record(1.5, 1, 2)
    assert story.broken() == set()


def test_the_repetition_after_a_crash_is_a_duplicate_and_no_violation() -> None:
    story = Story().accept(1, 2, 3).lease(1.0)
    story.run(1, 1.1, 1.11).run(2, 1.11, 1.12).begin(3, 1.12).die(1, 1.2).take_away(2.0, expired=False).lease(2.1)
    story.run(1, 2.2, 2.3, pid=2).run(2, 2.3, 2.4, pid=2).run(3, 2.4, 2.5, pid=2).record(2.6, 1, 2, 3)
    ledger = story.judged()
    assert ledger.kept, ledger.violations
    assert (ledger.duplicates, ledger.killed_runs) == (3, 1)
    ages = story.recovery().repeated_age
    assert [round(age, 2) for age in sorted(ages)] == [0.08, 0.09]
    assert [round(took, 2) for took in story.recovery().all] == [1.0]


def test_a_number_that_another_process_gets_later_is_not_the_dead_one() -> None:
    story = Story().accept(1, 2).lease(1.0).begin(1, 1.1).die(1, 1.2).take_away(2.0, expired=False).lease(2.1)
    story.run(1, 2.2, 2.3, pid=2).record(2.4, 1).begin(2, 2.5, pid=1).end(2, 2.6, pid=1).record(2.7, 2).die(1, 9.0)
    assert story.broken() == set()


def test_two_runs_under_one_lease_overlap() -> None:
    story = Story().accept(1, 2).lease(1.0)
    story.begin(1, 1.1, pid=1).begin(2, 1.2, pid=2).end(1, 1.3, pid=1).end(2, 1.4, pid=2).record(1.5, 1, 2)
    assert "overlapping" in story.broken()


def test_a_lease_taken_from_one_who_lives_before_its_time_overlaps() -> None:
    story = Story().accept(1).lease(1.0).begin(1, 1.1).take_away(1.8, expired=False).lease(1.9)
    story.run(1, 2.0, 2.2, pid=2).end(1, 2.1, fence=1).record(2.3, 1)
    assert story.broken() == {"overlapping"}


def test_a_zombie_whose_lease_expired_is_counted_apart() -> None:
    story = Story().accept(1, 2).lease(1.0).begin(1, 1.1).take_away(4.1).lease(4.2)
    story.begin(1, 4.3, pid=2).end(1, 5.0, fence=1).run(2, 5.0, 5.01, fence=1).end(1, 5.1, pid=2)
    story.run(2, 5.2, 5.3, pid=2).record(5.4, 1, 2)
    ledger = story.judged()
    assert ledger.kept, ledger.violations
    assert (ledger.zombie_overlaps, ledger.zombie_runs) == (2, 1)


def test_an_outcome_that_a_zombie_wrote_is_unfenced() -> None:
    story = Story().accept(1).lease(1.0).begin(1, 1.1).take_away(4.1).lease(4.2)
    story.begin(1, 4.3, pid=2).end(1, 5.0, fence=1).record(5.01, 1, run="1@1.100000000").end(1, 5.1, pid=2)
    assert story.broken() == {"unfenced"}


def test_a_handler_that_cannot_be_interrupted_and_was_given_up_is_counted_apart() -> None:
    story = Story().accept(1, kind="chaos.hang").accept(2).lease(1.0).begin(1, 1.1, kind="chaos.hang")
    story.record(6.5, 1, status="failed").end_lease(6.5).lease(6.6).run(2, 6.7, 6.8, pid=2).record(6.9, 2)
    story.end(1, 8.0, fence=1, kind="chaos.hang")
    ledger = story.judged()
    assert ledger.kept, ledger.violations
    assert ledger.given_up_overlaps == 1


@pytest.mark.parametrize(
    ("seq", "change"),
    [(3, {"status": "failed"}), (3, {"request_in_result": "r2"}), (2, {"status": "cancelled"})],
    ids=["an honest one failed", "another's result", "another status than shown"],
)
def test_different_tales_are_a_contradiction(seq: int, change: dict[str, object]) -> None:
    story = healthy()
    story.clients.listed[ANN] = {f"r{n}": {"status": "succeeded", "sequence": n} for n in (1, 2)}
    assert story.broken() == set()
    assert story.change(seq, **change).broken() == {"contradicted"}


def test_one_that_no_client_knows_was_accepted_twice() -> None:
    story = healthy()
    story.accept(4).run(4, 1.6, 1.7).record(1.8, 4)
    del story.clients.accepted[ANN]["r4"]
    assert "contradicted" in story.broken()


def test_what_was_sent_once_without_an_answer_may_have_one_row_and_no_more() -> None:
    story = healthy()
    story.accept(4).run(4, 1.6, 1.7).record(1.8, 4).change(4, trace="sent-once")
    del story.clients.accepted[ANN]["r4"]
    assert "contradicted" in story.broken()
    story.clients.doubtful.add("sent-once")
    assert story.broken() == set()
    story.accept(5).run(5, 1.9, 2.0).record(2.1, 5).change(5, trace="sent-once")
    del story.clients.accepted[ANN]["r5"]
    assert story.broken() == {"contradicted"}


def test_a_standstill_is_blamed_on_the_fault_that_was_there_for_most_of_it() -> None:
    story = Story().accept(1, 2).lease(0.5).run(1, 1.0, 1.1).run(2, 9.0, 9.5).record(9.6, 1, 2)
    story.trouble("rabbitmq.restart", 1.5, 8.5).trouble("redis.flush", 2.0, 2.1)
    stalls = story.stalls()
    assert round(stalls["rabbitmq.restart"].longest, 1) == 8.4
    assert round(stalls["rabbitmq.restart"].one_queue, 1) == 7.9
    assert round(stalls["rabbitmq.restart"].back, 1) == 1.0
    assert stalls["redis.flush"].longest == 0


def bystanders(*late: tuple[float, float]) -> Story:
    """A fault that stays from 10 to 50; somebody else asks every tenth of a second, some (when, seconds) late."""
    story = Story().lease(9.0)
    took, free = dict(late), 0.0
    for seq, asked in enumerate((round(9 + n / 10, 1) for n in range(430)), 1):
        free = max(free, asked + took.get(asked, 0.05))
        story.serve(seq, asked, free)
        free += 0.03
    return story.stay("stay.locked-row", 10.0, 50.0)


def test_bystanders_who_are_served_at_once_are_not_stalled() -> None:
    assert bystanders().broken() == set()


def test_bystanders_who_wait_until_a_fault_is_healed_are_stalled() -> None:
    story = bystanders((40.0, 15.0))
    assert story.broken() == {"bystanders_stalled"}
    stalled = story.judged().violations["bystanders_stalled"]
    assert len(stalled) == 96, "the last hundred of four hundred, of which four may be late"
    assert sum("asked 30.0 s after it struck, which took 15.0 s" in what for what in stalled) == 1


def test_one_bystander_in_a_hundred_may_take_longer() -> None:
    story = Story().lease(9.0).stay("stay.frozen-leader", 10.0, 50.0)
    for seq in range(1, 101):
        story.serve(seq, 10 + seq / 10, 10 + seq / 10 + (0.05 if seq < 100 else 4.0))
    assert story.broken() == set()
    story.serve(101, 24.1, 28.2)
    assert story.broken() == {"bystanders_stalled"}
    assert len(story.judged().violations["bystanders_stalled"]) == 1


def test_bystanders_do_not_count_before_another_could_lead_nor_after_the_fault() -> None:
    story = Story().lease(9.0).serve(1, 10.1, 14.9).serve(2, 15.5, 15.6).serve(3, 50.1, 58.0)
    assert story.stay("stay.frozen-leader", 10.0, 50.0, grace=5).broken() == set()


def test_a_bystander_whose_request_was_never_accepted_is_stalled() -> None:
    story = Story().lease(9.0).serve(1, 15.5, 15.6).stay("stay.half-open", 10.0, 50.0)
    story.probes.append(Probe("bob", 20.0))
    assert story.broken() == {"bystanders_stalled"}


def test_a_fault_that_stays_while_nobody_is_measured_is_no_proof() -> None:
    assert Story().stay("stay.locked-row", 10.0, 50.0).broken() == {"bystanders_stalled"}


def test_faults_that_heal_at_once_measure_no_bystanders() -> None:
    story = Story().lease(9.0).serve(1, 10.1, 30.0).trouble("rabbitmq.restart", 10.0, 25.0)
    assert story.broken() == set()
