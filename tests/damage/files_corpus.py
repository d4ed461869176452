"""Damaged and hostile files of tensors: fastrnn's own models, .safetensors and .npz state dicts."""

import io
import json
import struct
import zipfile
from functools import cache
from pathlib import Path

from case import Case, file_case
from loaders import join_header, model_seeds, npz_seeds, safetensors_seeds, split_header

from fastrnn.model.file import KEY

HUGE, MOST = 1 << 62, (1 << 63) - 1


def edited_graph(change, seed="stack") -> bytes:
    """fastrnn's own file, the graph in its header changed: in place, or to what `change` returns."""
    header, rest = split_header(model_seeds()[seed])
    graph = json.loads(header["__metadata__"][KEY])
    result = change(graph)
    header["__metadata__"][KEY] = result if isinstance(result, str) else json.dumps(graph if result is None else result)
    return join_header(header, rest)


def node(g):
    """The first LSTM."""
    return next(n for n in g["nodes"] if n["op"] == "LSTM")


def first_node(**changes):
    """Entries of the first node changed."""
    return lambda g: node(g).update(changes)


def attribute(**changes):
    """Attributes of the first node changed."""
    return lambda g: node(g)["attributes"].update(changes)


def nest(g, depth):
    """An If around an If, so deep."""
    inner = {"nodes": [], "outputs": ["x"]}
    for k in range(depth):
        inner = {
            "nodes": [
                {"op": "If", "name": f"i{k}", "inputs": ["c"], "outputs": [f"v{k}"], "attributes": {"then_branch": inner, "else_branch": inner}}
            ],
            "outputs": [f"v{k}"],
        }
    g["nodes"] = inner["nodes"]


