"""A configuration from a file: what is of the wrong kind or absurd is named, with what is
wanted."""

import json

import pytest

from x2vlm.config import X2VLMConfig
from x2vlm.errors import ConfigError
from x2vlm.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_file(name):
    assert X2VLMConfig.from_dict(json.loads(json.dumps(PRESETS[name].to_dict()))) == PRESETS[name]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"vision": 5}, "vision in the model configuration is 5; it must be a block of keys"),
        (
            {"text": {"num_layers": "6"}},
            "num_layers in text of the model configuration is '6'; it must be a whole number",
        ),
        ({"text": {"num_layers": 6.0}}, "num_layers .* whole number"),
        ({"fusion": {"num_layers": 10_000_000}}, "num_layers in fusion .* from 0 to 256"),
        ({"vision": {"patch_size": 0}}, "patch_size .* from 1 to"),
        ({"vision": {"num_heads": 7}}, "vision width 768 is not a multiple of its num_heads, 7"),
        ({"vision": {"layer_scale": float("nan")}}, "layer_scale .* a number from 0 to 1 or null"),
        ({"vision": {"drop_path": 10**400}}, "drop_path .* a number from 0 to 1"),
        (
            {"vision": {"swin_depths": [2, "2"]}},
            "swin_depths .* a list, every entry a whole number",
        ),
        ({"text": {"family": ["bert"]}}, "family .* one of: bert, xlm-roberta"),
        ({"text": {"drop_path_per_token": 1}}, "drop_path_per_token .* true or false"),
        ({"heads": "box"}, "heads .* a list, every entry text"),
        ({"heads": None}, "heads .* a list, every entry text"),
        ({"num_frames": True}, "num_frames .* a whole number"),
    ],
)
def test_a_bad_value_is_named_with_what_is_wanted(values, said):
    with pytest.raises(ConfigError, match=said) as refused:
        X2VLMConfig.from_dict(values)
    assert refused.value.code == "config/value" and len(refused.value.message) < 200
