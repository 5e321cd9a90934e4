"""The tables of choices: one default each, checked ranges, and nothing that needs torch."""

import subprocess
import sys

import pytest

from tests.tree import ROOT
from x2vlm.errors import ParameterError
from x2vlm.options import METHODS, TARGETS, TASKS, AnswerOptions, CaptionOptions, ExplainOptions


def test_the_tables_need_no_torch():
    program = "import sys, x2vlm.options, x2vlm.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_every_option_tells_what_it_is():
    for options in (CaptionOptions, AnswerOptions, ExplainOptions):
        for name, option in options.table().items():
            assert option.name == name and option.help
            assert getattr(options(), name) == option.default


def test_every_target_names_a_task():
    assert {target.task for target in TARGETS.values()} <= set(TASKS)


def test_choices_of_an_explanation_are_the_tables():
    table = ExplainOptions.table()
    assert table["target"].choices == tuple(TARGETS) and table["method"].choices == tuple(METHODS)


@pytest.mark.parametrize("changes", [{"num_beams": 0}, {"min_length": 9, "max_new_tokens": 5}])
def test_values_outside_their_range_are_refused(changes):
    with pytest.raises(ParameterError, match="param/range"):
        CaptionOptions(**changes)


def test_numbers_become_their_kind():
    assert CaptionOptions(num_beams=2.0, top_p=1) == CaptionOptions(num_beams=2, top_p=1.0)
