"""From other people's files and modules to fastrnn: installed as fastrnn.converters.

    state_dict.py   recurrent layers out of a state dict, by key pattern and shapes
    weights_file.py files of named arrays: .safetensors, .npz, and
    checkpoint.py   torch's files, read without running what is in them: pickled.py walks a pickle, archive.py checks a zip
    pytorch.py      torch modules -> Model; those made of known layers without an example
    torch_export/   modules and programs by way of torch.export
    onnx_import/    ONNX files -> Model
    torch_script/   TorchScript archives -> modules
    keras_import/   Keras files and models -> Model
    tflite_import/  TensorFlow Lite's files -> Model
    foreign.py      ops that only the onnx package has a meaning for
    load.py         a file -> Model, by its suffix
    verify.py       a Model against its source's own engine; samples.py: random inputs that it may have
    engines/        those engines behind one interface

Gate orders come from fastrnn.cells.gate_order alone.
"""

from fastrnn.converters import foreign  # noqa: F401  (gives such ops theirs)
from fastrnn.converters.keras_import import from_keras
from fastrnn.converters.load import load
from fastrnn.converters.onnx_import import from_onnx
from fastrnn.converters.pytorch import from_torch
from fastrnn.converters.state_dict import from_state_dict

__all__ = ["from_keras", "from_onnx", "from_state_dict", "from_torch", "load"]
