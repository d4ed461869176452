"""Every error fastrnn raises on purpose, and its warnings. All errors derive from FastRNNError; messages name the place."""


class FastRNNError(Exception):
    """Base of all fastrnn errors."""


class ShapeError(FastRNNError, ValueError):
    """An array has the wrong rank or dimensions, or overlaps memory that it must not."""


class DTypeError(FastRNNError, TypeError):
    """An array has the wrong dtype or byte order. fastrnn never converts silently."""


class UnsupportedModelError(FastRNNError):
    """The model, option, precision or backend is valid but not supported; names node and attribute."""


class InvalidModelError(FastRNNError, ValueError):
    """A file or graph is malformed."""


class ConversionError(FastRNNError):
    """A converted model does not compute what its source does; names the output and the error."""


class NotStreamableError(FastRNNError):
    """The model cannot run one step at a time; names the node that stands in the way."""


class BusyError(FastRNNError, RuntimeError):
    """A second thread called a stream or pool while a call was running."""


class PoolFullError(FastRNNError, RuntimeError):
    """The pool has no room for another stream."""


class UnknownStreamError(FastRNNError, LookupError):
    """No stream goes by this handle or name: it was never opened, was closed or evicted. Nothing was stepped, and nothing starts from zeros."""


class OverloadedError(FastRNNError, RuntimeError):
    """More requests wait than may; this one was not taken."""


class StateError(FastRNNError, ValueError):
    """A stream state has a wrong name, shape or dtype; no state was changed."""


class OutOfMemoryError(FastRNNError, MemoryError):
    """There is not the memory that a call with these shapes takes; says how much was asked for. Nothing was changed."""


class DivergedError(FastRNNError, ArithmeticError):
    """A loss or a gradient of a training run is not finite; says where and when."""


class MissingDependencyError(FastRNNError, ImportError):
    """An optional package is absent; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}: pip install 'fastrnn[{extra}]'")
        self.package, self.extra = package, extra


class SuspectModelWarning(UserWarning):
    """A file that a known fault of its exporter may have spoiled: it is read as written, and may compute something else than the original."""
