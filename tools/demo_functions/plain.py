"""Grids over plain values: numbers, words, characters, ranges, sets, dictionaries, matrices, points, digits."""

from grid import Choice, Grid, Result

NUMBERS = Grid(
    family="numbers",
    difficulty="easy",
    arguments="numbers",
    start="chosen = [n for n in numbers if @]",
    results=(
        Result("total_@", "the sum of the @ in a list", "return sum(chosen)"),
        Result("count_@", "how many @ there are in a list", "return len(chosen)"),
        Result("largest_of_@", "the largest of the @ in a list, or None", "return max(chosen, default=None)"),
        Result("smallest_of_@", "the smallest of the @ in a list, or None", "return min(chosen, default=None)"),
        Result("square_@", "a list of the squares of the @ in a list", "return [n * n for n in chosen]"),
        Result(
            "average_@", "the average of the @ in a list, or 0", "return sum(chosen) / len(chosen) if chosen else 0"
        ),
        Result("falling_@", "the @ in a list, sorted from large to small", "return sorted(chosen, reverse=True)"),
    ),
    choices=(
        Choice("even", "even numbers", "n % 2 == 0"),
        Choice("odd", "odd numbers", "n % 2 != 0"),
        Choice("positive", "positive numbers", "n > 0"),
        Choice("negative", "negative numbers", "n < 0"),
        Choice("above", "numbers greater than limit", "n > limit", "limit"),
        Choice("below", "numbers less than limit", "n < limit", "limit"),
        Choice("divisible", "numbers divisible by k", "n % k == 0", "k"),
    ),
    inputs=("[1, 6, 3, 5, 4, 2]", "[-4, 9, 0, -3, 12, 7]", "[10, -10, 5, 8, -1, 3, -6]", "[]"),
    values={"limit": ("4", "2", "-2", "1"), "k": ("3", "4", "5", "2")},
)

WORDS = Grid(
    family="words",
    difficulty="easy",
    arguments="words",
    start="kept = [word for word in words if @]",
    results=(
        Result("count_@", "how many @ there are in a list", "return len(kept)"),
        Result("longest_of_@", "the longest of the @ in a list, or None", "return max(kept, key=len, default=None)"),
        Result("shout_@", "the @ in a list, in upper case", "return [word.upper() for word in kept]"),
        Result("join_@", "a text with the @ in a list, joined by spaces", 'return " ".join(kept)'),
        Result("sort_@", "the @ in a list, in alphabetical order", "return sorted(kept)"),
        Result("first_of_@", "the first of the @ in a list, or None", "return kept[0] if kept else None"),
    ),
    choices=(
        Choice("longer_words", "words longer than size", "len(word) > size", "size"),
        Choice("shorter_words", "words shorter than size", "len(word) < size", "size"),
        Choice("words_starting", "words that start with prefix", "word.startswith(prefix)", "prefix"),
        Choice("words_ending", "words that end with suffix", "word.endswith(suffix)", "suffix"),
        Choice("words_containing", "words that contain part", "part in word", "part"),
        Choice("capital_words", "words that begin with a capital letter", "word[:1].isupper()"),
        Choice("mirror_words", "palindromes", "word == word[::-1]"),
    ),
    inputs=(
        '["go", "Leo", "kayak", "anna"]',
        '["towns", "noon", "Toe", "an"]',
        '["carrots", "Sam", "tacit", "act", "pop"]',
        "[]",
    ),
    values={
        "size": ("4", "3", "3", "2"),
        "prefix": ('"a"', '"to"', '"ta"', '"x"'),
        "suffix": ('"a"', '"n"', '"t"', '"x"'),
        "part": ('"an"', '"o"', '"ac"', '"x"'),
    },
)

CHARACTERS = Grid(
    family="characters",
    difficulty="easy",
    arguments="text",
    start="found = [char for char in text if @]",
    results=(
        Result("number_of_@", "how many @ a text has", "return len(found)"),
        Result("keep_@", "only the @ of a text", 'return "".join(found)'),
        Result("drop_@", "a text without its @", 'return "".join(char for char in text if char not in found)'),
        Result("has_@", "True if a text has any @, else False", "return len(found) > 0"),
        Result(
            "only_@", "True if a text is not empty and has only @, else False", "return 0 < len(found) == len(text)"
        ),
        Result("share_of_@", "the share of @ in a text, or 0", "return len(found) / len(text) if text else 0"),
    ),
    choices=(
        Choice("vowels", "vowels", 'char.lower() in "aeiou"'),
        Choice("digits", "digits", "char.isdigit()"),
        Choice("capitals", "upper-case letters", "char.isupper()"),
        Choice("small_letters", "lower-case letters", "char.islower()"),
        Choice("spaces", "spaces", 'char == " "'),
        Choice("letters", "letters", "char.isalpha()"),
        Choice("symbols", "symbols (all but letters and digits)", "not char.isalnum()"),
    ),
    inputs=('"AEIO"', '"aeo"', '"1999"', '"  "', '"Zb"', '"xyB-?"', '"b-2"', '"Oh, 22 bEes!"', '""'),
    values={},
)

