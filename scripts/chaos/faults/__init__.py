"""Every fault there is: importing a module here makes its faults known."""

from scripts.chaos.fault import FAULTS
from scripts.chaos.faults import postgresql, processes, rabbitmq, redis, staying

__all__ = ["FAULTS", "postgresql", "processes", "rabbitmq", "redis", "staying"]
