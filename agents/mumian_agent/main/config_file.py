"""Reads the file that describes a site."""

from __future__ import annotations

from pathlib import Path

import yaml

from mumian_agent.domain import config as site_config
from mumian_agent.domain.config import AgentConfig
from mumian_agent.domain.fields import ConfigError


def load(path: Path) -> AgentConfig:
    """Read a configuration file.

    Raises:
        ConfigError: it cannot be read, or a field is missing, unknown or wrong.
    """
    try:
        return site_config.parse(read_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"config {path}: {error}") from None


def read_yaml(path: Path) -> object:
    """What a YAML file holds.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
