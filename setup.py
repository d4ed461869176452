"""The extension table; everything else is in pyproject.toml."""

import os
import platform
import runpy
from glob import glob

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

NATIVE, TRAINING = "fastrnn/kernels/native", "fastrnn/training/native"
EXECUTOR, STREAMS, POOLS = (f"fastrnn/runtime/{name}" for name in ("executor", "streams", "pools"))
INCLUDED = [NATIVE, *(f"{NATIVE}/{name}" for name in ("vectors", "products", "cells", "arrays"))]
HEADERS = sorted(path for folder in (*INCLUDED, EXECUTOR, STREAMS, POOLS, TRAINING) for ending in ("h", "pxi", "pxd") for path in glob(f"{folder}/*.{ending}"))
# -ffp-contract=off: GCC would fuse a product and a sum on its own, and the bits of the backends would part ways.
COMMON = ["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-g0", "-Wall", "-Wno-unused-function"]
SANITIZE = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"] if os.environ.get("FASTRNN_SANITIZE") else []

TABLE = runpy.run_path("fastrnn/kernels/isas.py")  # the package itself cannot be imported before it is built
FAMILY = next((family for family, names in TABLE["MACHINES"].items() if platform.machine().lower() in names), "other")


def extension(folder, name, flags, macros=()):
    """One module from folder/name.pyx."""
    return Extension(f"{folder.replace('/', '.')}.{name}", [f"{folder}/{name}.pyx"], include_dirs=[folder, EXECUTOR, *INCLUDED, np.get_include()], depends=HEADERS,
                     define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *macros], extra_compile_args=[*COMMON, *flags, *SANITIZE],
                     extra_link_args=SANITIZE)


here = [(f"_{name}", isa.flags, [(isa.macro, None)]) for name, isa in TABLE["ISAS"].items() if isa.family in ("any", FAMILY)]
extensions = [extension(NATIVE, *one) for one in here]
extensions += [extension(TRAINING, name, [*flags, "-ffp-contract=fast", "-Wno-psabi"], macros) for name, flags, macros in here]
extensions += [extension(NATIVE, "_cpu", ["-O2"]), extension(NATIVE, "_invoke", ["-O2"]), extension(EXECUTOR, "_executor", ["-O3"]),
               extension(STREAMS, "_stream", ["-O3"]), extension(POOLS, "_pool", ["-O3"])]
setup(ext_modules=cythonize(extensions, compiler_directives={"language_level": 3}), options={"build_ext": {"parallel": os.cpu_count()}})
