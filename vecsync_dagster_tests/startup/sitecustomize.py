"""What Python runs first in each process that tests start: garbage is looked for less often, because a process that
imports much and ends has next to none, and looking took a sixth of its time."""

import gc

gc.set_threshold(100_000, 20, 20)
