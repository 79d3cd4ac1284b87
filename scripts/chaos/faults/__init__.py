"""Every fault there is: importing a module here makes its faults known, in the order in which they are dealt."""

from scripts.chaos.fault import FAULTS

from scripts.chaos.faults import processes  # isort: skip
from scripts.chaos.faults import rabbitmq  # isort: skip
from scripts.chaos.faults import postgresql  # isort: skip
from scripts.chaos.faults import redis  # isort: skip
from scripts.chaos.faults import staying  # isort: skip

__all__ = ["FAULTS", "postgresql", "processes", "rabbitmq", "redis", "staying"]
