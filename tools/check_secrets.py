"""Check that no secret stands in a file that git tracks (`make lint`): private keys, tokens of known forms.

Only forms that nothing else has: a scan for whatever looks random would tell of hashes, and be switched off.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Extended regular expressions, by what they find.
FORMS = {
    "a private key": "-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----",
    "an API token of Mumian": r"\bmumian_[0-9a-f]{10}_[0-9a-f]{64}\b",
    "a token by which a site joins": r"\bmumian-site_[^ ]+_[0-9a-f]{64}_[0-9a-f]{64}\b",
    "a key of Fernet": r"^[A-Za-z0-9_-]{43}=$",
    "a token with claims (JWT)": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a key of AWS": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a key of Alibaba Cloud": r"\bLTAI[0-9A-Za-z]{12,20}\b",
    "a key of Tencent Cloud": r"\bAKID[0-9A-Za-z]{32}\b",
    "a token of GitHub": r"\b(gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{60,})",
    "a token of GitLab": r"\bglpat-[0-9A-Za-z_-]{20}",
    "a token of PyPI": r"\bpypi-AgEIcHlwaS5vcmc[0-9A-Za-z_-]{20,}",
    "a token of Slack": r"\bxox[abeoprs]-[0-9A-Za-z-]{20,}",
    "a password in an address": r"[a-z]+://[^/@:{}$<> ]+:[^/@:{}$<> ]+@[a-z0-9]",
}


def found_in(root: Path) -> list[str]:
    """Each place as one line: path, line and what it is, never the secret itself."""
    places = []
    for what, form in FORMS.items():
        argv = ["git", "grep", "--no-color", "-nIE", "-e", form]
        done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode > 1:
            raise SystemExit(f"git grep for {what}: {done.stderr.strip()}")
        places += [f"{':'.join(line.split(':')[:2])}: {what}" for line in done.stdout.splitlines()]
    return sorted(places)


def main() -> None:
    """Say what was found, and fail then."""
    places = found_in(Path(__file__).resolve().parent.parent)
    for place in places:
        print(f"{place}; take it out, and make a new one: this one is known", file=sys.stderr)
    if places:
        raise SystemExit(1)
    print(f"no secret in any tracked file ({len(FORMS)} forms)")


if __name__ == "__main__":
    main()