RANGES = Grid(
    family="ranges",
    difficulty="easy",
    arguments="n",
    start="found = [i for i in range(1, n + 1) if @]",
    results=(
        Result("list_@", "a list of the @ from 1 to n", "return found"),
        Result("how_many_@", "how many @ there are from 1 to n", "return len(found)"),
        Result("total_of_@", "the sum of the @ from 1 to n", "return sum(found)"),
        Result("greatest_of_@", "the greatest of the @ from 1 to n, or None", "return found[-1] if found else None"),
        Result("countdown_@", "a list of the @ from n down to 1", "return found[::-1]"),
    ),
    choices=(
        Choice("multiples", "multiples of k", "i % k == 0", "k"),
        Choice("divisors", "proper divisors of n", "i < n and n % i == 0"),
        Choice("perfect_squares", "perfect squares", "math.isqrt(i) ** 2 == i"),
        Choice("mirror_numbers", "palindromes", "str(i) == str(i)[::-1]"),
        Choice("with_digit", "numbers that contain digit", "str(digit) in str(i)", "digit"),
        Choice("primes", "prime numbers", "i > 1 and all(i % d for d in range(2, i))"),
    ),
    inputs=("6", "1", "23", "12", "0"),
    values={"k": ("3", "2", "7", "5", "3"), "digit": ("4", "3", "0", "2", "1")},
)

SETS = Grid(
    family="sets",
    difficulty="easy",
    arguments="first, second",
    start="values = @",
    results=(
        Result("sorted_@", "a sorted list of the @", "return sorted(values)"),
        Result("count_@", "the number of @", "return len(values)"),
        Result("largest_of_@", "the largest of the @, or None", "return max(values, default=None)"),
        Result("sum_of_@", "the sum of the @", "return sum(values)"),
        Result("reversed_@", "a list of the @, from large to small", "return sorted(values, reverse=True)"),
        Result("any_@", "True if there are any @, else False", "return len(values) > 0"),
    ),
    choices=(
        Choice("common", "different values that are in both of two lists", "set(first) & set(second)"),
        Choice("combined", "different values that are in one of two lists or in both", "set(first) | set(second)"),
        Choice("missing", "different values of the first list that are not in the second", "set(first) - set(second)"),
        Choice("unshared", "different values that are in only one of two lists", "set(first) ^ set(second)"),
    ),
    inputs=("[3, 1, 3, 2], [2, 5, 4]", "[1, 2, 3], [9, 2, 3, 1]", "[7, 7], [8]", "[6, 4], [4, 6, 4]", "[], []"),
    values={},
)

DICTS = Grid(
    family="dictionaries",
    difficulty="medium",
    arguments="scores",
    start="kept = {name: score for name, score in scores.items() if @}",
    results=(
        Result("select_@", "a dictionary of the players (name to score) whose @", "return kept"),
        Result("names_of_@", "a sorted list of the names of the players (name to score) whose @",
               "return sorted(kept)"),
        Result("total_of_@", "the sum of the scores of the players (name to score) whose @",
               "return sum(kept.values())"),
        Result("winner_of_@", "the name of the best of the players (name to score) whose @, or None",
               "return max(kept, key=kept.get, default=None)"),
        Result("rank_@", "a list of the names of the players (name to score) whose @, best first",
               "return sorted(kept, key=kept.get, reverse=True)"),
    ),
    choices=(
        Choice("high", "score is above limit", "score > limit", "limit"),
        Choice("low", "score is below limit", "score < limit", "limit"),
        Choice("even", "score is even", "score % 2 == 0"),
        Choice("initial", "name starts with letter", "name.startswith(letter)", "letter"),
        Choice("long", "name is longer than size", "len(name) > size", "size"),
    ),
    inputs=(
        '{"bea": 1, "al": 12, "cy": 10}',
        '{"zoe": 6, "dan": 8, "anton": 5, "di": 3}',
        '{"ann": 4, "bo": 7, "cleo": 9, "abe": 2}',
        "{}",
    ),
    values={
        "limit": ("9", "6", "4", "3"),
        "letter": ('"c"', '"d"', '"a"', '"x"'),
        "size": ("2", "2", "2", "1"),
    },
)  # fmt: skip

