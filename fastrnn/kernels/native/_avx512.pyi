LANES: int
SIZEOF_ARGS: int

def kernels() -> list[tuple[str, str, str, int, int]]: ...
