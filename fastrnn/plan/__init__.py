"""From a Model to something that runs: weights packed once, then a program for each set of shapes.

    Model --planner.py--> Plan (constants folded, kernels chosen, weights packed; shared by threads)
                 fold.py        what constants and shapes decide: values, branches of If, dead nodes
                 rewrite.py     patterns that run better as another op
                 pack.py        a node's weights in its kernel's layout (packing.py: panels); unpack.py: and out of it again, for what travels
    Plan  --build.py-->   Program (program.py) for concrete shapes: steps, their arguments, one block of work space
                 layout.py      where values are put (memory.py: views, loops, the arena), copies and elementwise calls
                 views.py       ops that compute nothing: a view of their input
                 fuse.py        which nodes become one call; chain.py: elementwise nodes as one program
                 emit.py        one function an op: its node becomes kernel calls (emit_matrix.py, emit_elementwise.py, ...)
    parallel.py   what runs at once on several threads
    policy.py     candidates, rank, pick; thresholds and their measurements
    streaming.py  a model made steppable: hidden states exposed, time axes found

To compile an op: a kernel in kernels/native and a function in an emit_*.py that registers under the op's name. To spare it the work: views.py.
"""

from fastrnn.plan.build import build_program
from fastrnn.plan.planner import Plan, compile_plan
from fastrnn.plan.program import Program

__all__ = ["Plan", "Program", "build_program", "compile_plan"]