MODELS = {
    "version_of_the_future": (lambda g: g.update(version=99), "version 99"),
    "version_is_text": (lambda g: g.update(version="2"), "version"),
    "no_version": (lambda g: g.pop("version") and None, "version"),
    "unknown_op": (first_node(op="Evil"), "Evil"),
    "op_is_a_number": (first_node(op=3), "unknown op"),
    "op_is_null": (first_node(op=None), "unknown op"),
    "unknown_attribute": (attribute(evil=1), "evil"),
    "missing_weight": (lambda g: node(g)["inputs"].__setitem__(1, "nothing"), "nothing"),
    "cycle": (lambda g: node(g)["inputs"].__setitem__(0, "y"), "'y' is not defined"),
    "node_twice": (lambda g: g["nodes"].append(node(g)), "second node"),
    "input_twice": (lambda g: g["inputs"].append(g["inputs"][0]), "name is empty or taken"),
    "output_twice": (lambda g: g["outputs"].append(g["outputs"][0]), "twice"),
    "missing_output": (lambda g: g["outputs"].append("nothing"), "nothing"),
    "negative_dim": (lambda g: g["inputs"][0].update(shape=["T", -1, 3]), "dimension -1"),
    "dim_is_a_float": (lambda g: g["inputs"][0].update(shape=["T", 1.5, 3]), "dimension 1.5"),
    "dim_is_true": (lambda g: g["inputs"][0].update(shape=["T", True, 3]), "dimension True"),
    "dim_is_a_list": (lambda g: g["inputs"][0].update(shape=["T", [2], 3]), r"dimension \[2\]"),
    "huge_dim": (lambda g: g["inputs"][0].update(shape=["T", "B", HUGE]), "W must have shape"),
    "many_dims": (lambda g: g["inputs"][0].update(shape=["T"] * 9), "9 dimensions"),
    "wrong_rank": (lambda g: g["inputs"][0].update(shape=["T"]), "X must have shape"),
    "input_of_unknown_dtype": (lambda g: g["inputs"][0].update(dtype="complex32"), "'x'.*complex32"),
    "input_of_another_dtype": (lambda g: g["inputs"][0].update(dtype="int64"), "X must be float32"),
    "input_without_a_name": (lambda g: g["inputs"][0].update(name=""), "input ''"),
    "input_without_a_shape": (lambda g: g["inputs"][0].pop("shape") and None, "shape"),
    "input_is_a_number": (lambda g: g["inputs"].append(3), "malformed graph"),
    "inputs_are_null": (lambda g: g.update(inputs=None), "malformed"),
    "inputs_are_a_table": (lambda g: g.update(inputs={}), "not defined|malformed"),
    "hidden_size_huge": (attribute(hidden_size=1 << 40), "R must have shape"),
    "hidden_size_of_text": (attribute(hidden_size="5"), "hidden_size"),
    "hidden_size_of_70_bits": (attribute(hidden_size=1 << 70), "hidden_size"),
    "hidden_size_null": (attribute(hidden_size=[None]), "hidden_size"),
    "direction_unknown": (attribute(direction="sideways"), "sideways"),
    "layout_7": (attribute(layout=7), "layout"),
    "clip_of_text": (attribute(clip="x"), "clip"),
    "clip_negative": (attribute(clip=-1.0), "clip"),
    "clip_nan": (lambda g: json.dumps(g).replace('"clip": 0.5', '"clip": NaN'), "clip"),
    "clip_infinite": (lambda g: json.dumps(g).replace('"clip": 0.5', '"clip": 1e999'), "clip"),
    "unknown_activation": (attribute(activations=["sigmoid", "swish", "tanh"] * 2), "swish"),
    "few_activations": (attribute(activations=["sigmoid"]), "activations"),
    "activations_of_numbers": (attribute(activations=[1] * 6), "activation"),
    "activations_of_text": (attribute(activations="sigmoid"), "activations"),
    "activation_of_unknown_parameter": (attribute(activations=[["elu", {"gamma": 1}]] * 6), "gamma|elu|activation"),
    "activation_nested_deep": (attribute(activations=json.loads("[" * 300 + "]" * 300)), "activation"),
    "attributes_are_a_list": (first_node(attributes=[]), "malformed"),
    "attributes_are_text": (first_node(attributes="abc"), "malformed"),
    "attribute_is_an_unknown_table": (attribute(clip={"evil": 1}), "unknown entries.*evil"),
    "state_of_nothing": (lambda g: g["states"].append(["x", "nothing", None]), "'nothing'"),
    "state_twice": (lambda g: g["states"].append(g["states"][0]), "tied twice"),
    "state_of_two": (lambda g: g["states"].append(["x", "y"]), "malformed"),
    "state_past_the_end": (lambda g: g["states"][0].__setitem__(2, 99), "index 99"),
    "state_index_of_text": (lambda g: g["states"][0].__setitem__(2, "x"), "malformed|index"),
    "state_of_another_shape": (lambda g: g["states"][0].__setitem__(1, "y"), "does not fit"),
    "states_are_a_number": (lambda g: g.update(states=7), "malformed"),
    "declared_is_a_list": (lambda g: g.update(declared=[]), "malformed"),
    "declared_without_shape": (lambda g: g["declared"].update(y=["float32", None]), "malformed|shape"),
    "declared_of_another_dtype": (lambda g: g["declared"].update(y=["int64", ["T"]]), "int64"),
    "graph_is_a_list": (lambda g: [1, 2], "malformed|version|graph"),
    "graph_is_text": (lambda g: "abc", "no JSON"),
    "graph_is_null": (lambda g: "null", "version|malformed|graph"),
    "graph_is_empty": (lambda g: "", "no JSON"),
    "graph_nested_deep": (lambda g: "[" * 100_000 + "]" * 100_000, "JSON"),
    "graph_of_a_huge_number": (lambda g: '{"version": ' + "9" * 5_000 + "}", "JSON|version"),
    "graph_with_a_name_twice": (lambda g: json.dumps(g)[:-1] + ', "version": 2}', "twice"),
    "graph_with_an_unknown_entry": (lambda g: g.update(evil=1), "unknown entries.*evil"),
    "node_with_an_unknown_entry": (first_node(domain="ai.evil"), "unknown entries.*domain"),
    "node_without_inputs": (lambda g: node(g).pop("inputs") and None, "malformed"),
    "node_is_null": (lambda g: g["nodes"].__setitem__(0, None), "malformed"),
    "nodes_are_a_number": (lambda g: g.update(nodes=5), "malformed"),
    "nodes_are_text": (lambda g: g.update(nodes="abc"), "unknown entries|malformed"),
    "nodes_are_null": (lambda g: g.update(nodes=None), "malformed"),
    "nodes_nested": (lambda g: g.update(nodes=json.loads("[" * 300 + "]" * 300)), "malformed|unknown"),
    "no_nodes": (lambda g: g.pop("nodes") and None, "malformed"),
    "too_many_inputs": (lambda g: node(g)["inputs"].extend(["x"] * 9), "inputs"),
    "too_many_outputs": (lambda g: node(g)["outputs"].extend(["p"] * 9), "outputs|malformed"),
    "inputs_of_numbers": (lambda g: node(g)["inputs"].__setitem__(1, 3), "'3' is not defined"),
    "ifs_nested_9_deep_and_doubled": (lambda g: nest(g, 9), "defined|twice|second"),
    "ifs_nested_20_deep": (lambda g: chain(g, 20), "nested"),
}


