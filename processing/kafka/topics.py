"""Makes topics, for those who have nobody else to do so."""

from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from django.conf import settings

from project.environment import kafka_properties

SECONDS = 30.0


def create(topics: Sequence[str], partitions: int) -> None:
    """Make those that are not there, replicated as the brokers do by default. Raises KafkaException."""
    admin = AdminClient(kafka_properties(settings.ENV))
    asked = admin.create_topics([NewTopic(topic, partitions) for topic in topics], operation_timeout=SECONDS)
    for made in asked.values():
        try:
            made.result(SECONDS)
        except KafkaException as failure:
            if failure.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
