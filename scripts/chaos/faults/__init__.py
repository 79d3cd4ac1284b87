"""Every fault there is: importing a module here makes its faults known (`scripts.chaos.fault.FAULTS`)."""

from scripts.chaos.faults import postgresql, processes, rabbitmq, redis, staying

__all__ = ["postgresql", "processes", "rabbitmq", "redis", "staying"]
