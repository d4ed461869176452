"""The extension table; everything else is in pyproject.toml."""

import os
import platform
import runpy
from glob import glob

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

NATIVE, RUNTIME, POOLS, TRAINING = "fastrnn/kernels/native", "fastrnn/runtime", "fastrnn/runtime/pools", "fastrnn/training/native"
HEADERS = sorted([*glob(f"{NATIVE}/*.h"), *glob(f"{NATIVE}/*.pxi"), *glob(f"{NATIVE}/*.pxd"), *glob(f"{RUNTIME}/*.h"), *glob(f"{RUNTIME}/*.pxd"), *glob(f"{RUNTIME}/*.pxi"), *glob(f"{POOLS}/*.pxi"), *glob(f"{POOLS}/*.pxd"),
                  *glob(f"{TRAINING}/*.h"), *glob(f"{TRAINING}/*.pxi")])
# -ffp-contract=off: GCC would fuse a product and a sum on its own, and the bits of the backends would part ways.
COMMON = ["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-g0", "-Wall", "-Wno-unused-function"]
SANITIZE = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"] if os.environ.get("FASTRNN_SANITIZE") else []

TABLE = runpy.run_path("fastrnn/kernels/isas.py")  # the package itself cannot be imported before it is built
FAMILY = next((family for family, names in TABLE["MACHINES"].items() if platform.machine().lower() in names), "other")


def extension(folder, name, flags, macros=()):
    """One module from folder/name.pyx."""
    return Extension(f"{folder.replace('/', '.')}.{name}", [f"{folder}/{name}.pyx"], include_dirs=[folder, RUNTIME, NATIVE, np.get_include()], depends=HEADERS,
                     define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *macros], extra_compile_args=[*COMMON, *flags, *SANITIZE],
                     extra_link_args=SANITIZE)


here = [(f"_{name}", isa.flags, [(isa.macro, None)]) for name, isa in TABLE["ISAS"].items() if isa.family in ("any", FAMILY)]
extensions = [extension(NATIVE, *one) for one in here]
extensions += [extension(TRAINING, name, [*flags, "-ffp-contract=fast", "-Wno-psabi"], macros) for name, flags, macros in here]
extensions += [extension(NATIVE, "_cpu", ["-O2"]), extension(NATIVE, "_invoke", ["-O2"]), extension(RUNTIME, "_executor", ["-O3"]), extension(RUNTIME, "_stream", ["-O3"]),
               extension(POOLS, "_pool", ["-O3"])]
setup(ext_modules=cythonize(extensions, compiler_directives={"language_level": 3}), options={"build_ext": {"parallel": os.cpu_count()}})
