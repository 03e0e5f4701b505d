"""For all tests: Ctrl-C can be sent to what they start."""

from __future__ import annotations

import signal

# A shell has what it starts in the background ignore Ctrl-C, and children inherit that: the tests of Ctrl-C
# failed under `nohup make test &`.
signal.signal(signal.SIGINT, signal.default_int_handler)
