"""The accelerators of one machine: found by their vendors' tools, each in a process that may hang."""
