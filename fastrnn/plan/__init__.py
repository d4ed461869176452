"""From a Model to something that runs: weights packed once, then a program for each region of sizes.

    Model --planner.py-->  Plan     constants folded, kernels chosen, weights packed; shared by threads
             graph/         a Model made into one that runs better: folded, rewritten, its layers recognised
             weights/       a node's weights in its kernel's layout
    Plan  --specialise.py-> Program (program.py): steps, their arguments, blocks of work space; sizes stay symbols (model/sizes.py)
             lowering/      the nodes of a specialised Model become steps
             emit/          one function an op: its node becomes kernel calls
    streams/      a model made steppable: hidden states exposed, time axes found, histories kept
    route.py      who runs a node and why: a jump, a view, a copy, a kernel, NumPy; asked by the planner, the builder and
    explain.py    what runs, as a table: of given shapes, the program's own kernels
    policy.py     which kernel: candidates, rank, pick; thresholds and their measurements
    work.py       what one call multiplies and reads, for the roofline

Each folder's __init__ names its modules. To compile an op: a kernel in kernels/native and a function in emit/. To spare it the work: lowering/views.py.
"""

from fastrnn.plan.lowering.build import build_program
from fastrnn.plan.planner import Plan, compile_plan
from fastrnn.plan.program import Program

__all__ = ["Plan", "Program", "build_program", "compile_plan"]