MATRICES = Grid(
    family="matrices",
    difficulty="medium",
    arguments="matrix",
    results=(
        Result("@_sums", "for @ its sum, in a list", "sums = [sum(line) for @]\nreturn sums"),
        Result("@_peaks", "for @ its largest number, in a list", "peaks = [max(line) for @]\nreturn peaks"),
        Result("@_lows", "for @ its smallest number, in a list", "lows = [min(line) for @]\nreturn lows"),
        Result("@_averages", "for @ its average, in a list",
               "averages = [sum(line) / len(line) for @]\nreturn averages"),
        Result("@_zeros", "for @ how many zeros it has, in a list",
               "zeros = [list(line).count(0) for @]\nreturn zeros"),
        Result("@_sorted", "for @ its numbers in ascending order, in a list of lists",
               "result = [sorted(line) for @]\nreturn result"),
        Result("@_positive", "for @ True if all its numbers are positive, else False, in a list",
               "checks = [all(n > 0 for n in line) for @]\nreturn checks"),
    ),
    choices=(
        Choice("row", "each row of a matrix", "line in matrix"),
        Choice("column", "each column of a matrix", "line in zip(*matrix)"),
        Choice("upward_row", "each row of a matrix, starting with the last,", "line in reversed(matrix)"),
    ),
    inputs=("[[3, 5, 1], [4, 0, 0]]", "[[2, 8], [7, 1], [0, 9]]", "[[-6]]", "[[1, 0, 2, 2], [0, -3, 9, 4]]"),
    values={},
)  # fmt: skip

POINTS = Grid(
    family="tuples",
    difficulty="medium",
    arguments="points",
    start="kept = [(x, y) for x, y in points if @]",
    results=(
        Result("count_@", "how many of the points (x, y) in a list are @", "return len(kept)"),
        Result("swap_@", "the points (x, y) in a list that are @, as (y, x)", "return [(y, x) for x, y in kept]"),
        Result("height_of_@", "the sum of y over the points (x, y) in a list that are @",
               "return sum(y for x, y in kept)"),
        Result("highest_of_@", "the point (x, y) with the largest y of those in a list that are @, or None",
               "return max(kept, key=lambda point: point[1], default=None)"),
        Result("move_@", "the points (x, y) in a list that are @, moved right by step",
               "return [(x + step, y) for x, y in kept]", "step"),
    ),
    choices=(
        Choice("right_points", "right of the vertical axis", "x > 0"),
        Choice("lower_points", "below the horizontal axis", "y < 0"),
        Choice("diagonal_points", "on the diagonal", "x == y"),
        Choice("near_points", "at most r away from the origin", "x * x + y * y <= r * r", "r"),
    ),
    inputs=(
        "[(6, -8), (7, 2), (1, 1)]",
        "[(5, 5), (-1, -1), (2, 0), (-3, 4)]",
        "[(1, 2), (3, 3), (-2, -5), (4, -1), (0, 0)]",
        "[]",
    ),
    values={"r": ("8", "5", "3", "1"), "step": ("-1", "2", "10", "4")},
)  # fmt: skip

DIGITS = Grid(
    family="recursion",
    difficulty="hard",
    arguments="n",
    results=tuple(
        Result(name, f"by recursion {words}",
               f"if n == 0:\n    return {empty}\ndigit = n % 10\nrest = NAME(n // 10EXTRA)\n"
               f"return {step} if @ else rest")
        for name, words, empty, step in (
            ("recursive_sum_@", "the sum of the digits of n that are @", "0", "rest + digit"),
            ("recursive_count_@", "how many digits of n are @", "0", "rest + 1"),
            ("recursive_list_@", "a list of the digits of n that are @", "[]", "[*rest, digit]"),
            ("recursive_peak_@", "the largest digit of n that is @, or 0", "0", "max(rest, digit)"),
            ("recursive_text_@", "a text of the digits of n that are @", '""', "rest + str(digit)"),
        )
    ),
    choices=(
        Choice("even_digits", "even", "digit % 2 == 0"),
        Choice("odd_digits", "odd", "digit % 2 != 0"),
        Choice("digits_above", "greater than limit", "digit > limit", "limit"),
        Choice("digits_below", "less than limit", "digit < limit", "limit"),
    ),
    inputs=("1234", "908172", "5", "48", "3"),
    values={"limit": ("2", "7", "4", "6", "3")},
)  # fmt: skip

GRIDS = (NUMBERS, WORDS, CHARACTERS, RANGES, SETS, DICTS, MATRICES, POINTS, DIGITS)
