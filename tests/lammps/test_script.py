"""How the input of the command is cut."""

import pytest

from amptorch.lammps.script import pieces

HEAD = "units metal\nread_data start.data\n"


def cut(tmp_path, text):
    path = tmp_path / "in.lammps"
    path.write_text(text)
    return [(piece.text, piece.command) for piece in pieces(path)]


def test_at_pair_style_and_pair_coeff(tmp_path):
    text = HEAD + "pair_style amptorch # mine\npair_coeff * * &\n H O\nrun 5\n"
    assert cut(tmp_path, text) == [
        (HEAD, ("pair_style", "amptorch")),
        ("", ("pair_coeff", "H", "O")),
        ("run 5\n", None),
    ]


def test_before_the_first_run_and_its_loop(tmp_path):
    text = HEAD + "mass 1 1.0\n"
    loop = "label again\nrun 5\njump {}again\n"
    assert cut(tmp_path, text + loop.format("in.lammps ")) == [
        (text, ()),
        (loop.format("SELF "), None),
    ]


def test_in_an_included_file(tmp_path):
    (tmp_path / "model.in").write_text("pair_style amptorch\npair_coeff * * H O")
    found = cut(tmp_path, HEAD + "include model.in\nrun 5")
    assert [command for _, command in found[:2]] == [
        ("pair_style", "amptorch"),
        ("pair_coeff", "H", "O"),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("pair_style amptorch model\npair_coeff * * H", "line 3: expected `pair_style amptorch`"),
        ("pair_style amptorch\npair_coeff 1 1 H", r"line 4: expected `pair_coeff \* \* …`"),
        ("pair_style amptorch\nrun 5", r"line 3: no `pair_coeff \* \* …` with the element"),
        ("pair_style lj/cut 5\nrun 5", "line 3: 'pair_style lj/cut 5' would be added"),
    ],
)
def test_errors_name_the_line(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        cut(tmp_path, HEAD + lines)


def test_an_input_without_a_box(tmp_path):
    with pytest.raises(ValueError, match="makes no box"):
        cut(tmp_path, "units metal\nrun 5\n")
