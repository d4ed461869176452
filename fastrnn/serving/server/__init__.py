"""A server of models: Open Inference Protocol v2 over HTTP and gRPC with Triton's sequences, WebSockets, metrics and a page. Needs the extra `serve`.

    HTTP  ──> web.py      endpoints  ──> tensors.py  JSON and binary tensors ─┐
    gRPC  ──> rpc.py      methods    ──> messages.py protocol buffers        ├─> asked.py ──> models.py ──> generation.py ──> Batcher, Session
    WebSocket > sockets.py  a connection is a caller ──────────────────────────┘   one form     names,         a session and
                                                                                              replacement     its callers
    datatypes.py  names of datatypes, bytes     refusals.py  reasons: HTTP, gRPC and close codes, one table
    access.py     bearer tokens, owners         limits.py    sizes and times of connections
    measures.py   Prometheus, the page's data   logs.py      JSON lines
    load.py       who may start              running.py   the event loop, signals, drain
    page/         the page's own files

To add an endpoint: a method of Web and its route. An extension of the protocol: a parameter in asked.py, which both protocols then know.
"""
