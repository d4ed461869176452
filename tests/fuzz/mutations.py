"""Mutations of files: bytes, protobuf fields, JSON, zip entries, pickles and .npy headers. Each takes a NumPy Generator, and repeats with its seed."""

import io
import json
import pickletools
import struct
import warnings
import zipfile

from google.protobuf.descriptor import FieldDescriptor

NUMBERS = (0, 1, -1, 2, 3, 7, 8, 9, 127, 255, 1 << 16, 1 << 20, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63), -2)
TEXTS = ("", "x", "y", "a" * 300, "../x", "\0", "é", "weight_ih_l0", "weight_hh_l0_reverse", "?", "None")
REALS = (0.0, -1.0, 0.5, 1e30, -1e38, float("inf"), float("-inf"), float("nan"))
PLAIN = (None, True, False, 0, -1, 1 << 40, 1 << 70, 1e308, "", "x", [], {}, [[]], [0], ["x"], {"x": 1})


def one(random, items):
    """One of a sequence."""
    return items[int(random.integers(len(items)))]


def near(random, number: int) -> int:
    """A number beside the given one, or one of the usual traps."""
    return number + int(random.integers(-3, 4)) if random.random() < 0.4 else one(random, NUMBERS)


def damage_bytes(random, data: bytes) -> bytes:
    """Bytes overwritten, cut, doubled or put in."""
    data = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(len(data) + 1)) if random.random() < 0.5 else int(random.integers(min(len(data), 400) + 1))
        some = random.bytes(int(random.integers(1, 9)))
        match int(random.integers(6)):
            case 0:
                data[at : at + len(some)] = some
            case 1:
                del data[at : at + int(random.integers(1, 200))]
            case 2:
                data[at:at] = some
            case 3:
                del data[at:]
            case 4:
                data[at:at] = data[at : at + int(random.integers(1, 64))]
            case _:
                if at < len(data):
                    data[at] ^= 1 << int(random.integers(8))
    return bytes(data)


def damage_json(random, value, depth: int = 0):
    """One place of a JSON value changed; the value is altered where it can be."""
    if isinstance(value, (dict, list)) and value and (depth < 2 or random.random() < 0.9):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = one(random, keys)
        match int(random.integers(10)):
            case 0:
                del value[key]
            case 1 if isinstance(value, list):
                value.insert(key, json.loads(json.dumps(one(random, value))))
            case 1:
                value[one(random, [*keys, *TEXTS])] = value[key]
            case 2:
                value[key] = json.loads(json.dumps(value[one(random, keys)]))
            case _:
                value[key] = damage_json(random, value[key], depth + 1)
        return value
    if isinstance(value, bool) or value is None or random.random() < 0.3:
        return one(random, PLAIN)
    if isinstance(value, int):
        return near(random, value)
    if isinstance(value, float):
        return one(random, REALS)
    return one(random, (value + "x", value[:-1], *TEXTS)) if isinstance(value, str) else one(random, PLAIN)


def damage_message(random, message) -> None:
    """One field somewhere in a protobuf message changed, of the kind that it is."""
    while True:
        fields = message.ListFields()
        if not fields or random.random() < 0.1:
            field = one(random, message.DESCRIPTOR.fields)
        else:
            field = one(random, fields)[0]
        inner = field.type == FieldDescriptor.TYPE_MESSAGE
        repeated = field.is_repeated if isinstance(getattr(field, "is_repeated", None), bool) else field.label == FieldDescriptor.LABEL_REPEATED
        target = getattr(message, field.name)
        items = [*target] if repeated else [target]
        if inner and items and random.random() < 0.85:
            message = one(random, items)
            continue
        break
    if repeated:
        _damage_repeated(random, message, field, target, inner)
    elif inner or random.random() < 0.15:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _other(random, field, target))


def _damage_repeated(random, message, field, target, inner) -> None:
    match int(random.integers(5)):
        case 0 if len(target):
            del target[int(random.integers(len(target)))]
        case 1 if len(target):
            target.append(one(random, [*target]))
        case 2 if len(target):
            at, by = int(random.integers(len(target))), int(random.integers(len(target)))
            if inner:
                target[at].CopyFrom(target[by])
            else:
                target[at] = target[by]
        case 3:
            message.ClearField(field.name)
        case _:
            if inner:
                target.add()
            elif len(target) and random.random() < 0.7:
                at = int(random.integers(len(target)))
                target[at] = _other(random, field, target[at])
            else:
                target.append(_other(random, field, None))


