"""From a Model to something that runs: weights packed once, then a program for each set of shapes.

    Model --planner.py--> Plan (kernels chosen, weights packed; shared by threads)
    Plan  --build.py-->   Program (program.py) for concrete shapes: steps, their arguments, one block of work space
                 memory.py      where every value lies; views instead of copies for Slice, Concat, Squeeze, Unsqueeze
                 emit.py        one function an op: its node becomes kernel calls
    packing.py    weights to panels          policy.py   candidates, rank, pick; thresholds and their measurements
    streaming.py  a model made steppable: hidden states exposed, time axes found
"""

from fastrnn.plan.build import build_program
from fastrnn.plan.planner import Plan, compile_plan
from fastrnn.plan.program import Program

__all__ = ["Plan", "Program", "build_program", "compile_plan"]
