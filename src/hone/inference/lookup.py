"""What probably comes next, because the same tokens were followed by it before: a guess that a pass then checks.

Code that is edited and texts that are quoted repeat their prompt. Several tokens cost the kernel hardly more than one:
guesses are read together with the token that is due, and kept as far as they are what is drawn. The tokens are those
of decoding without guesses. Guesses that fail are made ever less often.
"""

from collections.abc import Sequence

RECENT = 3  # tokens that have to have been there before, in this order
MOST = 5  # tokens that are guessed at once
LONGEST_PAUSE = 64


class Lookup:
    """Of one row. `guess` before a pass, `judge` after it."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # RECENT tokens -> where they were followed by something
        self._known = 0
        self._length = self._wait = self._pause = 0

    def guess(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """Tokens that may come after those of prompt and answer; most often none."""
        ids = [*prompt, *tokens]
        for end in range(max(self._known, RECENT), len(ids)):
            self._after[tuple(ids[end - RECENT : end])] = end
        self._known = len(ids)
        found = self._after.get(tuple(ids[-RECENT:]))
        if found is None:
            return []
        if self._wait:
            self._wait -= 1
            return []
        self._length = self._length or 2
        return ids[found : found + self._length]

    def judge(self, guessed: int, right: int) -> None:
        """After `guessed` tokens, of which so many were right: longer guesses, or none for a while."""
        if right == guessed:
            self._length, self._pause = min(MOST, 2 * self._length), 0
        elif right == 0:
            self._pause = min(LONGEST_PAUSE, 2 * self._pause + 1)
            self._length, self._wait = 1, self._pause
        else:
            self._length = right + 1
