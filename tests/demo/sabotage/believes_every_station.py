"""The gateway that never compares what a station draws with what it accepted."""

import sys

from gateway.app import fleet
from gateway.cli import main

fleet.check_draws = lambda _work: None  # the sabotage
sys.exit(main())
