"""The extension table, and what compilers need said differently; everything else is in pyproject.toml."""

import os
import platform
import runpy
import subprocess
import sys
import sysconfig
from glob import glob

if sys.platform == "darwin" and sysconfig.get_platform().endswith(
    "universal2"
):  # one processor a build: the sets of the other's instructions are no flags of its compiler
    os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")
    os.environ.setdefault("_PYTHON_HOST_PLATFORM", f"macosx-11.0-{platform.machine()}")

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE, JIT, TRAINING = "fastrnn/kernels/native", "fastrnn/kernels/jit", "fastrnn/training/native"
EXECUTOR, STREAMS, POOLS = (f"fastrnn/runtime/{name}" for name in ("executor", "streams", "pools"))
INCLUDED = [NATIVE, *(f"{NATIVE}/{name}" for name in ("vectors", "products", "cells", "arrays"))]
HEADERS = sorted(
    path for folder in (*INCLUDED, JIT, EXECUTOR, STREAMS, POOLS, TRAINING) for ending in ("h", "pxi", "pxd") for path in glob(f"{folder}/*.{ending}")
)
# What of GCC's -O3 makes kernels faster: the rest of it takes a quarter longer to compile, for code a fifth larger and no faster.
LEAN = ["-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fipa-cp-clone", "-fpeel-loops", "-funswitch-loops"]
# -ffp-contract=off: GCC would fuse a product and a sum on its own, and the bits of the backends would part ways.
COMMON = ["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-g0", "-Wall", "-Wno-unused-function"]
SANITIZE = (
    ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"]
    if os.environ.get("FASTRNN_SANITIZE")
    else []
)

TABLE = runpy.run_path("fastrnn/kernels/isas.py")  # the package itself cannot be imported before it is built
MACHINE = sysconfig.get_platform().rsplit("-", 1)[-1].lower()  # that is built for, where _PYTHON_HOST_PLATFORM says so
FAMILY = next((family for family, names in TABLE["MACHINES"].items() if MACHINE in names), "other")


class Build(build_ext):
    """Where the compiler is GCC, with the part of -O3 that pays. On Windows with clang-cl, which comes with Visual Studio: the headers have vectors and assembly in the words of
    GCC and Clang, which cl does not know."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            self.compiler.initialize()
            self.compiler.cc = "clang-cl"
            for one in self.extensions:
                one.extra_compile_args = [f"/clang:{flag}" for flag in one.extra_compile_args if flag != "-fvisibility=hidden"]
        elif b"Free Software Foundation" in subprocess.run([*self.compiler.compiler_so, "--version"], check=True, capture_output=True).stdout:
            for one in self.extensions:
                one.extra_compile_args = [each for flag in one.extra_compile_args for each in (LEAN if flag == "-O3" else [flag])]
        super().build_extensions()


def extension(folder, name, flags, macros=()):
    """One module from folder/name.pyx."""
    return Extension(
        f"{folder.replace('/', '.')}.{name}",
        [f"{folder}/{name}.pyx"],
        include_dirs=[folder, EXECUTOR, *INCLUDED, np.get_include()],
        depends=HEADERS,
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *macros],
        extra_compile_args=[*COMMON, *flags, *SANITIZE],
        extra_link_args=SANITIZE,
    )


here = [(f"_{name}", isa.flags, [(isa.macro, None)]) for name, isa in TABLE["ISAS"].items() if isa.family in ("any", FAMILY)]
extensions = [extension(NATIVE, *one) for one in here]
extensions += [extension(TRAINING, name, [*flags, "-ffp-contract=fast", "-Wno-psabi"], macros) for name, flags, macros in here]
extensions += [
    extension(NATIVE, "_cpu", ["-O2"]),
    extension(NATIVE, "_invoke", ["-O2"]),
    extension(JIT, "_driver", ["-O2"]),
    extension(EXECUTOR, "_executor", ["-O3"]),
    extension(STREAMS, "_stream", ["-O3"]),
    extension(POOLS, "_pool", ["-O3"]),
]
setup(
    ext_modules=cythonize(extensions, compiler_directives={"language_level": 3, "auto_pickle": False}),
    options={"build_ext": {"parallel": os.cpu_count()}},
    cmdclass={"build_ext": Build},
)
