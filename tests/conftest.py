"""For all tests: Ctrl-C can be sent to what they start, and no property is judged by the clock."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# A shell has what it starts in the background ignore Ctrl-C, and children inherit that: the tests of Ctrl-C
# failed under `nohup make test &`.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The machine is shared: an example that takes long is no failure.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")
