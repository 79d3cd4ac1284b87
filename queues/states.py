"""The states of a queue and the statuses of a request: who moves it there, and when."""

from django.db.models import TextChoices


class QueueState(TextChoices):
    """Where a user's queue stands. Exactly one of these, moved only by the statements in queues/sql/."""

    IDLE = "idle"  # the worker that found nothing more to do; RabbitMQ owes it nothing
    READY = "ready"  # the dispatcher, when there is work; the worker, when its turn is over: a drain token is under way
    DRAINING = "draining"  # the worker that holds the newest fence, until its lease runs out
    WAITING = "waiting"  # the worker whose head failed and is tried again at `wake_at`; resume, to wake it at once
    BLOCKED = "blocked"  # the worker whose head failed for good under the policy `block`; retry, skip or cancel end it


class Status(TextChoices):
    """What has become of a request. `running` and `blocked` are never stored: see Request.status_now."""

    SCHEDULED = "scheduled"  # accepted with `not_before`; the dispatcher gives it a sequence number when due
    QUEUED = "queued"  # accepted; has its sequence number
    RUNNING = "running"  # the head of a draining queue
    RETRYING = "retrying"  # at the head after a failed attempt, waiting for the next one
    BLOCKED = "blocked"  # the head of a blocked queue: failed for good, and nothing runs until somebody decides
    SUCCEEDED = "succeeded"  # final: the handler returned; its result is recorded
    FAILED = "failed"  # final: the last attempt failed, or the handler rejected it, or a blocked head was skipped
    CANCELLED = "cancelled"  # final: its owner or an operator gave it up
    EXPIRED = "expired"  # final: its `expires_at` passed before it started


FINAL = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)
GIVEN_UP = (Status.FAILED, Status.CANCELLED, Status.EXPIRED)
THROUGHPUT = (Status.SUCCEEDED, Status.FAILED)  # what counts as work done: it ran; what was given up did not


class AttemptOutcome(TextChoices):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"  # the handler returned
    FAILED = "failed"  # the handler raised
    REJECTED = "rejected"  # the handler raised Reject: no further attempt
    POSTPONED = "postponed"  # the handler raised RetryLater
    TIMED_OUT = "timed_out"  # the handler overran its kind's time limit
    CANCELLED = "cancelled"  # the handler ended because its request was cancelled
    LOST = "lost"  # the worker died, or was silent for longer than its lease


class OnFailure(TextChoices):
    """What a kind wants after its last attempt."""

    CONTINUE = "continue"  # the request is failed, the next one runs
    BLOCK = "block"  # the queue stops until the head is retried, skipped or cancelled
