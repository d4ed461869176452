"""The extension table; everything else is in pyproject.toml."""

import os
import platform
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

# ISA: processor family, macro, flags. The baseline promises bits, not speed.
ISAS = {
    "avx512": ("x86", "FR_AVX512", ["-O3", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"]),
    "avx2": ("x86", "FR_AVX2", ["-O3", "-mavx2", "-mfma"]),
    "neon": ("arm", "FR_NEON", ["-O3"]),
    "baseline": ("any", "FR_BASELINE", ["-O2"]),
}
FAMILY = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}.get(platform.machine().lower(), "other")


def extension(folder, name, flags, macros=()):
    """One module from folder/name.pyx."""
    return Extension(f"{folder.replace('/', '.')}.{name}", [f"{folder}/{name}.pyx"], include_dirs=[folder, RUNTIME, NATIVE, np.get_include()], depends=HEADERS,
                     define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *macros], extra_compile_args=[*COMMON, *flags, *SANITIZE],
                     extra_link_args=SANITIZE)


here = [(f"_{isa}", flags, [(macro, None)]) for isa, (family, macro, flags) in ISAS.items() if family in ("any", FAMILY)]
extensions = [extension(NATIVE, *one) for one in here]
extensions += [extension(TRAINING, name, [*flags, "-ffp-contract=fast", "-Wno-psabi"], macros) for name, flags, macros in here]
extensions += [extension(NATIVE, "_cpu", ["-O2"]), extension(NATIVE, "_invoke", ["-O2"]), extension(RUNTIME, "_executor", ["-O3"]), extension(RUNTIME, "_stream", ["-O3"]),
               extension(POOLS, "_pool", ["-O3"])]
setup(ext_modules=cythonize(extensions, compiler_directives={"language_level": 3}), options={"build_ext": {"parallel": os.cpu_count()}})
