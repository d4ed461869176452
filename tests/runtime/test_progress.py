"""Progress in a notebook: one output, changed as things go on. On terminals: tests/training/test_fit.py, tests/runtime/test_sensitivity.py."""

import sys
from types import SimpleNamespace

import pytest

from fastrnn.runtime import progress


@pytest.fixture
def outputs(monkeypatch):
    """What a notebook shows: each picture of each output, as HTML. IPython is stood in for."""
    pictures = []

    def display(shown, display_id):
        assert display_id
        pictures.append([shown._repr_html_()])
        mine = pictures[-1]
        return SimpleNamespace(update=lambda shown: mine.append(shown._repr_html_()))

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=True)))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "rich.console", None)  # it is not needed
    return pictures


@pytest.mark.parametrize("wanted", [None, True])
def test_a_notebook_shows_a_bar(outputs, wanted, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PAUSE_S", 0)
    with progress.shown(wanted, 3, "training") as show:
        show(1, "a < b")
        show(3, "done")
    (pictures,) = outputs
    assert pictures[:3] == [f'<progress value="{done}" max="3"></progress> {note}' for done, note in ((0, "training"), (1, "a &lt; b"), (3, "done"))]
    assert pictures[-1] == (pictures[2] if wanted else "") and not capsys.readouterr().err


def test_pictures_are_not_drawn_more_often_than_people_see(outputs):
    with progress.shown(True, 1000, "training") as show:
        for k in range(1000):
            show(k + 1, "fast")
    assert len(outputs[0]) < 500 and outputs[0][-1].startswith('<progress value="1000"')


def test_no_notebook(outputs, monkeypatch):
    with progress.shown(False, 3, "training") as show:
        show(1, "silent")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))  # IPython on a terminal
    with progress.shown(None, 3, "training") as show:
        show(1, "no terminal")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))  # imported by a script
    assert not progress.in_notebook() and outputs == []


def test_the_bar_goes_where_things_end_badly(outputs):
    with pytest.raises(KeyboardInterrupt), progress.shown(None, 3, "training"):
        raise KeyboardInterrupt
    assert outputs[0][-1] == ""
