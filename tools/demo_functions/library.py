"""Grids that need more of Python or its library: keys, dates, json, patterns, files, closures, generators."""

from grid import Choice, Grid, Result

TIES = (
    '["xa", "dac", "baa", "bd"]',
    '["ab", "Ab", "AB"]',
    '["dd", "cd", "ad"]',
    '["bee", "Bee", "ace"]',
    '["to", "at", "tat"]',
)
SORTING = Grid(
    family="sorting",
    difficulty="medium",
    arguments="words",
    results=(
        Result("rising_by_@", "a list of words, sorted by their @, equal ones kept in order",
               "ranked = sorted(words, key=lambda word: @)\nreturn ranked", inputs=TIES),
        Result("falling_by_@", "a list of words, sorted by their @ from high to low",
               "ranked = sorted(words, key=lambda word: @, reverse=True)\nreturn ranked"),
        Result("top_by_@", "the top words of a list by their @, highest first",
               "ranked = sorted(words, key=lambda word: @, reverse=True)\nreturn ranked[:top]", "top"),
        Result("tied_by_@", "a list of words, sorted by their @, equal ones in alphabetical order",
               "ranked = sorted(words, key=lambda word: (@, word))\nreturn ranked",
               inputs=TIES),
        Result("grouped_by_@", "a dictionary from @ to the list of words that have it",
               "groups = {}\nfor word in words:\n    groups.setdefault(@, []).append(word)\nreturn groups"),
    ),
    choices=(
        Choice("length", "length", "len(word)"),
        Choice("last_letter", "last letter", "word[-1]"),
        Choice("lower_form", "lower-case form", "word.lower()"),
        Choice("variety", "number of different letters", "len(set(word))"),
        Choice("letter_count", "count of letter", "word.count(letter)", "letter"),
    ),
    inputs=(
        '["ca", "z", "aabt"]',
        '["aaaaa", "bcdf", "Xae"]',
        '["Odi", "dada", "eeexyz"]',
        '["eel", "Omen", "p"]',
        '["z", "tnt", "alto"]',
    ),
    values={"letter": ('"a"', '"a"', '"d"', '"e"', '"t"'), "top": ("2", "1", "2", "1", "2")},
)  # fmt: skip

DATES = Grid(
    family="dates",
    difficulty="medium",
    arguments="texts",
    start="days = [date.fromisoformat(text) for text in texts]",
    results=(
        Result("@_list", "the @ of each date in a list of ISO dates", "return [@ for day in days]"),
        Result("latest_@", "the largest @ in a list of ISO dates",
               "return max(@ for day in days)"),
        Result("count_by_@", "a dictionary from @ to the number of dates in a list of ISO dates",
               "return dict(Counter(@ for day in days))"),
        Result("sort_by_@", "the ISO dates in a list, sorted by @ and then by date",
               "return [str(day) for day in sorted(days, key=lambda day: (@, day))]"),
    ),
    choices=(
        Choice("weekday", "weekday (Monday is 0)", "day.weekday()"),
        Choice("month", "month", "day.month"),
        Choice("year", "year", "day.year"),
        Choice("quarter", "quarter (1 to 4)", "(day.month - 1) // 3 + 1"),
        Choice("day_of_year", "day of the year", "day.timetuple().tm_yday"),
    ),
    inputs=(
        '["2003-01-09", "2011-01-03"]',
        '["0007-05-07", "0007-02-07"]',
        '["2001-01-02", "2004-04-03", "2002-04-01"]',
        '["2020-01-05", "2019-06-30"]',
        '["2024-02-29", "2023-12-03", "2024-02-05"]',
    ),
    values={},
)  # fmt: skip

RECORDS = Grid(
    family="json",
    difficulty="medium",
    arguments="text",
    start="people = [person for person in json.loads(text) if @]",
    results=(
        Result("json_names_@", "the names of the people (name, age, city) in a JSON list @",
               'return [person["name"] for person in people]'),
        Result("json_count_@", "the number of people (name, age, city) in a JSON list @", "return len(people)"),
        Result("json_age_@", "the sum of the ages of the people (name, age, city) in a JSON list @",
               'return sum(person["age"] for person in people)'),
        Result("json_ages_@", "a JSON object from name to age for the people (name, age, city) in a JSON list @",
               'return json.dumps({person["name"]: person["age"] for person in people})'),
        Result("json_oldest_@", "the highest age of the people (name, age, city) in a JSON list @, or None",
               'return max((person["age"] for person in people), default=None)'),
    ),
    choices=(
        Choice("older", "older than age", 'person["age"] > age', "age"),
        Choice("younger", "younger than age", 'person["age"] < age', "age"),
        Choice("in_city", "living in city", 'person["city"] == city', "city"),
        Choice("by_letter", "with a name that starts with letter", 'person["name"].startswith(letter)', "letter"),
    ),
    inputs=(
        """'[{"name": "Cy", "age": 42, "city": "Bonn"}]'""",
        """'[{"name": "Di", "age": 20, "city": "Lima"}]'""",
        """'[{"name": "Al", "age": 31, "city": "Rome"}, {"name": "Bo", "age": 9, "city": "Oslo"}]'""",
        "'[]'",
    ),
    values={
        "age": ("41", "20", "30", "1"),
        "city": ('"Bonn"', '"Rome"', '"Oslo"', '"Rome"'),
        "letter": ('"C"', '"D"', '"A"', '"A"'),
    },
)  # fmt: skip

