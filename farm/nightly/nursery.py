"""Loaded once by the process that workers are forked from, and by nobody else.

A worker that loads labgrid, numpy and the farm by itself takes 1.6 CPU seconds and 57 MiB before
it does anything; two hundred of them do not fit a controller. Forked from one process that has
loaded it all, they share that memory (`farm.nightly.workers`).
"""

from __future__ import annotations

import gc
import os

import farm.bench.bootmodes
import farm.bench.console
import farm.bench.power
import farm.bench.shell
import farm.bench.strategy
import farm.bench.usb
import farm.nightly.worker  # noqa: F401  # what it needs is to be there
from farm.nightly.workers import end_with_parent

# Ctrl-C and a terminal that is closed are for the controller, which then tells its workers.
os.setsid()
end_with_parent()
# A collection would write to every object, and so have each worker copy all of them.
gc.collect()
gc.freeze()
