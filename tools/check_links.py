"""Check that every link between the pages of the documentation leads somewhere (`make docs`).

A page is every Markdown file that git tracks. Checked are links to files, folders and headings, and the paths
of this repository that stand in code spans: a page that tells a stranger where the code is must be right.
Links to other hosts are not asked.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def faults_of(page: Path, root: Path) -> Iterator[str]:
    """What is wrong with a page, each as one line that begins with its place."""
    text = page.read_text(encoding="utf-8")
    prose = _FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)
    links = [*_LINK.finditer(_SPAN.sub(lambda span: " " * len(span[0]), prose)), *_REFERENCE.finditer(prose)]
    for link in links:
        fault = _fault_of_link(link[1], page, root)
        if fault:
            yield f"{_place(page, root, prose, link.start())}: link ({link[1]}) {fault}"
    tops = {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")}
    for span in _SPAN.finditer(prose):
        is_path = re.fullmatch(r"[\w.-]+/[\w./-]*", span[1]) and span[1].split("/")[0] in tops
        if is_path and not (root / span[1]).exists() and not _is_made(span[1], root):
            yield f"{_place(page, root, prose, span.start())}: path ({span[1]}) is not in the repository"


def headings_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    anchors: set[str] = set()
    for heading in _HEADING.finditer(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        words = re.sub(r"[^\w\- ]", "", heading[1].replace("`", "").lower()).replace(" ", "-")
        number, anchor = 0, words
        while anchor in anchors:
            number += 1
            anchor = f"{words}-{number}"
        anchors.add(anchor)
    return anchors


def _fault_of_link(target: str, page: Path, root: Path) -> str:
    if _ELSEWHERE.match(target):
        return ""
    name, _, anchor = target.partition("#")
    found = (page.parent / name).resolve() if name else page
    if not found.is_relative_to(root):
        return "leads out of the repository"
    if not found.exists():
        return "leads nowhere"
    if anchor and (found.suffix != ".md" or anchor not in headings_of(found)):
        return "leads to a heading that is not there"
    return ""


def _is_made(path: str, root: Path) -> bool:
    """Whether git ignores it: it comes into being when something is built or measured."""
    return subprocess.run(["git", "check-ignore", "-q", path], cwd=root, check=False).returncode == 0


def _place(page: Path, root: Path, text: str, offset: int) -> str:
    return f"{page.relative_to(root)}:{text.count(chr(10), 0, offset) + 1}"


def main() -> None:
    """Check the pages of the repository that this file is in."""
    root = Path(__file__).resolve().parent.parent
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    pages = [root / name for name in listed.stdout.split("\0") if name and (root / name).exists()]
    faults = [fault for page in pages for fault in faults_of(page, root)]
    if faults:
        raise SystemExit("\n".join([*faults, f"{len(faults)} links or paths lead nowhere"]))
    print(f"{len(pages)} pages: every link and path leads somewhere", file=sys.stderr)


if __name__ == "__main__":
    main()