PATTERNS = Grid(
    family="regex",
    difficulty="medium",
    arguments="text",
    results=(
        Result("find_@", "a list of the @ in a text", "found = re.findall(@, text)\nreturn found"),
        Result("number_of_@", "how many @ a text has", "found = re.findall(@, text)\nreturn len(found)"),
        Result("first_of_@", "the first of the @ in a text, or None",
               "found = re.search(@, text)\nreturn found.group() if found else None"),
        Result("hide_@", "a text with each of the @ replaced by mark",
               "hidden = re.sub(@, mark, text)\nreturn hidden", "mark"),
        Result("sort_@", "the different @ in a text, sorted", "found = re.findall(@, text)\nreturn sorted(set(found))"),
    ),
    choices=(
        Choice("whole_numbers", "whole numbers", r'r"\d+"'),
        Choice("capitalized", "capitalized words", r'r"\b[A-Z][a-z]+\b"'),
        Choice("hashtags", "hashtags such as #sun", r'r"#\w+"'),
        Choice("clock_times", "times such as 09:30", r'r"\d{2}:\d{2}"'),
        Choice("iso_dates", "dates such as 2024-01-31", r'r"\d{4}-\d{2}-\d{2}"'),
    ),
    inputs=(
        '"At 09:30 Eva ran 5 miles #run"',
        '"2024-01-31 #a1 #snow 18:45 Rome #a1"',
        '"from 1999-12-31 to 2000-01-01, Max # and Eva, 07:00 and 06:15"',
        '"no"',
    ),
    values={"mark": ('"*"', '"_"', '"X"', '"-"')},
)  # fmt: skip

COUNTING = Grid(
    family="counting",
    difficulty="medium",
    arguments="text",
    start="counts = Counter(@)",
    results=(
        Result("tally_@", "a dictionary from each of the @ to how often it occurs", "return dict(counts)"),
        Result("most_common_@", "the most common of the @, or None",
               "return max(counts, key=counts.get, default=None)"),
        Result("single_@", "a sorted list of those of the @ that occur only once",
               "return sorted(item for item in counts if counts[item] == 1)"),
        Result("repeated_@", "a sorted list of those of the @ that occur more than once",
               "return sorted(item for item in counts if counts[item] > 1)"),
    ),
    choices=(
        Choice("words", "words of a text", "text.split()"),
        Choice("characters", "characters of a text", "text"),
        Choice("word_lengths", "word lengths of a text", "len(word) for word in text.split()"),
        Choice("initials", "first letters of the words of a text", "word[0] for word in text.split()"),
        Choice("plain_words", "words of a text in lower case", "text.lower().split()"),
    ),
    inputs=(
        '"one"',
        '"aba cc abba aba aba"',
        '"be Or not or Or Or to"',
        '"Go go GO on Oh go go"',
        '""',
    ),
    values={},
)  # fmt: skip

FILES = Grid(
    family="files",
    difficulty="medium",
    arguments="file",
    start='lines = [line.rstrip("\\n") for line in file]',
    results=(
        Result("count_@", "how many lines of an open file @", "return sum(1 for line in lines if @)"),
        Result("read_@", "a list of the lines of an open file that @", "return [line for line in lines if @]"),
        Result("first_of_@", "the first of the lines of an open file that @, or None",
               "return next((line for line in lines if @), None)"),
        Result("places_of_@", "the line numbers, from 1, of the lines of an open file that @",
               "return [number for number, line in enumerate(lines, 1) if @]"),
    ),
    choices=(
        Choice("comments", "begin with #", 'line.startswith("#")'),
        Choice("blank_lines", "are blank", 'line.strip() == ""'),
        Choice("long_lines", "are longer than size", "len(line) > size", "size"),
        Choice("lines_ending", "end with part", "line.endswith(part)", "part"),
    ),
    inputs=(
        r'StringIO("a\nb\n")',
        r'StringIO("red\n \n#b\nyellow red\n")',
        r'StringIO("# a\n\nx = 1\ny = 12\n# long\n")',
        'StringIO("")',
    ),
    values={
        "size": ("1", "3", "4", "2"),
        "part": ('"b"', '"red"', '"1"', '"x"'),
    },
    before="from io import StringIO\n",
    own=True,
)  # fmt: skip

