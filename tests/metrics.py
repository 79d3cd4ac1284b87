"""What this process has counted, for tests."""

from prometheus_client import REGISTRY


def counted(name: str, **labels: str) -> float:
    """The value of one series now; 0 before its first event."""
    return REGISTRY.get_sample_value(f"ordered_work_{name}", labels) or 0.0
