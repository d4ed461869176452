"""The README's training example runs as it stands and learns."""

from pathlib import Path


def test_the_example_learns(capsys):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code = text.split("## Training\n")[1].split("```python\n")[1].split("```")[0]
    names = {}
    exec(code, names)  # noqa: S102 - the project's own page
    assert names["history"].best < 0.05
    answers, wanted = capsys.readouterr().out.splitlines()[1].split("] [")
    assert answers.strip("[").replace(",", "").split()[2:] == wanted.strip("]").split()[2:]
