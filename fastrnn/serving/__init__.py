"""Services over a session: requests of many callers, from threads and asyncio, gathered into steps of one pool. Not loaded by `import fastrnn`.

submit, await step ──> rows.py     is the input one row of the model's? A copy of it
                         |
                       callers.py  who is asking: start, end, step numbers, order, idle callers
                         |
                       engine.py   what is ready goes into one step; by the worker, or by the caller where that is sooner
                         |
future, coroutine  <── replies.py  answers back to threads, and to each event loop once a step

batcher.py  the public class         metrics.py  counters and histograms
room.py     how many may wait, by what steps take
ragged.py   whole sequences of different lengths, without a state
ray.py      over many machines, on Ray: the extra `ray`
server/     HTTP, gRPC and WebSocket: the extra `serve`
"""

import logging

from fastrnn.serving.batcher import Batcher

logging.getLogger("fastrnn").addHandler(logging.NullHandler())  # said only to those who listen

__all__ = ["Batcher"]
