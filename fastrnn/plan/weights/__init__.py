"""Weights in the layout that a kernel reads, made once a plan.

packed.py   Packed: a node's weights as views, and which of its inputs they come from
met.py      the same of weights that only a call brings, by a step of the program
unpack.py   and out of it again, for what travels
panels.py   the layout itself, [unit block][k][gate][lane], filled by the kernel's module; aligned memory
"""
