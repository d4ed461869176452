"""inference.GRPCInferenceService over grpc.aio, on the server's event loop."""

from __future__ import annotations

import asyncio
import time

import grpc
import numpy as np
from google.protobuf.message import DecodeError

import fastrnn
from fastrnn.serving.server.access import Access
from fastrnn.serving.server.asked import MOST_NAME, Answered, Asked
from fastrnn.serving.server.datatypes import NAMES, dtype_of, from_bytes, shape_of, to_bytes
from fastrnn.serving.server.measures import Measures
from fastrnn.serving.server.messages import MESSAGES, SERVICE
from fastrnn.serving.server.models import Models
from fastrnn.serving.server.refusals import RETRY_AFTER_S, Refused, refused

EXTENSIONS = ["binary_tensor_data", "sequence", "parameters"]
UNARY = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
MOST_IN_FLIGHT = 64  # requests of one stream whose answers are not out yet
# Where contents stand that are not raw. Source: Open Inference Protocol v2, InferTensorContents.
CONTENTS = {"BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
            "UINT8": "uint_contents",
            "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"}  # fmt: skip


def read_request(request) -> Asked:
    """A ModelInferRequest's content. Raises Refused."""
    if max(len(request.model_name), len(request.model_version), len(request.id)) > MOST_NAME:
        raise Refused("invalid", f"model_name, model_version and id have at most {MOST_NAME} characters")
    raw, inputs = request.raw_input_contents, {}
    if raw and len(raw) != len(request.inputs):
        raise Refused("invalid", f"{len(request.inputs)} inputs, and {len(raw)} raw_input_contents")
    for k, tensor in enumerate(request.inputs):
        name = tensor.name
        if name in inputs:
            raise Refused("invalid", f"input {name[:MOST_NAME]!r} is given twice")
        if tensor.parameters:
            raise Refused("invalid", f"input {name[:MOST_NAME]!r}: parameter {next(iter(tensor.parameters))[:80]!r} is not known")
        dtype, shape = dtype_of(tensor.datatype, name), shape_of(list(tensor.shape), name)
        if raw and tensor.HasField("contents"):
            raise Refused("invalid", f"input {name[:MOST_NAME]!r} has contents beside raw_input_contents")
        inputs[name] = from_bytes(raw[k], dtype, shape, name) if raw else _from_contents(tensor, dtype, shape)
    outputs = None
    if request.outputs:
        outputs = [tensor.name for tensor in request.outputs]
        if wrong := next((t for t in request.outputs if t.parameters), None):
            raise Refused("invalid", f"output {wrong.name[:MOST_NAME]!r}: parameter {next(iter(wrong.parameters))[:80]!r} is not known")
    return Asked(
        request.model_name, request.model_version, request.id, {name: _value(p, name) for name, p in request.parameters.items()}, inputs, outputs
    )


def _value(parameter, name: str):
    choice = parameter.WhichOneof("parameter_choice")
    if choice is None:
        raise Refused("invalid", f"parameter {name[:80]!r} has no value")
    return getattr(parameter, choice)


