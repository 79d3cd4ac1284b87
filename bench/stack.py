"""`python -m bench.stack PORT`: the API, the dispatcher and the worker as `./run up` runs them, of production's size.

This process is the one that reads what they print and prints it, as ./run's is.
"""

import os
import sys
import time

from scripts.run.application import PRODUCTION, services
from scripts.run.crew import Crew, Printer
from scripts.servers.process import signals_interrupt


def main(port: int) -> None:
    signals_interrupt()
    crew = Crew(services(port, size=PRODUCTION), dict(os.environ), Printer())
    try:
        while True:
            crew.tend()
            time.sleep(0.1)
    except KeyboardInterrupt:
        crew.stop()
    finally:
        crew.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]))
