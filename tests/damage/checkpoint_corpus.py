"""Damaged and hostile torch checkpoints: archives, pickles that claim or would run something, other programs' files."""

import io
import os
import pickle
import pickletools
import struct
import tarfile
import zipfile
from functools import cache

import numpy as np
import torch
from case import file_case
from files_corpus import zipped
from loaders import checkpoint_seeds, program_seeds

BIG = 1 << 40


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Array:
    """Pickled as a NumPy array whose parts are these."""

    def __init__(self, shape, dtype, data, kind=np.ndarray):
        self.kind, self.state = kind, (1, shape, dtype, False, data)

    def __reduce__(self):
        return np._core.multiarray._reconstruct, (self.kind, (0,), b"b"), self.state


class Data:
    """Pickled as a storage outside the pickle."""

    def __init__(self, kind=torch.FloatStorage, key="0", numel=12, tag="storage"):
        self.id = (tag, kind, key, "cpu", numel)


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.id if isinstance(value, Data) else None


def pickled(value, protocol=2) -> bytes:
    """A pickle with its storages outside."""
    file = io.BytesIO()
    _Pickler(file, protocol).dump(value)
    return file.getvalue()


def tensor(storage=None, offset=0, size=(12,), stride=(1,)) -> Call:
    """A tensor as torch.save writes it."""
    return Call(torch._utils._rebuild_tensor_v2, storage or Data(), offset, size, stride, False, {})


def archive(value, data=bytes(48), more=(), protocol=2) -> bytes:
    """A checkpoint around a pickle, or around its bytes."""
    content = value if isinstance(value, bytes) else pickled(value, protocol)
    return zipped([("archive/data.pkl", content), ("archive/byteorder", b"little"), ("archive/data/0", data), ("archive/version", b"3\n"), *more])


