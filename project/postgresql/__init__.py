"""Django's PostgreSQL backend, with an end to every wait: limits by role, a client's clock, and one view of a loss."""
