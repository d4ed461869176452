"""Logs as JSON, an object a line, for programs that read them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

# What uvicorn says of each malformed request: whoever sends them would fill the disk.
OF_CLIENTS = ("Invalid HTTP request", "Invalid UTF-8", "Unsupported upgrade")


class JsonLines(logging.Formatter):
    """{"time", "level", "logger", "message", "exception"}."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


@contextmanager
def written(level: str) -> Iterator[None]:
    """Has fastrnn's and the server's logs written to stderr; the loggers are afterwards as they were."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    if level != "debug":
        handler.addFilter(lambda record: record.name != "uvicorn.error" or not record.getMessage().startswith(OF_CLIENTS))
    loggers = [logging.getLogger(name) for name in ("fastrnn", "uvicorn", "grpc")]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel("WARNING" if logger.name == "uvicorn" and level == "info" else level.upper())  # it has a line for each connection
    try:
        yield
    finally:
        for logger, logger.handlers, logger.propagate, own in before:
            logger.setLevel(own)
