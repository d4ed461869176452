"""How many threads sessions may use together, and threadpoolctl's say in it.

The limit is the processors this process may run on. `threadpoolctl.threadpool_limits` lowers it (or raises it) like any library's, from the moment that
fastrnn is registered there: when it is imported after threadpoolctl, else when a model is first compiled for several threads.
"""

from __future__ import annotations

import sys

from fastrnn.runtime.executor._executor import set_thread_limit, thread_limit

__all__ = ["announce", "set_thread_limit", "thread_limit"]

_announced = False


def announce(only_if_imported: bool = False) -> None:
    """Registers with threadpoolctl, once, if it is installed."""
    global _announced
    if _announced or only_if_imported and "threadpoolctl" not in sys.modules:
        return
    try:
        import threadpoolctl
    except ModuleNotFoundError:
        return

    class Controller(threadpoolctl.LibController):
        """fastrnn's pool, as threadpoolctl finds it among the loaded libraries."""

        user_api = internal_api = "fastrnn"
        filename_prefixes = ("_executor",)
        check_symbols = ("fastrnn_get_num_threads", "fastrnn_set_num_threads")

        def get_num_threads(self) -> int:
            return self.dynlib.fastrnn_get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.fastrnn_set_num_threads(num_threads)

        def get_version(self) -> str:
            from importlib.metadata import version

            return version("fastrnn")

    threadpoolctl.register(Controller)
    _announced = True
