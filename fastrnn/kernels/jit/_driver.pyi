ROWS: tuple[str, ...]
WORDS: tuple[str, ...]
FACTS: tuple[str, ...]
STATES: int
LEVELS: int
MOST_ROWS: int
WORDS_OF_KIND: int

def address() -> int: ...
