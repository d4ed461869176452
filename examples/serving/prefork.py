"""A Batcher under servers that fork their workers: gunicorn and Celery.

gunicorn -c python:prefork prefork:application      # MODEL=model.safetensors in the environment
celery -A prefork worker --pool prefork

The model is loaded and compiled before the fork, so workers share its pages. A Batcher has a thread, which does not come along: each worker makes its own,
after the fork. Its callers are that worker's; who asks again must reach the same one, or bring the stream: batcher.export and batcher.restore.
"""

from __future__ import annotations

import json
import os

import numpy as np

import fastrnn as fr
from fastrnn.serving import Batcher

session = fr.compile(fr.load(os.environ["MODEL"]))
batcher: Batcher | None = None


def start(*_, **__) -> None:
    """In a worker, after the fork."""
    global batcher
    batcher = Batcher(session, capacity=256)


# gunicorn's configuration, and a WSGI application.

preload_app, workers = True, 2


def post_fork(server, worker) -> None:
    start()


def worker_exit(server, worker) -> None:
    """Answers what was asked."""
    if batcher is not None:
        batcher.drain(5)
        batcher.close()


def application(environ, start_response):
    """A whole sequence in JSON, [[...], ...], and what the stream gives for each step of it."""
    rows = np.array(json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))), np.float32)
    caller = object()
    futures = [batcher.submit(caller, row, start=k == 0, end=k == len(rows) - 1) for k, row in enumerate(rows)]
    body = json.dumps({"pid": os.getpid(), "y": [future.result().tolist() for future in futures]}).encode()
    start_response("200 OK", [("content-type", "application/json"), ("content-length", str(len(body)))])
    return [body]


# Celery, where that is there.

try:
    from celery import Celery, signals
except ImportError:
    pass
else:
    app = Celery("prefork", broker=os.environ.get("BROKER", "memory://"), backend=os.environ.get("BACKEND", "cache+memory://"))
    signals.worker_process_init.connect(start, weak=False)

    @app.task
    def predict(rows):
        """The same as a task."""
        caller = object()
        futures = [batcher.submit(caller, np.array(row, np.float32), start=k == 0, end=k == len(rows) - 1) for k, row in enumerate(rows)]
        return [future.result().tolist() for future in futures]
