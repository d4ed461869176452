"""Damaged and hostile Keras files: zip archives, their configs, HDF5 and its structures."""

import struct

import numpy as np
from case import file_case
from keras_files import array, keras_h5, keras_zip, weights_h5

HUGE = 1 << 62


def lay(name, **changes):
    """Options of one layer changed."""

    def change(config):
        one = next(one for one in config["config"]["layers"] if one["config"]["name"] == name)
        one["config"].update(changes)

    return change


def one(name, **changes):
    """Entries beside a layer's options changed."""
    return lambda config: next(one for one in config["config"]["layers"] if one["config"]["name"] == name).update(changes)


def top(**changes):
    """Options of the network."""
    return lambda config: config["config"].update(changes)


def history(name, k, *given):
    """What call k of a functional layer reads."""

    def change(config):
        found = next(one for one in config["config"]["layers"] if one["config"]["name"] == name)
        found["inbound_nodes"][k]["args"][0] = {"class_name": "__keras_tensor__", "config": {"keras_history": list(given)}}

    return change


def nested(depth):
    """Models in models, so deep."""
    inner = {"class_name": "Sequential", "config": {"name": "s", "layers": []}}
    for k in range(depth):
        inner = {"class_name": "Sequential", "config": {"name": f"s{k}", "layers": [inner]}}
    return inner