RULES = Grid(
    family="validation",
    difficulty="medium",
    arguments="text",
    results=tuple(
        Result(name, f"True if a text {words} and @, else False", f"right = {code}\nreturn right and @", extra)
        for name, words, code, extra in (
            ("long_and_@", "has at least size characters", "len(text) >= size", "size"),
            ("short_and_@", "has at most size characters", "len(text) <= size", "size"),
            ("solid_and_@", "has no space", '" " not in text', ""),
            ("named_and_@", "begins with prefix", "text.startswith(prefix)", "prefix"),
            ("lettered_and_@", "begins with a letter", "text[:1].isalpha()", ""),
        )
    ),
    choices=(
        Choice("digit", "has a digit", "any(char.isdigit() for char in text)"),
        Choice("capital", "has an upper-case letter", "any(char.isupper() for char in text)"),
        Choice("small", "has no upper-case letter", "text == text.lower()"),
        Choice("closed", "ends with a letter or digit", "text[-1:].isalnum()"),
    ),
    inputs=('"x"', '"b!"', '"abcdefG"', '"ab3"', '"Abc!"', '"a b c1"', '"7x!"', '"7Up"', '"a7!"', '"Ab 4"'),
    values={
        "size": ("2", "2", "7", "3", "4", "6", "3", "3", "2", "4"),
        "prefix": ('"y"', '"b"', '"abc"', '"a"', '"A"', '"a"', '"7"', '"U"', '"a"', '"Ab"'),
    },
)  # fmt: skip

CLOSURES = Grid(
    family="closures",
    difficulty="hard",
    arguments="k",
    results=tuple(
        Result(name, f"a function of {argument} that gives {words}", f"def inner({argument}):\n{body}\n\nreturn inner",
               inputs=inputs)
        for name, argument, words, body, inputs in (
            ("make_@", "n", "@", "    return @", ("3)(10", "2)(5", "7)(7", "4)(-3")),
            ("map_@", "numbers", "a list with @ for each n in numbers", "    return [@ for n in numbers]",
             ("3)([1, 10]", "2)([5, 0, 3]", "7)([7]", "4)([-3, 6]")),
            ("sum_@", "numbers", "the sum of @ for each n in numbers", "    return sum(@ for n in numbers)",
             ("3)([1, 10]", "2)([5, 0, 3]", "7)([7]", "4)([-3, 6]")),
            ("twice_@", "n", "@, done twice in a row", "    for _ in range(2):\n        n = @\n    return n",
             ("3)(10", "2)(5", "2)(3", "4)(-3", "5)(13")),
        )
    ),
    choices=(
        Choice("adder", "n plus k", "n + k"),
        Choice("subtracter", "n minus k", "n - k"),
        Choice("multiplier", "n times k", "n * k"),
        Choice("power", "n to the power of k", "n**k"),
        Choice("divider", "the whole part of n divided by k", "n // k"),
    ),
    inputs=(),
    values={},
    own=True,
)  # fmt: skip

GENERATORS = Grid(
    family="generators",
    difficulty="hard",
    arguments="numbers",
    results=tuple(
        Result(name, f"a generator of {words}", code)
        for name, words, code in (
            ("yield_@", "the @ in a list", "for n in numbers:\n    if @:\n        yield n"),
            ("yield_squares_of_@", "the squares of the @ in a list",
             "for n in numbers:\n    if @:\n        yield n * n"),
            ("yield_places_of_@", "the positions of the @ in a list",
             "for i, n in enumerate(numbers):\n    if @:\n        yield i"),
            ("yield_sums_of_@", "the running sums of the @ in a list",
             "total = 0\nfor n in numbers:\n    if @:\n        total += n\n        yield total"),
            ("yield_until_@", "the numbers in a list that come before the first of the @",
             "for n in numbers:\n    if @:\n        return\n    yield n"),
        )
    ),
    choices=(
        Choice("even", "even numbers", "n % 2 == 0"),
        Choice("odd", "odd numbers", "n % 2 != 0"),
        Choice("negative", "negative numbers", "n < 0"),
        Choice("above", "numbers greater than limit", "n > limit", "limit"),
    ),
    inputs=("[1, 3, 4, 6, -5]", "[8, 2, 7, -2, 10]", "[-1, 9, -4]", "[0, 5, 5]"),
    values={"limit": ("2", "7", "0", "4")},
    wrap="list({})",
    own=True,
)  # fmt: skip

GRIDS = (SORTING, DATES, RECORDS, PATTERNS, COUNTING, FILES, RULES, CLOSURES, GENERATORS)
