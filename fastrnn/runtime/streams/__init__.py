"""A step at a time, states kept in between.

stream.py      Stream: what may be asked of one
_stream.pyx    its hot half
forms.py       what the streams of a session share
states.py      where their states lie
episodes.py    where rows start afresh within a chunk
"""
