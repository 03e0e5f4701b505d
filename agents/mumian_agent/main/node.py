"""Keeps a further machine of a site in the site's Ray."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path

import click

from mumian_agent.domain.config import NodeConfig
from mumian_agent.runtime.process_tree import NODE_VARIABLE

log = logging.getLogger(__name__)


def join_site(
    head: str,
    name: str,
    address: str,
    token_file: Path,
    state_dir: Path,
    config: NodeConfig,
    config_file: Path | None,
) -> bool:
    """Join, and stay until SIGTERM or SIGINT; whether it failed before. Whoever runs it starts it again."""
    from mumian_agent.adapters.ray.settings import NODE_CONFIG_VARIABLE, prepare_environment

    prepare_environment(token_file)
    os.environ[NODE_VARIABLE] = str(state_dir)
    if config_file is not None:
        os.environ[NODE_CONFIG_VARIABLE] = str(config_file.absolute())
    # Imported here: Ray reads its settings when it is imported.
    from mumian_agent.adapters.ray.joined import JoinedNode

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    cores = max(1, (config.cpu_milli_limit or len(os.sched_getaffinity(0)) * 1000) // 1000)
    try:
        node = JoinedNode(head, name, address, cores, state_dir)
    except Exception as error:  # Ray has no single one for "the head does not answer"
        log.error("node %s cannot join the site at %s: %s", name, head, error)
        return True
    try:
        click.echo(f"ready: node {name} has joined {head}")
        was_asked = node.keep(stop)
        if not was_asked:
            log.error("the site's Ray has ended on node %s; start it again to join anew", name)
        return not was_asked
    finally:
        node.end()