LAMBDA = {
    "class_name": "Lambda",
    "module": "keras.layers",
    "config": {"name": "dense", "trainable": True, "function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}},
}
SEQUENTIAL = {  # of the config of a Sequential: in both forms
    "class_unknown": (one("dense", class_name="Evil"), "Evil"),
    "class_is_a_number": (one("dense", class_name=3), "class_name"),
    "class_of_its_own": (one("dense", class_name="Own", module="mine", registered_name="mine>Own"), "its own"),
    "lambda": (lambda c: c["config"]["layers"].__setitem__(5, LAMBDA), "Lambda"),
    "config_is_a_list": (one("dense", config=[]), "layers|layer"),
    "config_is_missing": (lambda c: c["config"]["layers"][5].pop("config") and None, "config"),
    "layers_is_a_number": (top(layers=3), "layers"),
    "layers_is_empty": (top(layers=[]), "layers"),
    "layers_of_numbers": (top(layers=[1, 2]), "class_name"),
    "layer_twice": (lambda c: c["config"]["layers"].append(c["config"]["layers"][5]), "'dense'"),
    "network_of_its_own": (lambda c: {**c, "class_name": "Mine"}, "Mine"),
    "network_is_a_layer": (lambda c: c["config"]["layers"][5], "Dense"),
    "nested_without_end": (lambda c: nested(100), "nested"),
    "unknown_option": (lay("dense", evil=1), "evil"),
    "units_negative": (lay("dense", units=-1), "units"),
    "units_huge": (lay("dense", units=HUGE), "units"),
    "units_text": (lay("dense", units="2"), "units"),
    "units_true": (lay("dense", units=True), "units"),
    "units_null": (lay("dense", units=None), "units"),
    "units_of_another_size": (lay("dense", units=3), "shape"),
    "lstm_units_of_another_size": (lay("lstm", units=5), "shape"),
    "lstm_units_huge": (lay("lstm", units=1 << 30), "shape"),
    "use_bias_text": (lay("lstm", use_bias="yes"), "use_bias"),
    "use_bias_false": (lay("lstm", use_bias=False), "weights"),
    "activation_unknown": (lay("dense", activation="evil"), "evil"),
    "activation_of_its_own": (lay("dense", activation={"class_name": "function", "config": "f", "registered_name": "mine>f"}), "its own"),
    "activation_is_a_list": (lay("dense", activation=[]), "activation"),
    "activation_is_code": (lay("dense", activation={"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}), "activation"),
    "recurrent_activation_unknown": (lay("lstm", recurrent_activation="evil"), "evil"),
    "go_backwards_number": (lay("lstm", go_backwards=3), "go_backwards"),
    "time_major": (lay("lstm", time_major=True), "time_major"),
    "float16": (lay("lstm", dtype="float16"), "float16"),
    "mixed": (lay("lstm", dtype={"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}), "mixed_float16"),
    "quantized": (lay("dense", dtype={"class_name": "QuantizedDTypePolicy", "config": {"name": "int8_from_float32"}}), "int8"),
    "input_shape_missing": (lay("input", batch_shape=None), "shape"),
    "input_shape_negative": (lay("input", batch_shape=[None, -1, 3]), "shape"),
    "input_shape_text": (lay("input", batch_shape=[None, "T", 3]), "shape"),
    "input_shape_huge": (lay("input", batch_shape=[None, None, HUGE]), "shape"),
    "input_of_another_size": (lay("input", batch_shape=[None, None, 4]), "4|features"),
    "input_without_features": (lay("input", batch_shape=[None, None]), "axes|takes|fit|axis|rank"),
    "input_of_many_axes": (lay("input", batch_shape=[None] * 12), "12|dimensions|axes"),
    "input_dtype_unknown": (lay("input", dtype="complex64"), "complex64"),
    "input_dtype_string": (lay("input", dtype="string"), "string"),
    "mask_value_text": (lay("masking", mask_value="nothing"), "mask_value"),
    "mask_value_infinite": (lay("masking", mask_value=1e300), "mask_value"),
    "merge_mode_unknown": (lay("both", merge_mode="evil"), "merge_mode"),
    "bidirectional_without_a_layer": (lay("both", layer=None), "class_name"),
    "bidirectional_of_a_dense": (
        lay("both", layer={"class_name": "Dense", "config": {"name": "d", "units": 2}}, backward_layer=None),
        "weight|Dense",
    ),
    "bidirectional_both_forward": (lambda c: c["config"]["layers"][2]["config"]["backward_layer"]["config"].update(go_backwards=False), "directions"),
    "axis_outside": (lay("norm", axis=7), "axis"),
    "axis_text": (lay("norm", axis="last"), "axis"),
    "axis_the_steps": (lay("norm", axis=1), "axis"),
    "epsilon_text": (lay("norm", epsilon="small"), "epsilon"),
    "no_scale": (lay("norm", scale=False), "weights"),
}
FUNCTIONAL = {
    "reads_nothing_known": (history("conv", 0, "nothing", 0, 0), "conv"),
    "reads_itself": (history("conv", 0, "conv", 0, 0), "conv"),
    "reads_a_later_output": (history("conv", 0, "table", 0, 7), "output 7"),
    "reads_a_negative_output": (history("conv", 0, "table", 0, -1), "output -1"),
    "circle": (history("table", 0, "lstm", 0, 0), "made by no layer"),
    "calls_is_a_number": (one("conv", inbound_nodes=3), "called on"),
    "calls_of_numbers": (one("conv", inbound_nodes=[3]), "call"),
    "calls_deep": (lambda c: one("conv", inbound_nodes=[{"args": [eval("[" * 60 + "]" * 60)], "kwargs": {}}])(c), "nested"),  # noqa: S307
    "unknown_call_argument": (
        lambda c: next(x for x in c["config"]["layers"] if x["config"]["name"] == "conv")["inbound_nodes"][0]["kwargs"].update(evil=1),
        "evil",
    ),
    "training": (
        lambda c: next(x for x in c["config"]["layers"] if x["config"]["name"] == "conv")["inbound_nodes"][0]["kwargs"].update(training=True),
        "training",
    ),
    "outputs_unknown": (top(output_layers=[["nothing", 0, 0]]), "nothing"),
    "outputs_missing": (top(output_layers=[]), "output_layers"),
    "outputs_text": (top(output_layers="dense"), "output_layers"),
    "index_past_the_table": (lay("table", input_dim=5), "shape"),
    "kernel_size_zero": (lay("conv", kernel_size=[0]), "kernel_size"),
    "kernel_size_huge": (lay("conv", kernel_size=[1 << 40]), "kernel_size"),
    "groups_do_not_divide": (lay("conv", groups=3), "groups"),
    "padding_unknown": (lay("conv", padding="evil"), "padding"),
    "strides_of_two_axes": (lay("conv", strides=[1, 1]), "strides"),
    "merged_shapes_differ": (lay("conv", filters=3), "shape|weight"),
    "flattened_steps_open": (lay("ids", batch_shape=[None, None]), "fixed size"),
    "steps_of_another_number": (lay("ids", batch_shape=[None, 8]), "shape|weight"),
}
BROKEN = {"not_json": "{", "json_number": "3", "json_nested": "[" * 100000, "json_empty": "", "json_list": "[]", "json_huge": '"' + "x" * (5 << 20) + '"', "json_of_spaces": " " * (5 << 20)}  # fmt: skip


def weights(change, name="sequential"):
    """HDF5 of a .keras file edited."""
    return lambda: keras_zip(name, edit=change)


def replaced(path, content=None, **options):
    """Another array, or none, in the place of one."""

    def change(file):
        del file[path]
        if content is not None or options:
            file.create_dataset(path, data=content, **options)

    return change


def linked(kind):
    """A link to elsewhere."""
    import h5py

    def change(file):
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = {
            "soft": lambda: h5py.SoftLink("/layers/dense/vars/1"),
            "external": lambda: h5py.ExternalLink("/etc/passwd", "/x"),
            "hard": lambda: file["layers/dense/vars/1"],
            "circle": lambda: file["layers"],
        }[kind]()

    return change


def external(file):
    """Bytes in another file."""
    del file["layers/dense/vars/0"]
    file.create_dataset("layers/dense/vars/0", shape=(4, 2), dtype="f4", external=[("/etc/passwd", 0, 32)])


def virtual(file):
    """A view of other files."""
    import h5py

    del file["layers/dense/vars/0"]
    layout = h5py.VirtualLayout((4, 2), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4, 2), "f4")
    file.create_virtual_dataset("layers/dense/vars/0", layout)


D = "layers/dense/vars/0"
TREES = {
    "soft_link": (linked("soft"), "links"), "external_link": (linked("external"), "links"), "hard_link": (linked("hard"), "two names"), "circle": (linked("circle"), "two names"),
    "external_array": (external, "another file"), "virtual_array": (virtual, "version|chunks"),
    "gzip": (replaced(D, array((4, 2), 1), compression="gzip"), "compressed"), "chunks": (replaced(D, array((4, 2), 1), chunks=(2, 2)), "chunks"),
    "float64": (replaced(D, array((4, 2), 1).astype("f8")), "float32"), "float16": (replaced(D, array((4, 2), 1).astype("f2")), "float32"),
    "integers": (replaced(D, np.ones((4, 2), "i4")), "float32"), "complex": (replaced(D, np.ones((4, 2), "c8")), "numbers"), "text": (replaced(D, np.array([b"evil"])), "numbers"),
    "compound": (replaced(D, np.zeros(2, [("a", "f4"), ("b", "i4")])), "numbers"), "transposed": (replaced(D, array((2, 4), 1)), "shape"), "vector": (replaced(D, array((8,), 1)), "shape"),
    "empty": (replaced(D, array((0, 2), 1)), "shape"), "missing": (replaced(D), "not in the file"), "group_instead": (lambda f: (replaced(D)(f), f.create_group(D)), "not in the file"),
    "one_more": (lambda f: f.create_dataset("layers/dense/vars/2", data=array((2,), 1)), "3 weights"), "layer_missing": (replaced("layers/dense"), "dense"),
    "name_of_another": (lambda f: f["layers/dense/vars"].attrs.__setitem__("name", "other"), "'other'"), "no_layers": (replaced("layers"), "not in the file"),
    "gaps_of_a_terabyte": (replaced(D, None, shape=(1 << 38, 1), dtype="f4"), "chunks|outside|bytes|shape"),
}  # fmt: skip


def patched(data: bytes, mark: bytes, offset: int, content: bytes, which: int = 0) -> bytes:
    """Bytes written behind a mark."""
    at = -1
    for _ in range(which + 1):
        at = data.index(mark, at + 1)
    return data[: at + offset] + content + data[at + offset + len(content) :]


Q = struct.Struct("<Q").pack
STRUCTURES = {  # of an .h5 file's bytes
    "signature": (b"\x89HDF", 0, b"\x89HDG"), "superblock_version": (b"\x89HDF", 8, b"\2"), "superblock_version_99": (b"\x89HDF", 8, b"\x63"), "offsets_of_4": (b"\x89HDF", 13, b"\4"),
    "base_elsewhere": (b"\x89HDF", 24, Q(512)), "end_past_the_file": (b"\x89HDF", 40, Q(HUGE)), "root_outside": (b"\x89HDF", 64, Q(HUGE)), "root_undefined": (b"\x89HDF", 64, b"\xff" * 8),
    "root_is_the_start": (b"\x89HDF", 64, Q(0)), "tree_kind": (b"TREE", 4, b"\1"), "tree_level": (b"TREE", 5, b"\1"), "tree_count": (b"TREE", 6, b"\xff\xff"),
    "tree_child_outside": (b"TREE", 32, Q(HUGE)), "tree_child_itself": (b"TREE", 32, b"\0" * 8), "tree_mark": (b"TREE", 0, b"TREF"), "table_mark": (b"SNOD", 0, b"SNOE"),
    "table_count": (b"SNOD", 6, b"\xff\xff"), "table_version": (b"SNOD", 4, b"\7"), "table_header_outside": (b"SNOD", 16, Q(HUGE)), "table_name_outside": (b"SNOD", 8, Q(HUGE)),
    "table_soft_link": (b"SNOD", 24, b"\2"), "table_unknown_entry": (b"SNOD", 24, b"\7"), "names_mark": (b"HEAP", 0, b"HEAQ"), "names_size": (b"HEAP", 8, Q(HUGE)), "names_outside": (b"HEAP", 24, Q(HUGE)),
    "names_version": (b"HEAP", 4, b"\3"), "heap_mark": (b"GCOL", 0, b"GCOM"), "heap_size": (b"GCOL", 8, Q(HUGE)), "heap_entry": (b"GCOL", 24, Q(HUGE)), "heap_empty": (b"GCOL", 16, b"\0\0"),
}  # fmt: skip


def _cases():
    for form, make, suffix in (("keras", keras_zip, ".keras"), ("h5", keras_h5, ".h5")):
        for net, cases in (("sequential", SEQUENTIAL), ("functional", FUNCTIONAL)):
            for name, (change, message) in cases.items():
                yield file_case(f"{form}_{name}", suffix, lambda make=make, net=net, change=change: make(net, change), message, "model")
        for name, text in BROKEN.items():
            yield file_case(
                f"{form}_{name}",
                suffix,
                lambda make=make, text=text: make("sequential", lambda c: text),
                "JSON|characters|bytes|no Keras model",
                "model",
            )
    for name, (change, message) in TREES.items():
        yield file_case(f"keras_hdf5_{name}", ".keras", weights(change), message, "model")
    for name, (mark, offset, content) in STRUCTURES.items():
        yield file_case(
            f"h5_structure_{name}", ".h5", lambda m=mark, o=offset, c=content: patched(keras_h5(), m, o, c), "HDF5|damaged|Keras", "model"
        )
        if mark != b"GCOL":  # .keras holds its config elsewhere
            yield file_case(
                f"keras_structure_{name}",
                ".keras",
                lambda m=mark, o=offset, c=content: keras_zip(weights=patched(weights_h5("sequential"), m, o, c)),
                "HDF5|damaged",
                "model",
            )
    for name, entries, message in (
        ("without_a_config", {"config.json": None}, "config.json"),
        ("without_weights", {"model.weights.h5": None}, "model.weights.h5"),
        ("metadata_is_a_list", {"metadata.json": b"[]"}, "metadata"),
        ("version_is_text", {"metadata.json": b'{"keras_version": "new"}'}, "version"),
        ("leads_outside", {"../x": b""}, "outside"),
        ("weights_are_a_pickle", {"model.weights.h5": b"\x80\4cos\nsystem\n."}, "HDF5"),
        ("weights_are_empty", {"model.weights.h5": b""}, "HDF5"),
        ("config_is_no_text", {"config.json": b"\xff\xfe\0"}, "JSON"),
    ):
        yield file_case(f"keras_{name}", ".keras", lambda entries=entries: keras_zip(entries=entries), message, "model")
    yield file_case("keras_bomb", ".keras", _bomb, "claims|bytes", "model")
    yield file_case("keras_is_text", ".keras", lambda: b"hello", "neither", "model")
    yield file_case("h5_is_empty", ".h5", lambda: b"", "neither", "model")
    yield file_case("h5_is_torch", ".h5", lambda: keras_zip(entries={"config.json": None, "data.pkl": b"\x80\2."}), "config.json", "model")


def _bomb() -> bytes:
    """A gigabyte of zeros in a megabyte."""
    import io
    import zipfile

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
        with archive.open("model.weights.h5", "w") as entry:
            for _ in range(64):
                entry.write(bytes(1 << 20))
    return data.getvalue()


CORPUS = list(_cases())
