"""For the tests of those who write handlers: `run` calls one, `drain` runs a user's queue to its end.

Fixtures are in `processing.testing.plugin`. docs/handlers.md shows all of it.
"""

from processing.testing.attempts import Ran
from processing.testing.calling import run
from processing.testing.draining import drain

__all__ = ["Ran", "drain", "run"]
