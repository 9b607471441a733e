"""Markdown pages as tests read them: sections, tables, anchors as a repository page makes them, links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COMMENT = re.compile(r"<!--.*?-->", re.S)


@dataclass(frozen=True)
class Section:
    """level: number of #. text: what stands under the heading, up to the next heading of any level."""

    level: int
    heading: str
    text: str

    @property
    def explains(self) -> list[str]:
        """The words of its `<!-- explain: … -->` line."""
        found = re.match(r"\n*<!-- explain: (.+?)\s-->\n", self.text, re.S)
        return [" ".join(word.split()) for word in found[1].split(",")] if found else []

    @property
    def prose(self) -> str:
        """Its paragraphs and lists on one line, without comments, tables and listings."""
        text = re.sub(r"```.*?```", "", COMMENT.sub("", self.text), flags=re.S)
        return " ".join(" ".join(line for line in text.splitlines() if not line.startswith("|")).split())

    @property
    def tables(self) -> list[list[list[str]]]:
        """Its tables: rows of cells, the heading first, without the rule under it."""
        found: list[list[list[str]]] = []
        inside = False
        for line in self.text.splitlines():
            if line.startswith("|") and not inside:
                found.append([])
            inside = line.startswith("|")
            if inside and not re.fullmatch(r"[|\s:-]+", line):
                found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        return found


def sections(page: Path) -> list[Section]:
    """The sections of a page in order; lines in listings are no headings."""
    found: list[Section] = []
    level, heading, lines, fenced = 0, "", [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if not fenced and (start := re.match(r"(#{1,6}) (.+)", line)):
            found.append(Section(level, heading, "\n".join(lines)))
            level, heading, lines = len(start[1]), start[2].strip(), []
        else:
            lines.append(line)
    return [*found, Section(level, heading, "\n".join(lines))]


def section(page: Path, heading: str) -> Section:
    return next(one for one in sections(page) if one.heading == heading)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings: lower case, signs left out, blanks to hyphens, -1, -2 … for repeated ones."""
    seen: dict[str, int] = {}
    found = set(re.findall(r'<a (?:name|id)="([^"]+)"', page.read_text(encoding="utf-8")))
    for one in sections(page):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", one.heading).lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return found


def links(page: Path) -> list[str]:
    """Targets of links and pictures, written at the place or as `[name]: target`; none from listings or code."""
    text = without_code(page)
    inline = re.findall(r"\[(?:[^\[\]]|\[[^\]]*\]\([^)]*\))*\]\(([^)]*)\)", text)
    return inline + re.findall(r"^\[[^\]]+\]: (.+)$", text, re.M)


def undefined(page: Path) -> set[str]:
    """Names in `[text][name]` that no `[name]: target` defines."""
    text = without_code(page)
    return set(re.findall(r"\]\[([^\]]+)\]", text)) - set(re.findall(r"^\[([^\]]+)\]: ", text, re.M))


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", COMMENT.sub("", page.read_text(encoding="utf-8")), flags=re.S)
