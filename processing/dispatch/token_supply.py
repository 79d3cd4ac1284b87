"""The tokens that a dispatcher sends: enough for the workers' threads, never a storm, and their queue held for them."""

from processing import metrics
from processing.broker import tokens as broker
from processing.broker.amqp import Blocked
from processing.broker.errors import BrokerUnavailable
from processing.broker.rabbitmq import Publisher
from queues.lifecycle import outbox
from queues.lifecycle.outbox import Shard

LARGEST_BUNDLE, NEW_BUNDLE = 32, 16  # queues of a token: at most, and of those that had nothing to do
ENOUGH_TOKENS = 16  # that those share who wake at once
CROWD_OF_TOKENS = 128  # where so many wait, who wakes now is not served at once anyway
SENT_AGAIN = 1000  # queues that are ready, when their tokens are lost together
TOKENS_SENT = metrics.TOKENS_SENT.labels("dispatcher")


class TokenSupply:
    """Sends the tokens of one shard. `crowded` says whether many waited when it was last counted."""

    def __init__(self, shard: Shard, publisher: Publisher) -> None:
        self.shard, self.publisher = shard, publisher
        self.crowded = False
        self._exists = False

    def begin(self) -> bool:
        """Have their queue, once for each time of leading. Whether none waits then: RabbitMQ may have lost them, or who
        led before died before it sent them. Raises BrokerUnavailable.
        """
        if self._exists:
            return False
        waiting = broker.hold_token_queue(self.publisher)
        self._exists = True
        return not waiting

    def lose(self) -> None:
        """Another may lead from now on, or the connection is gone."""
        self._exists = False

    def send(self, queue_ids: list[int], bundle: int = 1) -> None:
        """Ask the workers to drain these queues. A token lost on the way is sent again by the sweep.

        Raises BrokerUnavailable where RabbitMQ is away.

        `bundle` of them share a token, and so statements; more where there are tokens for the threads of two processes,
        or a crowd of tokens waits. A worker passes on those that would wait too long for another one's handler.
        """
        count = len(queue_ids)
        size = count if self.crowded else max(count // ENOUGH_TOKENS, min(bundle, count))
        size = max(1, min(LARGEST_BUNDLE, size))
        bundles = [queue_ids[at : at + size] for at in range(0, count, size)]
        if bundles:
            try:
                self._publish(bundles)
            except BrokerUnavailable as error:
                self.publisher.close()
                if isinstance(error.__cause__, Blocked):
                    raise  # it was waited for long enough
                self._hold()  # if it was that one's fault, all that is ready gets its token again
                self._publish(bundles)  # a token too many does no harm
            TOKENS_SENT.inc(len(bundles))

    def _publish(self, bundles: list[list[int]]) -> None:
        """A token says the name of the tokens' queue, which may have another one the second time."""
        tokens = [broker.token(*queue_ids) for queue_ids in bundles]
        self.publisher.send(broker.token_queue(), tokens, broker.TOKEN_PROPERTIES)

    def waiting(self) -> int:
        """How many tokens RabbitMQ has; if somebody deleted their queue, there is one again."""
        waiting = self._hold()
        metrics.TOKENS_WAITING.set(waiting)
        self.crowded = waiting >= CROWD_OF_TOKENS
        return waiting

    def _hold(self) -> int:
        """How many tokens wait. If their queue has another name now, those in the old one are lost: sent again."""
        before = broker.token_queue()
        waiting = broker.hold_token_queue(self.publisher)
        if broker.token_queue() != before:
            self.send(outbox.stale_ready(self.shard, 0, SENT_AGAIN))
        return waiting
