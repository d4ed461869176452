# Kernel table of one instruction set; setup.py compiles this with its flags.
include "_table.pxi"
