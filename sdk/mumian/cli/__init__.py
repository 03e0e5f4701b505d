"""The command line, `mumian`. Needs the extra `cli`."""