def _other(random, field, value):
    """Another value of a scalar field."""
    kind = field.cpp_type
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return one(random, REALS)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return one(random, [v.number for v in field.enum_type.values])
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return damage_bytes(random, value or b"")
        return one(random, (*TEXTS, (value or "") + "x", (value or "")[:-1]))
    number = near(random, int(value or 0))
    bits = 31 if kind == FieldDescriptor.CPPTYPE_INT32 else 63
    low, high = (-(1 << bits), (1 << bits) - 1) if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64) else (0, (1 << 32) - 1)
    return min(max(number, low), high)


def damage_zip(random, data: bytes, inside) -> bytes:
    """A zip archive written again with an entry changed, left out, doubled, renamed or compressed; inside(name, content) -> content."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    k = int(random.integers(len(entries)))
    name, content = entries[k]
    how = int(random.integers(8))
    if how == 0:
        del entries[k]
    elif how == 1:
        entries.append(entries[k])
    elif how == 2:
        entries[k] = (one(random, (f"../{name}", f"/{name}", name.upper(), name + ".pkl", entries[0][0], "archive/code/x.py", "x" * 300)), content)
    elif how == 3:
        entries[k] = (name, one(random, (b"", bytes(1 << 20), content[:-1], content + b"\0" * 9, content * 2)))
    else:
        entries[k] = (name, inside(name, content))
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if random.random() < 0.1 else zipfile.ZIP_STORED) as archive:
        warnings.simplefilter("ignore")  # of names that stand twice
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, archive.compression)  # with no time in it, so that a seed repeats
    data = out.getvalue()
    if random.random() < 0.15:  # the directory, which every reader believes
        at = int(random.integers(max(0, len(data) - 600), len(data)))
        data = data[:at] + random.bytes(int(random.integers(1, 5))) + data[at + 4 :]
    return data


def damage_pickle(random, data: bytes) -> bytes:
    """An opcode of a pickle left out, doubled, moved or given another argument."""
    try:
        starts = [at for _, _, at in pickletools.genops(data)]
    except Exception:  # noqa: BLE001  (it was damaged before)
        return damage_bytes(random, data)
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)])]
    for _ in range(int(random.integers(1, 4))):
        k = int(random.integers(len(pieces)))
        match int(random.integers(6)):
            case 0:
                del pieces[k]
            case 1:
                pieces.insert(k, one(random, pieces))
            case 2:
                pieces[k] = one(random, pieces)
            case 3:
                pieces[k] = b"J" + struct.pack("<i", int(random.integers(-5, 1 << 31)))
            case 4:
                pieces[k] = one(
                    random,
                    (
                        b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
                        b"}",
                        b"]",
                        b")",
                        b"(",
                        b"0",
                        b"2",
                        b"R",
                        b"b",
                        b"Q",
                        b"N",
                        b"\x81",
                        b"\x85",
                        b"\x88",
                        b"cposix\nsystem\n",
                        b"cbuiltins\nbytearray\n",
                        b"ctorch\nFloatStorage\n",
                        b"ctorch\nSize\n",
                        b"c__builtin__\nset\n",
                    ),
                )
            case _:
                if len(pieces[k]) > 1:
                    at = int(random.integers(1, len(pieces[k])))
                    pieces[k] = pieces[k][:at] + random.bytes(1) + pieces[k][at + 1 :]
        if not pieces:
            break
    return b"".join(pieces)


def damage_npy(random, data: bytes) -> bytes:
    """The header's literal of a .npy array changed, its length kept right."""
    if data[:6] != b"\x93NUMPY" or random.random() < 0.2:
        return damage_bytes(random, data)
    length = struct.unpack("<H", data[8:10])[0]
    header = data[10 : 10 + length].decode("latin1")
    old, new = one(
        random,
        (
            ("<f4", "|O"),
            ("<f4", ">f4"),
            ("<f4", "<f8"),
            ("<f4", "<f2"),
            ("<f4", "|V4"),
            ("<f4", "<i4"),
            ("'<f4'", "[('a','<f4')]"),
            ("False", "True"),
            ("(", "(1, "),
            ("(", "(-1, "),
            ("(", "(9223372036854775807, "),
            ("(", "(4611686018427387904, 4, "),
            ("shape", "shap"),
            ("}", ""),
            ("}", "+1}"),
            ("(", "(" * 150),
            ("False", "9" * 4000),
            ("descr", "\0"),
        ),
    )
    header = header.replace(old, new, 1).encode("latin1")
    return data[:8] + struct.pack("<H", len(header)) + header + data[10 + length :]
