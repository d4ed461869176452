"""A server in a thread of the test's process, and requests to it as tests write them."""

import asyncio
import json
import threading
import urllib.error
import urllib.request

import numpy as np

from fastrnn.serving.server.limits import Limits
from fastrnn.serving.server.models import Models
from fastrnn.serving.server.running import Server


class Running:
    """with Running({"lstm": session}) as server: at server.url and server.grpc; server.do(function) runs it on the server's loop."""

    def __init__(self, sessions, *, limits=Limits(drain_s=2, busy=1e9, lag_ms=10_000), restart=False, options=None, **server):
        self.models = Models()
        for name, session in sessions.items():
            self.models.add(name, session, *(() if options is None else (options,)), restart=restart)
        self._up, self.fault = threading.Event(), None
        self.server = Server(self.models, port=0, grpc_port=0, limits=limits, listening=lambda server: self._up.set(), **server)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.fault = error
        finally:
            self._up.set()

    async def _main(self):
        self.loop = asyncio.get_running_loop()
        await self.server.run()

    def __enter__(self):
        self.thread.start()
        assert self._up.wait(20) and self.fault is None, self.fault
        self.url, self.grpc = f"127.0.0.1:{self.server.port}", f"127.0.0.1:{self.server.grpc_port}"
        return self

    def __exit__(self, *_):
        if self.thread.is_alive():
            self.do(self.server.stop)
            self.do(self.server.stop)  # without waiting for sequences
        self.thread.join(20)
        assert not self.thread.is_alive() and self.fault is None, self.fault

    def do(self, function, *arguments):
        """On the server's loop; a coroutine is awaited."""

        async def call():
            result = function(*arguments)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(30)

    def get(self, path, headers=None):
        """(status, headers, body)."""
        return self.send(path, None, headers)

    def send(self, path, body, headers=None, method=None):
        request = urllib.request.Request(f"http://{self.url}{path}", body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def infer(self, model, inputs, headers=None, outputs=None, **parameters):
        """(status, answer) of a request in JSON, outputs as arrays by name."""
        request = {
            "inputs": [
                {"name": n, "shape": list(a.shape), "datatype": {"f": "FP32", "i": "INT64"}[a.dtype.kind], "data": a.ravel().tolist()}
                for n, a in inputs.items()
            ],
            "parameters": parameters,
        }
        if outputs is not None:
            request["outputs"] = [{"name": n} for n in outputs]
        status, head, body = self.send(f"/v2/models/{model}/infer", json.dumps(request).encode(), headers)
        answer = json.loads(body)
        if status == 200:
            answer["arrays"] = {o["name"]: np.array(o["data"], np.float32).reshape(o["shape"]) for o in answer["outputs"]}
        return status, answer
