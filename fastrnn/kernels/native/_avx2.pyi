LANES: int
SIZEOF_ARGS: int

def kernels() -> list[tuple[str, int, int]]: ...
