from django.apps import AppConfig


class KafkaConfig(AppConfig):
    """Messages of Kafka become requests. Without this app in INSTALLED_APPS the rest works as before."""

    name = "processing.kafka"
    label = "kafka"

    def ready(self) -> None:
        from processing.dispatch import duties
        from processing.kafka.rejected import PRUNE_SECONDS, prune

        duties.register(duties.Duty("kafka", PRUNE_SECONDS, prune))
