"""A program's text as its top-level statements, and which of them a function needs; by rules that need no parser.

What a model wrote is never parsed in this process, and may be no program at all: prose, and code cut off in the middle.
So a statement's names are read off its lines: those it binds, those it adds to, and all words in it, whatever they are
there. A word too many keeps a statement too many, which does no harm.

>>> found = statements("R = 3\\nprint(R)\\n\\ndef area(r):\\n    return R * r * r\\n")
>>> [(statement.text, sorted(statement.binds)) for statement in needed(found, ["area"])]
[('R = 3\\n', ['R']), ('def area(r):\\n    return R * r * r\\n', ['area'])]
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

NAME = r"[A-Za-z_]\w*"
_TARGET = rf"[(\[*\s]*{NAME}(?:\.\w+|\[[^\]]*\])*[)\]\s]*"
ASSIGNMENT = re.compile(rf"{_TARGET}(?:,{_TARGET})*,?\s*(?::[^=]+)?(?P<also>[-+*/%&|^@]|//|\*\*|<<|>>)?=(?!=)")
TARGET = re.compile(rf"(?<![\w.\[])(?P<name>{NAME})(?P<part>[.\[])?")
DEFINITION = re.compile(rf"(?:async\s+def|def|class)\s+({NAME})\s*[(:\[]")
IMPORT = re.compile(r"import\s+[\w.]+\s*(?:as\s+\w+\s*)?(?:[,;#]|$)|from\s+[\w.]+\s+import\b")
ALIAS = re.compile(rf"type\s+({NAME})\s*(?:\[.*\])?\s*=")
CALL = re.compile(rf"({NAME})(?:\.\w+)*[(\[]")
COMPOUND = re.compile(r"(?:if|for|while|try|with|match|async\s+for|async\s+with)\b.*[:(\[{,\\]")
GUARD = re.compile(r"if\s+\(?\s*__name__\b")
GOES_ON = re.compile(r"(?:else|elif|except|finally)\b|[)\]}]")
OTHER_CODE = re.compile(r"(?:assert|del|raise|global|pass|return)\b|[rRbBuUfF]{0,2}[\"']|[#@)\]}]")
CODE = re.compile(
    "|".join(found.pattern for found in (ASSIGNMENT, DEFINITION, IMPORT, COMPOUND, CALL, ALIAS, OTHER_CODE, GOES_ON))
)
SETTING = re.compile(
    r"sys\.setrecursionlimit\(|random\.seed\(|(?:decimal\.)?getcontext\(\)\."
)  # no name leads to these
WORD = re.compile(NAME)
TOKENS = re.compile(r"\\.|\"\"\"|'''|[\"'#()\[\]{}]|\\$", re.DOTALL)
MAX_LINE = 100_000  # a longer one is taken as it is: no program of a person's
MAX_LINES = 20_000  # what comes after them goes with the last statement
MAX_HEAD = 300  # so much of a line is looked at for names that it binds


@dataclass(frozen=True)
class Statement:
    """One statement at the margin, with its decorators, its body and the blank lines after it.

    binds: names it gives a value. adds_to: names whose value it changes (`T[1] = 2`, `T.append(3)`, `T += [4]`).
    definition: of a function or a class. talk: it can only be prose.
    """

    text: str
    binds: frozenset[str] = frozenset()
    adds_to: frozenset[str] = frozenset()
    definition: bool = False
    talk: bool = False

    @property
    def words(self) -> set[str]:
        return set(WORD.findall(self.text))


def statements(text: str) -> list[Statement]:
    """The statements in order; their texts together are the text. One that begins indented comes first."""
    groups: list[tuple[str, list[str]]] = []  # what the first line is, all lines
    decorated = False
    for line, kind in margins(text):
        if not groups or (kind and not decorated and not GOES_ON.match(line)):
            groups.append((kind, []))
        groups[-1][1].append(line)
        if kind:
            decorated = line[0] == "@" or (decorated and line[0] == "#")
        elif len(groups) > 1 and groups[-1][1][0][0] == "#" and line.strip():  # a body goes on after the comment
            comment = groups.pop()[1]
            groups[-1][1].extend(comment)
    return [_statement(kind, lines) for kind, lines in groups]


def _statement(kind: str, lines: list[str]) -> Statement:
    text = "".join(lines)
    if kind != "code":
        return Statement(text, talk=kind == "talk")
    head = lines[0] if lines[0][0] != "@" else next((line for line in lines if line[0] not in "@ \t#)\r\n"), "")
    head = head[:MAX_HEAD].rstrip()
    if found := DEFINITION.match(head):
        return Statement(text, frozenset({found[1]}), definition=True)
    binds: set[str] = set()
    adds_to: set[str] = set()
    if COMPOUND.match(head) and not GUARD.match(head):
        for line in lines:
            line = line.strip()[:MAX_HEAD]
            _names(line.partition(": ")[2] if COMPOUND.match(line) else line, line, binds, adds_to)
    else:
        _names(head, text, binds, adds_to)
    return Statement(text, frozenset(binds), frozenset(adds_to - binds))


def _names(line: str, whole: str, binds: set[str], adds_to: set[str]) -> None:
    """Collect what a line binds and adds to; `whole` is the statement, of which an import may take several lines."""
    if found := DEFINITION.match(line) or ALIAS.match(line):
        binds.add(found[1])
    elif IMPORT.match(line):
        binds.update(["*"] if whole.rstrip().endswith("*") else {*WORD.findall(whole)} - {"from", "import", "as"})
    elif ASSIGNMENT.match(line):
        while found := ASSIGNMENT.match(line):  # a = b = 0
            for target in TARGET.finditer(found[0].partition(":")[0] if "[" not in found[0] else found[0]):
                (adds_to if target["part"] or found["also"] else binds).add(target["name"])
            line = line[found.end() :].lstrip()
    elif found := CALL.match(line):
        adds_to.add(found[1])


def needed(found: Sequence[Statement], wanted: Iterable[str], asked: Collection[str] = ()) -> list[Statement]:
    """The statements that bind the wanted names, those which these need in turn, and settings of the interpreter.

    Args:
        asked: the functions asked for: what calls them and is no definition shows their use, and is left out, as is
            what waits for input.
    """
    binding: dict[str, list[int]] = defaultdict(list)
    adding: dict[str, list[int]] = defaultdict(list)
    use = re.compile(r"\b(?<!def )(?:" + "|".join(["input", *map(re.escape, asked)]) + r")\(|\bstdin\b")
    for i, statement in enumerate(found):
        if not statement.definition and not statement.binds & {*asked} and use.search(statement.text):
            continue
        for name in statement.binds:
            binding[name].append(i)
        for name in statement.adds_to:
            adding[name].append(i)
    keep = {i for i, statement in enumerate(found) if SETTING.match(statement.text)} | set(binding["*"])
    names = [*wanted, *(word for i in keep for word in found[i].words)]
    seen = set(names)
    while names:
        name = names.pop()
        added = any(not found[i].definition and not IMPORT.match(found[i].text) for i in binding[name])
        for i in (*binding[name], *(adding[name] if added else ())):
            if i not in keep:
                keep.add(i)
                new = found[i].words - seen
                seen |= new
                names += new
    return [found[i] for i in sorted(keep)]


def margins(text: str) -> Iterator[tuple[str, str]]:
    """(line with its end, "code" or "talk" if it stands at the margin, else ""), one pass.

    Strings and brackets are seen; a line that can only be prose opens neither.
    """
    quote, depth, continued = "", 0, False
    for number, line in enumerate(text.splitlines(keepends=True)):
        if number >= MAX_LINES:
            yield line, ""
            continue
        within = quote or depth or continued or line[0] in " \t\f" or not line.strip()
        kind = "" if within else "code" if CODE.match(line[:MAX_HEAD].rstrip()) else "talk"
        yield line, kind
        if len(line) <= MAX_LINE and kind != "talk":
            quote, depth = _state_after(line, quote, depth)
            continued = not quote and line.rstrip("\r\n").endswith("\\")


def _state_after(line: str, quote: str, depth: int) -> tuple[str, int]:
    """(the open triple quote, the open brackets) after a line."""
    single = ""
    for found in TOKENS.finditer(line):
        token = found[0]
        if quote or single:
            if token == (quote or single):
                quote = single = ""
        elif token == "#":
            break
        elif len(token) == 3:
            quote = token
        elif token in "\"'":
            single = token
        elif token in "([{":
            depth += 1
        elif token in ")]}":
            depth = max(depth - 1, 0)
    return quote, depth
