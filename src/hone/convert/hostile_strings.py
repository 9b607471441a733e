"""Texts on which two readings of one tokenizer part, if they do: the same ones every time.

>>> len(hostile_strings(1000)), hostile_strings(3) == hostile_strings(1000)[:3]
(1000, True)
"""

import random

PIECES = (
    *("def f(x):", "    return x", "\treturn", "x = {'a': [1, 2]}", "#!/usr/bin/env python", "a->b", "!=", "==", ">>>"),
    *(
        "The quick brown fox",
        " isn't",
        "it's",
        "I'LL",
        "you'Re",
        "'s",
        "'",
        "''",
        '"""',
        "```",
        "naïve",
        "größe",
        "ſ's",
    ),
    *(
        " ",
        "  ",
        "   ",
        " " * 17,
        "\t",
        "\t\t",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        " \n ",
        "\u00a0",
        "\u3000",
        "\u2028",
        "\v\f",
    ),
    *("0", "7", "42", "1,234.5", "3.14e-10", "0x1F", "٣٤", "Ⅳ", "²", "½", "１２３", "999999999999"),
    *("你好，世界", "日本語テキスト", "한국어", "العربية", "עברית", "हिन्दी", "ไทย", "Ελληνικά", "русский", "ქართული"),
    *("🙂", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "❤️", "𝔘𝔫𝔦", "𐍈", "e\u0301", "a\u0300\u0323\u0308", "\u0301", "\u200d"),
    *("\x00", "\x01", "\x07", "\x1b[31m", "\x7f", "\x85", "\ufffd", "\ue000", "\u202e", "\u200b", "\ufeff"),
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "[PAD]", "<unk>", "[INST]", "<|", "|>", "[PAD0]"),
    *("...", "!!!", "—", "“”", "€", "→", "∑", "\\n", "\\", "/", "//", "/*", "*/", "$x$", "@", "#", "_", "__init__"),
    *("AAAA", "aaaaaaaaaaaaaaaa", "HTTPServer", "camelCase", "snake_case_name", "αβγ", "ÀÉÎ", "İi", "ß", "ﬁ", "Ǆ"),
)
LETTERS = (  # Latin, Greek to Hebrew, India's, kana, Chinese, pictures
    *((0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x5F4), (0x900, 0xDFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF)),
    (0x1F300, 0x1F64F),
)


def hostile_strings(n: int) -> list[str]:
    """n texts: the pieces alone, then mixes of them, then runs of letters of one script with spaces thrown in."""
    draw = random.Random(0)
    found = list(PIECES)
    while len(found) < n:
        if draw.random() < 0.75:
            found.append("".join(draw.choices(PIECES, k=draw.randint(2, 12))))
        else:
            first, last = draw.choice(LETTERS)
            letters = [chr(draw.randint(first, last)) for _ in range(draw.randint(1, 20))]
            found.append("".join(letter + draw.choice(("", "", "", " ", "  ", "\n", "1", ".")) for letter in letters))
    return found[:n]
