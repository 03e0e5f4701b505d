"""The one-use token by which a site joins, as the agent reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mumian_agent.domain.fields import ConfigError

_FORM = re.compile(
    r"mumian-site_(?P<site>[a-z0-9-]{1,63})_[0-9a-f]{10}_[0-9a-f]{64}_(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class SiteToken:
    """The whole text, the site that it is for, and the hash of the authority that may see it."""

    text: str = field(repr=False)
    site_id: str
    authority_sha256: str


def parse_site_token(text: str) -> SiteToken:
    """What the token says.

    Raises:
        ConfigError: it is none. The text is not repeated: most of it may be a secret.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"the token ({len(text.strip())} characters) is no site token; copy all of what "
            "`mumian-coordinator site-token create` has printed"
        )
    return SiteToken(text.strip(), match["site"], match["sha256"])
