"""The messages of inference.GRPCInferenceService, in a pool of descriptors of their own: other code's, such as tritonclient's, may be loaded
beside them.

Made when this is imported, from the table below: a message's fields with their numbers and types as the public protocol has them, so that the
bytes on the wire are its own. Source: Open Inference Protocol v2, "GRPC"; ModelStreamInfer and its message are Triton's extension.
"""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
PARAMETERS = "map InferParameter"

# Message: fields in order of their numbers, from 1. "+": repeated; "map": from string; "|": one of these at most.
TABLE = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready",
    "ModelReadyRequest": "string name, string version",
    "ModelReadyResponse": "bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name, string version, string+ extensions",
    "ModelMetadataRequest": "string name, string version",
    "ModelMetadataResponse": "string name, string+ versions, string platform, TensorMetadata+ inputs, TensorMetadata+ outputs",
    "ModelMetadataResponse.TensorMetadata": "string name, string datatype, int64+ shape",
    "InferParameter": "bool| bool_param, int64| int64_param, string| string_param, double| double_param, uint64| uint64_param",
    "InferTensorContents": "bool+ bool_contents, int32+ int_contents, int64+ int64_contents, uint32+ uint_contents, uint64+ uint64_contents, float+ fp32_contents, "
    "double+ fp64_contents, bytes+ bytes_contents",
    "ModelInferRequest": "string model_name, string model_version, string id, map InferParameter parameters, InferInputTensor+ inputs, "
    "InferRequestedOutputTensor+ outputs, bytes+ raw_input_contents",
    "ModelInferRequest.InferInputTensor": "string name, string datatype, int64+ shape, map InferParameter parameters, InferTensorContents contents",
    "ModelInferRequest.InferRequestedOutputTensor": "string name, map InferParameter parameters",
    "ModelInferResponse": "string model_name, string model_version, string id, map InferParameter parameters, InferOutputTensor+ outputs, bytes+ raw_output_contents",
    "ModelInferResponse.InferOutputTensor": "string name, string datatype, int64+ shape, map InferParameter parameters, InferTensorContents contents",
    "ModelStreamInferResponse": "string error_message, ModelInferResponse infer_response",
}

Field = descriptor_pb2.FieldDescriptorProto
TYPES = {
    name: getattr(Field, f"TYPE_{name.upper()}") for name in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}


def _add_field(message: descriptor_pb2.DescriptorProto, path: str, number: int, text: str) -> None:
    *kind, name = text.split()
    of = kind[-1].rstrip("+|")
    repeated = kind[0] == "map" or kind[-1].endswith("+")
    field = message.field.add(name=name, number=number, label=Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL)
    if of in TYPES:
        field.type = TYPES[of]
    else:
        field.type, nested = Field.TYPE_MESSAGE, f"{path}.{of}"
        field.type_name = f".{PACKAGE}.{nested if nested in TABLE else of}"
    if kind[-1].endswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind[0] == "map":  # is, on the wire, a list of pairs
        entry = message.nested_type.add(name="".join(part.capitalize() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=Field.LABEL_OPTIONAL, type=Field.TYPE_STRING)
        entry.field.add(name="value", number=2, label=Field.LABEL_OPTIONAL, type=field.type, type_name=field.type_name)
        field.type_name = f".{PACKAGE}.{path}.{entry.name}"


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="fastrnn/inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, descriptor_pb2.DescriptorProto] = {}
    for path, fields in TABLE.items():
        outer, _, name = path.rpartition(".")
        message = made[path] = made[outer].nested_type.add(name=name) if outer else file.message_type.add(name=name)
        for number, text in enumerate(filter(None, fields.split(", ")), 1):
            _add_field(message, path, number, text)
    return file


POOL = descriptor_pool.DescriptorPool()
POOL.Add(_file())
MESSAGES = {path: message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{path}")) for path in TABLE}