def chain(g, depth):
    """The same with each level once."""
    inner = {"nodes": [], "outputs": ["x"]}
    for k in range(depth):
        other = {"nodes": [], "outputs": ["x"]}
        inner = {
            "nodes": [
                {"op": "If", "name": f"i{k}", "inputs": ["c"], "outputs": [f"v{k}"], "attributes": {"then_branch": inner, "else_branch": other}}
            ],
            "outputs": [f"v{k}"],
        }
    g["nodes"] = inner["nodes"]


def edited_header(change, seeds=safetensors_seeds, seed="float32") -> bytes:
    """A safetensors file, its header changed: in place, or to the text that `change` returns."""
    header, rest = split_header(seeds()[seed])
    result = change(header)
    if isinstance(result, bytes):
        return struct.pack("<Q", len(result)) + result + rest
    return join_header(header, rest)


def entry(name="cell.weight_ih", **changes):
    """A tensor's entry changed."""
    return lambda h: h[name].update(changes)


SAFETENSORS = {
    "offsets_past_the_end": entry(data_offsets=[0, 1 << 40]),
    "offsets_backwards": entry(data_offsets=[72, 0]),
    "offsets_negative": entry(data_offsets=[-72, 0]),
    "offsets_overlapping": lambda h: h["cell.weight_ih"].update(data_offsets=h["cell.bias_ih"]["data_offsets"]),
    "offsets_of_three": entry(data_offsets=[0, 72, 99]),
    "offsets_of_text": entry(data_offsets=["0", "72"]),
    "offsets_of_floats": entry(data_offsets=[0.5, 72.5]),
    "offsets_of_65_bits": entry(data_offsets=[0, 1 << 65]),
    "no_offsets": lambda h: h["cell.weight_ih"].pop("data_offsets") and None,
    "shape_larger_than_its_bytes": entry(shape=[9, 3]),
    "shape_negative": entry(shape=[-9, -2]),
    "shape_that_overflows": entry(shape=[1 << 32, 1 << 32]),
    "shape_of_text": entry(shape=["9", "2"]),
    "shape_null": entry(shape=None),
    "no_shape": lambda h: h["cell.weight_ih"].pop("shape") and None,
    "dtype_unknown": entry(dtype="F99"),
    "dtype_null": entry(dtype=None),
    "dtype_of_half_the_size": entry(dtype="F16"),
    "entry_is_a_number": lambda h: h.update({"cell.weight_ih": 3}),
    "entry_is_null": lambda h: h.update({"cell.weight_ih": None}),
    "metadata_is_a_list": lambda h: h.update(__metadata__=[]),
    "metadata_of_numbers": lambda h: h.update(__metadata__={"a": 1}),
    "header_is_a_list": lambda h: b"[]",
    "header_is_null": lambda h: b"null",
    "header_is_no_json": lambda h: b"{abc",
    "header_is_empty": lambda h: b"",
    "header_not_utf8": lambda h: json.dumps(h).encode().replace(b'"F32"', b'"\xff32"'),
    "header_nested_deep": lambda h: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "header_with_a_tensor_twice": lambda h: json.dumps(h).encode()[:-1] + b", " + json.dumps(dict([list(h.items())[-1]])).encode()[1:],
    "header_of_many_tensors": lambda h: json.dumps({f"w{k}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for k in range(5_000)}).encode(),
    "header_huge": lambda h: json.dumps(h).encode() + b" " * (2 << 20),
    "header_with_a_huge_number": lambda h: b'{"a": ' + b"9" * 5_000 + b"}",
    "bytes_that_no_tensor_has": lambda h: h.pop("head.weight") and None,
}
WEIGHTS = {
    "weight_of_integers": (entry(dtype="I32"), "cell.weight_ih must be float32.*I32"),
    "weight_of_float64": (lambda h: h["cell.weight_ih"].update(dtype="F64", shape=[9, 1]), "weight_ih must be float32.*F|float64"),
    "weight_of_8_bits": (lambda h: h["cell.weight_ih"].update(dtype="F8_E4M3", shape=[9, 8]), "weight_ih must be float32.*F8"),
    "weight_transposed": (entry(shape=[2, 9]), "'cell'.*weight_ih_l0 must have shape"),
    "weight_flat": (entry(shape=[18]), "weight_ih_l0 must have 2 dimensions"),
    "weight_missing": (lambda h: h.update({"x": h.pop("cell.weight_hh")}), "'cell'.*missing weight_hh_l0"),
    "bias_missing": (lambda h: h.update({"x": h.pop("cell.bias_hh")}), "'cell'.*missing bias_hh_l0"),
    "layer_missing": (lambda h: h.update({k.replace("_l1", "_l2"): h.pop(k) for k in list(h) if "_l1" in k}), "'encoder'.*nothing of layer 1"),
    "layer_of_5000_digits": (lambda h: h.update({"encoder.weight_ih_l" + "9" * 5_000: h.pop("head.weight")}), "'encoder'.*layer 2"),
    "direction_missing": (lambda h: h.update({"x": h.pop("encoder.weight_ih_l1_reverse")}), "'encoder'.*missing weight_ih_l1_reverse"),
    "cell_beside_layer": (lambda h: h.update({"encoder.weight_ih": h.pop("head.weight")}), "'encoder.weight_ih' is a cell's"),
    "weight_norm": (lambda h: h.update({"cell.weight_ih_g": h.pop("cell.weight_ih")}), "'cell.weight_ih_g'"),
    "parametrised": (
        lambda h: h.update({"cell.parametrizations.weight_hh.original0": h.pop("cell.weight_hh")}),
        "'cell.parametrizations.weight_hh.original0'",
    ),
    "no_recurrent_layer": (
        lambda h: [h.update({f"w{k}": h.pop(name)}) for k, name in enumerate(list(h)) if "_" in name and name != "__metadata__"] and None,
        "no recurrent layer",
    ),
}


@cache
def npz_entries() -> tuple[tuple[str, bytes], ...]:
    """The entries of the good file."""
    with zipfile.ZipFile(io.BytesIO(npz_seeds()["stored"])) as archive:
        return tuple((name, archive.read(name)) for name in archive.namelist())


def zipped(entries, compression=zipfile.ZIP_STORED) -> bytes:
    """An archive of these entries."""
    import warnings

    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.simplefilter("ignore")
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


def npy(header: str, data=bytes(72), version=b"\1\0") -> bytes:
    """An array file by its header."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(text)) + text + data


def array(header: str, **more) -> bytes:
    """The good archive, the cell's weight_ih replaced by an array of this header."""
    return zipped([(name, npy(header, **more) if name == "cell.weight_ih.npy" else content) for name, content in npz_entries()])


def header(descr="'<f4'", order="False", shape="(9, 2)") -> str:
    """A header."""
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def patched(at: int, data: bytes) -> bytes:
    """The good archive, bytes at a place (from the end where negative) replaced."""
    whole = bytearray(npz_seeds()["stored"])
    at = at % len(whole)
    whole[at : at + len(data)] = data
    return bytes(whole)


def directory_patched(offset: int, data: bytes) -> bytes:
    """The good archive, its first directory entry changed."""
    return patched(npz_seeds()["stored"].index(b"PK\1\2") + offset, data)


NPZ = {
    **{
        f"npy_{name}": (lambda text=text: array(text), "cell.weight_ih")
        for name, text in {
            "of_objects": header("'|O'"),
            "of_records": header("[('a', '<f4')]"),
            "of_text": header("'<U4'"),
            "of_integers": header("'<i4'"),
            "of_float64": header("'<f8'", shape="(9, 1)"),
            "of_dates": header("'<M8[s]'"),
            "of_an_unknown_dtype": header("'<q77'"),
            "of_a_huge_shape": header(shape=f"({HUGE}, {HUGE})"),
            "of_a_shape_that_overflows": header(shape=f"({1 << 32}, {1 << 32}, 2)"),
            "of_a_negative_shape": header(shape="(-9, -2)"),
            "of_too_much": header(shape="(9, 3)"),
            "of_too_little": header(shape="(9, 1)"),
            "of_a_shape_of_text": header(shape="'ab'"),
            "of_a_shape_of_floats": header(shape="(9.0, 2.0)"),
            "of_a_shape_of_truth": header(shape="(True, 18)"),
            "of_a_number": header(shape="18"),
            "of_an_unknown_order": header(order="3"),
            "without_order": "{'descr': '<f4', 'shape': (9, 2)}",
            "with_more": "{'descr': '<f4', 'fortran_order': False, 'shape': (9, 2), 'evil': 1}",
            "that_calls": "__import__('os').system('true')",
            "that_is_empty": "",
            "that_is_a_list": "[]",
            "nested_deep": "(" * 3_000 + ")" * 3_000,
            "nested_in_minus_signs": "-" * 9_000 + "1",
            "of_70_dims": header(shape="(" + "1, " * 70 + "9, 2)"),
            "of_a_huge_number": header(shape="(" + "9" * 5_000 + ",)"),
            "with_a_null_byte": header() + "\0",
        }.items()
    },
    "npy_of_a_huge_header": (lambda: array(header() + " " * 60_000), "cell.weight_ih"),
    "npy_of_version_9": (lambda: array(header(), version=b"\x09\0"), "cell.weight_ih"),
    "npy_without_magic": (lambda: zipped([("cell.weight_ih.npy", b"abc"), *npz_entries()[:0]]), "cell.weight_ih"),
    "npy_empty": (lambda: zipped([("cell.weight_ih.npy", b"")]), "cell.weight_ih"),
    "npy_of_a_header_past_the_end": (lambda: zipped([("cell.weight_ih.npy", b"\x93NUMPY\1\0\xff\xff{}")]), "cell.weight_ih"),
    "entry_twice": (lambda: zipped([*npz_entries(), npz_entries()[0]]), "stands twice"),
    "entry_outside": (lambda: zipped([("../cell.weight_ih.npy", npz_entries()[0][1])]), "leads outside"),
    "entry_absolute": (lambda: zipped([("/cell.weight_ih.npy", b"")]), "leads outside"),
    "entry_with_backslashes": (lambda: zipped([("..\\cell.weight_ih.npy", b"")]), "leads outside"),
    "no_entries": (lambda: zipped([]), "zip archive|no recurrent"),
    "no_arrays": (lambda: zipped([("readme.txt", b"hello")]), "no recurrent layer"),
    "encrypted": (lambda: directory_patched(8, b"\1\0"), "encrypted"),
    "compressed_in_an_unknown_way": (lambda: directory_patched(10, b"\x63\0"), "compressed"),
    "claims_more_than_is_stored": (lambda: directory_patched(24, struct.pack("<L", 1 << 31)), "claims"),
    "directory_cut": (lambda: npz_seeds()["stored"][:-60], "zip archive"),
    "directory_elsewhere": (lambda: patched(-6, struct.pack("<L", 7)), "zip archive"),
    "comment": (lambda: npz_seeds()["stored"][:-2] + b"\5\0hello", "zip archive"),
    "bytes_behind": (lambda: npz_seeds()["stored"] + b"\0" * 30, "zip archive"),
    "bytes_in_front": (lambda: b"\0" * 30 + npz_seeds()["stored"], "zip archive"),
    "wrong_checksum": (lambda: directory_patched(16, b"abcd"), "damaged"),
    "entry_elsewhere": (lambda: directory_patched(42, b"\xff\xff\xff\0"), "damaged|zip"),
    "no_zip_at_all": (lambda: b"\x93NUMPY" + bytes(100), "no zip archive"),
    "empty_file": (lambda: b"", "no zip archive"),
    "a_pickle": (lambda: b"\x80\x02}.", "no zip archive"),
    "bomb_of_one_weight": (lambda: bomb(1, 300), "weights would take"),
    "bomb_of_many_weights": (lambda: bomb(40, 16), "weights would take"),
    "directory_of_many_entries": (lambda: many_entries(), "directory of"),
}


@cache
def bomb(count: int, mebibytes: int) -> bytes:
    """Zeros by the hundred megabytes, which compress to a thousandth."""
    rows = (mebibytes << 20) // 4 // 256
    content = npy(header(shape=f"({rows}, 256)"), data=bytes(rows * 1024))
    return zipped([(f"m{k}.weight_ih_l0.npy", content) for k in range(count)], zipfile.ZIP_DEFLATED)


@cache
def many_entries() -> bytes:
    """A directory alone, of entries of a few bytes each."""
    entry = struct.pack("<4sHHHHHHLLLHHHHHLL", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    whole = b"PK\3\4" + bytes(26) + entry * 100_000
    return whole + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 34_464, 34_464, len(whole) - 30, 30, 0)


CORPUS = [
    file_case(f"model_{name}", ".safetensors", lambda change=change: edited_graph(change), message, "model")
    for name, (change, message) in MODELS.items()
]
CORPUS += [
    file_case(f"safetensors_{name}", ".safetensors", lambda change=change: edited_header(change), "damaged.safetensors|cell.weight_ih", "layers")
    for name, change in SAFETENSORS.items()
]
CORPUS += [
    file_case(f"model_{name}", ".safetensors", lambda change=change: edited_header(change, model_seeds, "stack"), "damaged.safetensors", "model")
    for name, change in SAFETENSORS.items()
    if name.startswith("header")
]
CORPUS += [
    file_case(f"safetensors_{name}", ".safetensors", lambda change=change: edited_header(change), message, "layers")
    for name, (change, message) in WEIGHTS.items()
]
CORPUS += [file_case(f"npz_{name}", ".npz", make, message, "layers") for name, (make, message) in NPZ.items()]
CORPUS += [
    Case("a_state_dict_is_no_model", lambda folder: _write(folder / "w.safetensors", safetensors_seeds()["float32"]), "from_state_dict", "model")
]
CORPUS += [
    Case(f"load_{suffix}", lambda folder, suffix=suffix: _write(folder / f"w.{suffix}", b"abc"), message, "model")
    for suffix, message in (("pt", "neither a torch zip archive"), ("pth", "neither a torch zip archive"), ("bin", "unknown kind"), ("h5", "neither"))
]
CORPUS += [
    Case(f"state_dict_{suffix}", lambda folder, suffix=suffix: _write(folder / f"w.{suffix}", b"abc"), message, "layers")
    for suffix, message in (("onnx", "fastrnn.load"), ("pt2", "fastrnn.load"), ("h5", "numpy.savez"))
]


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
