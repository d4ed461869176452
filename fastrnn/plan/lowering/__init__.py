"""Plan to Program: a model folded for a call's sizes becomes steps over addresses. Sizes are traced while it does (model/sizes.py), so the steps
hold for all sizes that would have decided the same.

    fuse.py      which nodes become one call
    build.py     Builder: walks the nodes in order; inputs, outputs, steps
        sharing.py   which values are made in the place of another, and how long a place is needed
        windows.py   around convolutions: inputs inside their padding, poolings behind them
        layout.py    where values are put, copies, elementwise calls
        ranges.py    indices and lengths, checked at the door or on the way
        memory.py    View: an address with shape and strides; loops over several; the Arena of work space
        hoist.py     nodes that depend on sizes alone, and run when those change
        views.py     ops that compute nothing: a view of their input
        chain.py     elementwise nodes as one list of operations
        jumps.py     an If that data decides, a Loop, a Scan: jumps around steps, or back to them
        ../emit/     all other ops
    parallel.py  what runs at once on several threads
    formulas.py  Sizes as the executor evaluates them
"""