def legacy(value, data=None, magic=0x1950A86A20F9469CFC6C, keys=("0",)) -> bytes:
    """The same in the older format."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    storage = struct.pack("<q", 12) + bytes(48) if data is None else data
    return b"".join(pickle.dumps(a, 2) for a in (magic, 1001, system)) + pickled_legacy(value) + pickle.dumps(list(keys), 2) + storage


def pickled_legacy(value) -> bytes:
    """Older storages carry a view, None here."""
    file = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return (*value.id, None) if isinstance(value, Data) else None

    Pickler(file, 2).dump(value)
    return file.getvalue()


def state(**changes) -> dict:
    """Parameters of an RNN cell of 3 inputs and 4 units... of which some are replaced."""
    return {"weight_ih": tensor(size=(4, 3), stride=(3, 1)), **changes}


@cache
def entries(name="plain") -> tuple[tuple[str, bytes], ...]:
    """Of a good checkpoint."""
    with zipfile.ZipFile(io.BytesIO(checkpoint_seeds()[name])) as whole:
        return tuple((entry, whole.read(entry)) for entry in whole.namelist())


def without(part: str) -> bytes:
    """A good checkpoint less the entries that hold this text."""
    return zipped([(name, content) for name, content in entries() if part not in name])


def instead(part: str, change) -> bytes:
    """A good checkpoint with an entry changed."""
    return zipped([(name, change(content) if name.endswith(part) else content) for name, content in entries()])


def opcodes(*parts: bytes) -> bytes:
    """A pickle by hand."""
    return b"\x80\x02" + b"".join(parts) + b"."


def tar() -> bytes:
    """The oldest format, from before 0.1.10."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as whole:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(0, 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            whole.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def scripted() -> bytes:
    """A TorchScript archive."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), torch.zeros(1, 2)), file)
    return file.getvalue()


def saved(value, **options) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


RUNS = "not.*unpickled.*state_dict"
FITS = "does not fit its storage"
CASES = {
    **{
        f"calls_{name}_{kind}": (lambda call=call, make=make: make({"weight_ih_l0": call}), RUNS)
        for name, call in {
            "system": Call(os.system, "true"),
            "mkdir": Call(os.mkdir, "sprung"),
            "eval": Call(eval, "1"),
            "getattr": Call(getattr, 1, "real"),
            "bytearray": Call(bytearray, BIG),
            "zeros": Call(torch.zeros, BIG),
            "load": Call(torch.load, "x"),
            "storage": Call(torch.FloatStorage, 5),
            "hub": Call(torch.hub.load, "x", "y"),
            "import": Call(__import__, "os"),
        }.items()
        for kind, make in (("zip", archive), ("legacy", legacy), ("raw", pickled))
    },
    "whole_module": (lambda: saved(torch.nn.LSTM(2, 3)), RUNS),
    "whole_module_legacy": (lambda: saved(torch.nn.LSTM(2, 3), _use_new_zipfile_serialization=False), RUNS),
    "numpy_objects": (lambda: saved({"a": np.array([None], object)}), "something other than numbers"),
    "numpy_text": (lambda: saved({"a": np.array(["a"])}), "something other than numbers"),
    "numpy_fields": (lambda: saved({"a": np.zeros(2, [("x", "f4")])}), "no plain number|something other than numbers"),
    "numpy_array_of_another_size": (lambda: archive({"a": Array((BIG,), np.dtype("f4"), b"1234")}), "does not fit its bytes"),
    "numpy_array_of_its_own_class": (lambda: archive({"a": Array((1,), np.dtype("f4"), b"1234", np.matrix)}), RUNS),
    "numpy_scalar_of_an_array": (
        lambda: archive({"a": Call(np._core.multiarray.scalar, np.dtype("f4"), b"12345678")}),
        "something other than numbers",
    ),
    "bytes_by_a_call": (lambda: archive({"a": Call(bytes, BIG)}), "bytes that are made by a call"),
    "numpy_function": (lambda: archive({"a": Call(np.load, "x", None, True)}), RUNS),
    "quantised_tensor": (lambda: saved({"w": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)}), "qtensor"),
    "sparse_tensor": (lambda: saved({"w": torch.eye(3).to_sparse()}), "_rebuild_sparse_tensor"),
    "meta_tensor": (lambda: saved({"w": torch.empty(3, device="meta")}), "_meta_"),
    "torchscript": (scripted, r"TorchScript.*torch\.jit\.load.*state_dict"),
    "torchscript_by_its_code": (lambda: archive(state(), more=[("archive/code/x.py", b"pass")]), "TorchScript"),
    "program": (lambda: program_seeds()["fixed"], "torch.export"),
    "tar": (tar, "tar archive.*state_dict"),
    "a_tensor": (lambda: saved(torch.zeros(3)), "Tensor, not a state dict"),
    "a_number": (lambda: saved(3), "int, not a state dict"),
    "a_text": (lambda: saved("x"), "str, not a state dict"),
    "nothing_recurrent": (lambda: saved({"w": torch.zeros(3)}), "no recurrent layer"),
    "storage_larger_than_its_entry": (lambda: archive(state(weight_ih=tensor(Data(numel=BIG)))), "storage '0' claims"),
    "storage_one_too_large": (lambda: archive(state(weight_ih=tensor(Data(numel=13)))), "storage '0' claims"),
    "storage_missing": (lambda: archive(state(weight_ih=tensor(Data(key="7")))), "storage '7' claims"),
    "storage_of_two_sizes": (lambda: archive(state(a=tensor(), b=tensor(Data(numel=6), size=(6,)))), "two sizes"),
    "storage_of_a_negative_size": (lambda: archive(state(weight_ih=tensor(Data(numel=-1)))), "size"),
    "storage_of_2_to_the_63": (lambda: archive(state(weight_ih=tensor(Data(numel=1 << 63)))), "size"),
    "storage_of_another_tag": (lambda: archive(state(weight_ih=tensor(Data(tag="module")))), "storage"),
    "storage_of_an_unknown_kind": (lambda: archive(state(weight_ih=tensor(Data(kind=torch.nn.LSTM)))), RUNS),
    "storage_key_outside": (lambda: archive(state(weight_ih=tensor(Data(key="../0")))), "storage '../0'"),
    "storage_key_of_a_number": (lambda: archive(state(weight_ih=tensor(Data(key=0)))), "without a key"),
    "storage_larger_than_a_legacy_file": (lambda: legacy(state(weight_ih=tensor(Data(numel=BIG), size=(BIG,)))), "claim"),
    "storages_of_a_truncated_legacy_file": (lambda: checkpoint_seeds()["legacy"][:-1], "truncated|claim|torch cannot read"),
    "legacy_storage_of_another_size": (lambda: legacy(state(), data=struct.pack("<q", 1 << 50) + bytes(48)), "torch cannot read"),
    "legacy_of_another_magic": (lambda: legacy(state(), magic=7), "not torch's"),
    "legacy_without_keys": (lambda: legacy(state(), keys=()), "no recurrent|torch cannot|missing"),
    "a_plain_pickle": (lambda: pickle.dumps({"weight_ih_l0": [1.0]}, 2), "not torch's"),
    "a_plain_pickle_of_protocol_5": (lambda: pickle.dumps({"weight_ih_l0": [1.0]}, 5), "not torch's"),
    "tensor_past_its_storage": (lambda: archive(state(weight_ih=tensor(size=(13,)))), FITS),
    "tensor_of_a_terabyte": (lambda: archive(state(weight_ih=tensor(size=(BIG,)))), FITS),
    "tensor_repeated_without_end": (lambda: archive(state(weight_ih=tensor(size=(4, BIG), stride=(0, 0)))), FITS),
    "tensor_of_sizes_that_overflow": (lambda: archive(state(weight_ih=tensor(size=(1 << 32, 1 << 32), stride=(0, 0)))), FITS),
    "tensor_offset_past_the_end": (lambda: archive(state(weight_ih=tensor(offset=1))), FITS),
    "tensor_offset_negative": (lambda: archive(state(weight_ih=tensor(offset=-1))), "tensor without"),
    "tensor_of_a_negative_size": (lambda: archive(state(weight_ih=tensor(size=(-4,)))), "tensor without"),
    "tensor_of_a_negative_stride": (lambda: archive(state(weight_ih=tensor(stride=(-1,)))), "tensor without"),
    "tensor_of_fewer_strides": (lambda: archive(state(weight_ih=tensor(size=(4, 3), stride=(3,)))), FITS),
    "tensor_of_1000_axes": (lambda: archive(state(weight_ih=tensor(size=(1,) * 1_000, stride=(1,) * 1_000))), "tensor without"),
    "tensor_of_true": (lambda: archive(state(weight_ih=tensor(size=(True,)))), "tensor without"),
    "tensor_of_no_storage": (lambda: archive(state(weight_ih=tensor(storage="x"))), "tensor without"),
    "tensor_of_sizes_in_a_list": (lambda: archive(state(weight_ih=tensor(size=[12]))), "tensor without|torch cannot"),
    "key_of_a_tuple": (lambda: archive({(1, 2): tensor()}), "key of a dict"),
    "key_nested_without_end": (lambda: archive(opcodes(b"}", b")", b"\x85" * 100_000, b"K\x01s")), "key of a dict"),
    "tuples_nested_without_end": (lambda: archive(opcodes(b"}X\x01\0\0\0a)", b"\x85" * 100_000, b"s")), "tuples nested more than 16"),
    "nested_lists_without_end": (lambda: archive(opcodes(b"}X\x01\0\0\0a", b"]" * 100_000, b"a" * 99_999, b"s")), "nested|no recurrent|torch cannot"),
    "a_list_in_itself": (lambda: archive(opcodes(b"]q\x00h\x00a")), "nested"),
    "a_dict_in_itself": (lambda: archive(opcodes(b"}q\x00X\x01\0\0\0ah\x00s")), "nested"),
    "dicts_shared_without_end": (
        lambda: archive(
            opcodes(
                b"}q\0",
                *(
                    b"}(" + b"".join(b"X\x01\0\0\0" + bytes([97 + k]) + b"h" + bytes([level]) for k in range(9)) + b"uq" + bytes([level + 1])
                    for level in range(14)
                ),
            )
        ),
        "more than|nested|entries",
    ),
    "stack_underflow": (lambda: archive(opcodes(b"0" * 9)), "pickle"),
    "no_stop": (lambda: archive(b"\x80\x02}"), "pickle"),
    "empty_pickle": (lambda: archive(b""), "pickle"),
    "unknown_opcode": (lambda: archive(opcodes(b"\xff")), "pickle"),
    "memo_of_nothing": (lambda: archive(opcodes(b"h\x09")), "pickle"),
    "text_past_the_end": (lambda: archive(opcodes(b"X\xff\xff\xff\x7fabc")), "pickle"),
    "text_of_2_to_the_63": (lambda: archive(opcodes(b"\x8d" + b"\xff" * 7 + b"\x7f")), "pickle"),
    "number_of_a_million_digits": (lambda: archive(opcodes(b"L" + b"9" * 1_000_000 + b"L\n")), "pickle"),
    "memo_index_huge": (lambda: archive(opcodes(b"}r\xff\xff\xff\xff")), "no recurrent|pickle"),
    "text_not_utf8": (lambda: archive(opcodes(b"X\x02\0\0\0\xff\xfe")), "pickle|str, not"),
    "extension": (lambda: archive(opcodes(b"\x82\x01")), RUNS),
    "new_object": (lambda: archive(opcodes(b"ccollections\nOrderedDict\n)\x81")), "object of collections.OrderedDict"),
    "state_for_a_dict": (lambda: archive(opcodes(b"}}b")), "state is given"),
    "call_of_a_number": (lambda: archive(opcodes(b"K\x01)R")), "no function|pickle"),
    "call_by_a_list": (lambda: archive(opcodes(b"ccollections\nOrderedDict\n]R")), "no function|pickle"),
    "persistent_id_of_text": (lambda: archive(opcodes(b"Pabc\n")), "storage|pickle"),
    "persistent_id_of_a_number": (lambda: archive(opcodes(b"K\x01Q")), "pickle|storage"),
    "rebuilt_from_type": (
        lambda: archive(
            state(
                weight_ih=Call(
                    torch._tensor._rebuild_from_type_v2, torch._utils._rebuild_tensor_v2, torch.Tensor, (Data(), 0, (BIG,), (1,), False, {}), {}
                )
            )
        ),
        FITS,
    ),
    "rebuilt_by_system": (lambda: archive(state(weight_ih=Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, ("true",), {}))), RUNS),
    "version_missing": (lambda: without("version"), "torch cannot read|no recurrent"),
    "pickle_missing": (lambda: without("data.pkl"), "data.pkl"),
    "pickle_twice": (lambda: zipped([*entries(), ("archive/x/data.pkl", b"")]), "data.pkl"),
    "two_archives_in_one": (lambda: zipped([*entries(), ("other/data.pkl", b"\x80\x02}.")]), "data.pkl"),
    "storage_entry_missing": (lambda: without("data/0"), "storage '0' claims"),
    "storage_entry_short": (lambda: instead("data/0", lambda c: c[:-1]), "storage '0' claims"),
    "pickle_cut": (lambda: instead("data.pkl", lambda c: c[:-20]), "pickle"),
    "pickle_of_another": (lambda: instead("data.pkl", lambda c: pickletools.optimize(pickle.dumps(3, 2))), "int, not a state dict"),
    "entry_twice": (lambda: zipped([*entries(), entries()[-1]]), "stands twice"),
    "entry_outside": (lambda: zipped([*entries(), ("archive/../../x", b"")]), "leads outside"),
    "pickle_compressed": (lambda: zipped(entries(), zipfile.ZIP_DEFLATED), "compressed"),
    "bomb": (lambda: bomb(), "compressed"),
    "comment": (lambda: checkpoint_seeds()["plain"][:-2] + b"\5\0hello", "zip archive"),
    "directory_cut": (lambda: checkpoint_seeds()["plain"][:-30], "zip archive"),
    "header_only": (lambda: b"PK\3\4", "zip archive"),
    "empty_file": (lambda: b"", "pickle|whole"),
    "zeros": (lambda: bytes(4096), "pickle"),
    "text_file": (lambda: b"hello world\n" * 9, "pickle"),
    "safetensors_by_another_name": (lambda: struct.pack("<Q", 2) + b"{}", "pickle"),
    "layer_missing": (
        lambda: saved({k.replace("_l1", "_l2"): v for k, v in torch.nn.LSTM(2, 3, 3).state_dict().items() if "_l2" not in k}),
        "nothing of layer 1",
    ),
    "wrong_hidden_size": (lambda: saved({**torch.nn.GRU(2, 3).state_dict(), "weight_ih_l0": torch.zeros(12, 2)}), "weight_ih_l0 must have shape"),
    "float64": (lambda: saved(torch.nn.GRU(2, 3).double().state_dict()), "weight_ih_l0 must be float32.*float64.*float"),
    "integers": (
        lambda: saved({**torch.nn.GRU(2, 3).state_dict(), "weight_ih_l0": torch.zeros(9, 2, dtype=torch.int32)}),
        "weight_ih_l0 must be float32.*int32",
    ),
    "one_storage_for_thousands_of_layers": (lambda: shared_storage(), "weights would take"),
}


@cache
def bomb() -> bytes:
    """A storage of zeros by the hundred megabytes, compressed to a thousandth."""
    return zipped(
        [
            ("archive/data.pkl", pickled(state(weight_ih=tensor(Data(numel=25 << 20))))),
            ("archive/data/0", bytes(100 << 20)),
            ("archive/version", b"3\n"),
        ],
        zipfile.ZIP_DEFLATED,
    )


@cache
def shared_storage() -> bytes:
    """Thousands of layers over the same quarter of a megabyte."""
    one = tensor(Data(numel=1 << 16), size=(256, 256), stride=(256, 1))
    return archive({f"m{k}.{name}": one for k in range(2_000) for name in ("weight_ih_l0", "weight_hh_l0")}, data=bytes(1 << 18))


CORPUS = [file_case(f"checkpoint_{name}", ".pt", make, message, "layers") for name, (make, message) in CASES.items()]