def _from_contents(tensor, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    place = CONTENTS.get(tensor.datatype)
    if place is None:
        raise Refused("invalid", f"input {tensor.name[:MOST_NAME]!r}: {tensor.datatype} goes in raw_input_contents")
    if other := next((f.name for f, _ in tensor.contents.ListFields() if f.name != place), None):
        raise Refused("invalid", f"input {tensor.name[:MOST_NAME]!r}: {tensor.datatype} goes in {place}, got {other}")
    values = np.array(getattr(tensor.contents, place), np.dtype(getattr(np, {"i": "int64", "u": "uint64"}.get(dtype.kind, dtype.name))))
    if values.size != np.prod(shape, dtype=np.int64):
        raise Refused(
            "invalid", f"input {tensor.name[:MOST_NAME]!r}: shape {list(shape)} has {np.prod(shape, dtype=np.int64)} entries, got {values.size}"
        )
    if dtype.kind in "iu" and values.size and not np.iinfo(dtype).min <= values.min() <= values.max() <= np.iinfo(dtype).max:
        raise Refused("invalid", f"input {tensor.name[:MOST_NAME]!r}: {tensor.datatype} cannot hold {values.min()}..{values.max()}")
    return values.astype(dtype).reshape(shape)


def write_answer(answer: Answered):
    """A ModelInferResponse."""
    response = MESSAGES["ModelInferResponse"](model_name=answer.model, model_version=answer.version, id=answer.id)
    for name, a in answer.outputs.items():
        response.outputs.add(name=name, datatype=NAMES[a.dtype.name], shape=a.shape)
        response.raw_output_contents.append(to_bytes(a))
    for name, value in answer.parameters.items():
        response.parameters[name].string_param = value
    return response


def parsed(name: str, data: bytes):
    """A message from its bytes. Raises Refused: grpc itself would call what is malformed UNKNOWN."""
    try:
        return MESSAGES[name].FromString(data)
    except DecodeError as error:
        raise Refused("invalid", f"these bytes are no {name}: {error}") from error


class Service:
    """The service's methods. Each is called with a request's bytes and a grpc.aio.ServicerContext."""

    def __init__(self, models: Models, access: Access, measures: Measures):
        self._models, self._access, self._measures = models, access, measures

    def owner(self, context) -> str | None:
        """Whose request it is. Raises Refused."""
        return self._access.owner(next((value for key, value in context.invocation_metadata() or () if key == "authorization"), None))

    async def abort(self, context, error: Refused) -> None:
        """Ends a call by a refusal's code, with its name as "fastrnn-error"."""
        self._measures.refused("grpc", error)
        metadata = (("fastrnn-error", error.name), *((("retry-after", str(RETRY_AFTER_S)),) if error.codes.retry else ()))
        await context.abort(grpc.StatusCode[error.codes.grpc], str(error), metadata)

    def unary(self, name: str):
        """A method of one request and one answer."""
        answer = getattr(self, name)

        async def call(data: bytes, context):
            try:
                return await answer(parsed(f"{name}Request", data), context)
            except Exception as error:
                await self.abort(context, refused(error))

        return call

    async def ServerLive(self, request, context):
        return MESSAGES["ServerLiveResponse"](live=True)

    async def ServerReady(self, request, context):
        return MESSAGES["ServerReadyResponse"](ready=not self._models.draining)

    async def ModelReady(self, request, context):
        self.owner(context)
        try:
            self._models.of(request.name).of_version(request.version)
        except Refused:
            return MESSAGES["ModelReadyResponse"](ready=False)
        return MESSAGES["ModelReadyResponse"](ready=not self._models.draining)

    async def ServerMetadata(self, request, context):
        return MESSAGES["ServerMetadataResponse"](name="fastrnn", version=fastrnn.__version__, extensions=EXTENSIONS)

    async def ModelMetadata(self, request, context):
        self.owner(context)
        return MESSAGES["ModelMetadataResponse"](**self._models.of(request.name).metadata(request.version))

    async def ModelInfer(self, request, context):
        return await self._infer(request, self.owner(context))

    async def _infer(self, request, owner: str | None):
        began = time.perf_counter()
        answer = await self._models.infer(read_request(request), owner)
        self._measures.answered("grpc", answer.model, time.perf_counter() - began)
        return write_answer(answer)

    async def ModelStreamInfer(self, requests, context):
        """Answers in the order of requests, of which several run at once; a refusal is an answer with an error_message, and the stream goes on."""
        try:
            owner = self.owner(context)
        except Refused as error:
            await self.abort(context, error)
        tasks: asyncio.Queue[asyncio.Task | None] = asyncio.Queue(MOST_IN_FLIGHT)

        async def read():
            try:
                async for data in requests:
                    await tasks.put(asyncio.create_task(self._streamed(data, owner)))
            finally:
                await tasks.put(None)

        reader = asyncio.create_task(read())
        try:
            while (task := await tasks.get()) is not None:
                yield await task
        finally:
            reader.cancel()

    async def _streamed(self, data: bytes, owner: str | None):
        try:
            request = parsed("ModelInferRequest", data)
        except Refused as error:
            return self._failed(MESSAGES["ModelInferRequest"](), error)
        try:
            return MESSAGES["ModelStreamInferResponse"](infer_response=await self._infer(request, owner))
        except Exception as error:
            return self._failed(request, refused(error))

    def _failed(self, request, error: Refused):
        self._measures.refused("grpc", error)
        of = MESSAGES["ModelInferResponse"](model_name=request.model_name, model_version=request.model_version, id=request.id)
        return MESSAGES["ModelStreamInferResponse"](error_message=f"{error.name}: {error}", infer_response=of)


def handlers(service: Service) -> grpc.GenericRpcHandler:
    """What a grpc.aio server is given."""
    methods = {name: grpc.unary_unary_rpc_method_handler(service.unary(name), None, MESSAGES[f"{name}Response"].SerializeToString) for name in UNARY}
    methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        service.ModelStreamInfer, None, MESSAGES["ModelStreamInferResponse"].SerializeToString
    )
    return grpc.method_handlers_generic_handler(SERVICE, methods)


async def start(service: Service, address: str, body_bytes: int, connections: int) -> tuple[grpc.aio.Server, int]:
    """A server that listens at host:port, and its port. Raises OSError where it cannot."""
    options = [
        ("grpc.max_receive_message_length", body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        ("grpc.max_metadata_size", 16384),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.max_concurrent_streams", MOST_IN_FLIGHT * 4),
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=connections)
    server.add_generic_rpc_handlers((handlers(service),))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen at {address}: {error}") from error
    await server.start()
    return server, port
