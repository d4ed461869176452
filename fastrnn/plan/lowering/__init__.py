"""Plan to Program: a model folded for concrete shapes becomes steps over addresses.

    fuse.py      which nodes become one call
    build.py     Builder: walks the nodes in order; inputs and outputs, lengths, branches of If
        layout.py    where values are put, copies, elementwise calls
        memory.py    View: an address with shape and strides; loops over several; the Arena of work space
        views.py     ops that compute nothing: a view of their input
        chain.py     elementwise nodes as one list of operations
        repeat.py    a Loop or a Scan: a counter, a jump out, the body once, a jump back
        ../emit/     all other ops
    parallel.py  what runs at once on several threads
"""
