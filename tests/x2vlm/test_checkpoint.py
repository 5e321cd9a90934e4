"""Conversion, loading and saving: round trips through the official layout, detection, resizing,
strictness, atomic folders."""

import dataclasses
import gc
import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from x2vlm import hub
from x2vlm.checkpoint import official_state_dict, save_model
from x2vlm.checkpoint import saving as saving_module
from x2vlm.checkpoint.keys import TABLE, official_name, our_name
from x2vlm.checkpoint.layout import Layout, canonical, num_text_layers
from x2vlm.checkpoint.resize import geometric_ratio, resize_relative_table
from x2vlm.config import DecoderConfig, FusionConfig, TextConfig, VisionConfig, X2VLMConfig
from x2vlm.errors import CheckpointError, ConfigError
from x2vlm.modeling.build import build_model, convert, load_model
from x2vlm.modeling.captioning import X2VLMForCaptioning
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.settings import Settings

VISION = VisionConfig(image_size=64, hidden_size=32, num_layers=2, num_heads=2, drop_path=0.0)
TEXT = TextConfig(
    vocab_size=90,
    hidden_size=64,
    num_layers=2,
    num_heads=1,
    intermediate_size=96,
    max_positions=40,
    dropout=0.0,
)
FUSION = FusionConfig(num_layers=2, num_heads=1, intermediate_size=96, dropout=0.0)
XLM_R = dataclasses.replace(
    TEXT,
    family="xlm-roberta",
    type_vocab_size=1,
    pad_token_id=1,
    layer_norm_eps=1e-5,
    vocab_size=77,
    max_positions=42,
)
SWIN = VisionConfig(
    tower="swin", image_size=128, patch_size=32, hidden_size=64, num_layers=5, num_heads=4,
    drop_path=0.0, layer_scale=None,
    swin_embed_dim=8, swin_depths=(1, 2, 1, 1), swin_num_heads=(1, 1, 2, 4), swin_window_size=4,
)  # fmt: skip
BASIC = ("contrastive", "matching", "box", "masked_lm")
DECODER = DecoderConfig(num_layers=2, max_positions=40)


def make_config(**changes) -> X2VLMConfig:
    return X2VLMConfig(
        **{
            "vision": VISION,
            "text": TEXT,
            "fusion": FUSION,
            "decoder": DECODER,
            "projection_size": 16,
        }
        | changes
    )


CONFIGS = {
    "pretrain": make_config(heads=BASIC, num_frames=3),
    "retrieval": make_config(heads=("contrastive", "matching")),
    "grounding": make_config(heads=("box",)),
    "captioning": make_config(heads=("masked_lm",)),
    "vqa": make_config(heads=("answer_decoder",)),
    "pair": make_config(heads=("pair",)),
    "video_qa": make_config(heads=("classification",), num_labels=11, num_frames=5),
    "cclm": make_config(heads=BASIC, text=XLM_R),
    "xvlm": make_config(heads=BASIC, vision=SWIN),
    "xvlm_pair": make_config(
        heads=("pair",), vision=SWIN, fusion=dataclasses.replace(FUSION, twin_layers=True)
    ),
    "xvlm_captioning": make_config(heads=("causal_lm",), vision=SWIN),
    "cclm_3m": make_config(
        heads=BASIC,
        vision=SWIN,
        text=dataclasses.replace(XLM_R, bert_stack=True),
        fusion=dataclasses.replace(FUSION, layer_norm_eps=1e-5),
    ),
    "cclm_3m_pair": make_config(
        heads=("pair",),
        vision=SWIN,
        text=dataclasses.replace(XLM_R, bert_stack=True),
        fusion=dataclasses.replace(FUSION, layer_norm_eps=1e-5, twin_layers=True),
    ),
}


@pytest.fixture(scope="session")
def models() -> dict[str, X2VLM]:
    torch.manual_seed(0)
    return {name: build_model(config).eval() for name, config in CONFIGS.items()}


def write_official(model: X2VLM, path: Path, wrapped: bool = True, **more) -> Path:
    """The model as the official code would save it, constants included."""
    state = official_state_dict(model) | more
    state["vision_encoder.blocks.0.attn.relative_position_index"] = torch.zeros(
        4, 4, dtype=torch.int64
    )
    torch.save({"model": state, "config": {"image_res": 64}} if wrapped else state, path)
    return path


def same_weights(one: X2VLM, other: X2VLM) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", CONFIGS)
def test_official_layout_round_trip(name, models, tmp_path):
    """Everything is found out from keys and shapes alone, and every weight arrives."""
    path = write_official(models[name], tmp_path / "model.th", wrapped=name != "pair")
    loaded = load_model(path)
    wanted = CONFIGS[name]
    for part in ("text", "fusion", "vision", "decoder"):
        found = dataclasses.replace(
            getattr(loaded.config, part), **({} if part == "decoder" else {"drop_path": 0.0})
        )
        found = dataclasses.replace(found, dropout=0.0) if part in ("text", "fusion") else found
        if part != "decoder" or "answer_decoder" in wanted.heads:
            assert found == getattr(wanted, part)
    assert loaded.config.heads == wanted.heads and loaded.config.num_frames == wanted.num_frames
    assert same_weights(loaded.model, models[name])
    assert not loaded.report.missing and not loaded.report.unexpected and not loaded.report.resized
    assert len(loaded.report.ignored) >= 1 and not loaded.model.training
    if "classification" in wanted.heads:
        assert loaded.config.num_labels == wanted.num_labels


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_folder_round_trip(name, models, tmp_path):
    save_model(models[name], tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert loaded.config == CONFIGS[name] and same_weights(loaded.model, models[name])
    assert loaded.report.matched and not loaded.report.renamed
    assert loaded.sha256 == hub.sha256_of(tmp_path / "saved" / "model.safetensors")


@pytest.mark.parametrize("name", CONFIGS)
def test_loaded_models_compute_the_same(name, models, tmp_path):
    loaded = load_model(write_official(models[name], tmp_path / "model.th")).model
    side = CONFIGS[name].vision.image_size
    image, ids = torch.randn(2, 3, side, side), torch.randint(4, 70, (2, 6))
    with torch.no_grad():
        first, second = (
            model.fuse(model.encode_text(ids), None, model.encode_image(image))
            for model in (models[name], loaded)
        )
    assert torch.equal(first, second)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_weights_have_the_permissions_of_the_other_files(umask, models, tmp_path):
    before = os.umask(umask)
    try:
        save_model(models["grounding"], tmp_path / "saved")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "saved").iterdir()}
    assert modes == {0o666 & ~umask}


def test_tied_weights_stay_tied_and_are_stored_once(models, tmp_path):
    loaded = load_model(save_model(models["pretrain"], tmp_path / "saved")).model
    assert loaded.masked_lm_head.decoder.weight is loaded.text_encoder.embeddings.words.weight
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as file:
        assert "masked_lm_head.decoder.weight" not in set(file.keys())
    untied = load_model(write_official(models["cclm"], tmp_path / "cclm.th")).model
    assert untied.masked_lm_head.decoder.weight is not untied.text_encoder.embeddings.words.weight


def test_tied_copies_that_differ_are_refused(models, tmp_path):
    bias = {"text_encoder.cls.predictions.bias": torch.ones(TEXT.vocab_size)}
    with pytest.raises(CheckpointError, match="tied copy"):
        load_model(write_official(models["pretrain"], tmp_path / "a.th", **bias))
    weight = {
        "text_encoder.cls.predictions.decoder.weight": torch.ones(TEXT.vocab_size, TEXT.hidden_size)
    }
    with pytest.raises(CheckpointError, match="tied copy"):
        load_model(write_official(models["pretrain"], tmp_path / "b.th", **weight))


def test_constants_and_unused_parts_are_ignored_by_name(models, tmp_path):
    extra = {
        "text_encoder.bert.embeddings.position_ids": torch.arange(40)[None],
        "text_encoder.bert.pooler.dense.weight": torch.ones(2, 2),
        "crit_mask_lm_smoothed.one_hot": torch.ones(1, 90),
    }
    report = load_model(write_official(models["pretrain"], tmp_path / "model.th", **extra)).report
    assert extra.keys() <= report.ignored.keys()
    assert all(key in str(report) for key in extra)


def test_unexpected_weights_are_refused_or_listed(models, tmp_path):
    path = write_official(
        models["retrieval"], tmp_path / "model.th", **{"momentum_encoder.a": torch.ones(2)}
    )
    with pytest.raises(CheckpointError, match=r"momentum_encoder\.a") as caught:
        load_model(path)
    assert caught.value.code == "ckpt/keys"
    assert load_model(path, allow_extra=True).report.unexpected == ("momentum_encoder.a",)


@pytest.mark.parametrize(
    "key",
    [
        "vision_encoder.fc_norm.weight",
        "text_encoder.bert.encoder.layer.3.output.dense.bias",
        "itm_head.3.bias",
    ],
)
def test_missing_weights_are_refused(key, models, tmp_path):
    state = official_state_dict(models["pretrain"])
    del state[key]
    torch.save(state, tmp_path / "model.th")
    with pytest.raises(CheckpointError, match="lacks") as caught:
        load_model(tmp_path / "model.th", allow_extra=True)
    assert caught.value.code == "ckpt/keys"


@pytest.mark.parametrize("layer", [1, 2])
def test_missing_layers_are_refused(layer, models, tmp_path):
    state = official_state_dict(models["pretrain"])
    torch.save(
        {key: value for key, value in state.items() if f"layer.{layer}." not in key},
        tmp_path / "model.th",
    )
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "model.th")


def test_a_layer_number_from_nowhere_builds_no_giant(models, tmp_path):
    key = "text_encoder.bert.encoder.layer.9999999999.output.dense.bias"
    with pytest.raises(CheckpointError) as caught:
        load_model(
            write_official(models["pretrain"], tmp_path / "model.th", **{key: torch.zeros(64)})
        )
    assert caught.value.code == "ckpt/keys"


def test_a_giant_position_table_builds_no_giant(models, tmp_path):
    tables = {
        f"vision_encoder.blocks.{i}.attn.relative_position_bias_table": torch.zeros(1999**2 + 3, 2)
        for i in range(2)
    }
    with pytest.raises(CheckpointError) as caught:
        load_model(write_official(models["grounding"], tmp_path / "model.th", **tables))
    assert caught.value.code == "ckpt/shape"


def test_wrong_shape_type_and_values_are_refused(models, tmp_path):
    key = "text_encoder.embeddings.LayerNorm.weight"
    wrong = {
        "ckpt/shape": torch.ones(63),
        "ckpt/content": torch.ones(64, dtype=torch.int64),
        "ckpt/values": torch.full((64,), float("nan")),
    }
    for code, tensor in wrong.items():
        path = write_official(models["retrieval"], tmp_path / "model.th", **{key: tensor})
        with pytest.raises(CheckpointError) as caught:
            load_model(path)
        assert caught.value.code == code
    path = write_official(
        models["retrieval"], tmp_path / "model.th", **{key: torch.full((64,), float("inf"))}
    )
    with pytest.raises(CheckpointError, match="not finite"):
        load_model(path)


def test_heads_can_be_left_out_and_added(models, tmp_path):
    path = write_official(models["pretrain"], tmp_path / "model.th")
    less = load_model(path, heads=("box",))
    assert less.config.heads == ("box",) and less.model.matching_head is None
    assert less.report.ignored["itm_head.0.weight"] == "head that was not asked for"
    more = load_model(path, heads=("box", "answer_decoder"), config={"decoder": {"num_layers": 2}})
    assert more.report.missing_heads == ("answer_decoder",) and more.report.heads == ("box",)
    assert all(name.startswith("answer_decoder.") for name in more.report.missing)
    assert all(parameter.isfinite().all() for parameter in more.model.parameters())
    assert "answer_decoder" in str(more.report)


def test_task_models_load_themselves_and_name_a_missing_head(models, tmp_path):
    save_model(models["captioning"], tmp_path / "saved")
    task = X2VLMForCaptioning.from_pretrained(tmp_path / "saved")
    assert same_weights(task.model, models["captioning"]) and not task.training
    task.save_pretrained(tmp_path / "again")
    assert same_weights(X2VLM.from_pretrained(tmp_path / "again"), models["captioning"])
    save_model(models["grounding"], tmp_path / "boxes")
    with pytest.raises(CheckpointError, match="masked lm head"):
        X2VLMForCaptioning.from_pretrained(tmp_path / "boxes")


def test_push_to_hub_uploads_a_complete_folder(models, monkeypatch, tiny_tokenizer):
    uploaded = {}

    class Api:
        def __init__(self, token=None):
            uploaded["token"] = token

        def create_repo(self, name, private=None, exist_ok=False):
            return type("Repository", (), {"repo_id": name})

        def upload_folder(self, repo_id, folder_path, commit_message):
            uploaded.update(
                repo=repo_id,
                files=sorted(os.listdir(folder_path)),
                settings=Settings.read(folder_path),
            )
            return "address"

    monkeypatch.setattr("x2vlm.modeling.pretrained.HfApi", Api)
    settings = Settings(answers=("rot", "grün"), present=0.75)
    pushed = models["pair"].push_to_hub(
        "someone/model", tokenizer=tiny_tokenizer, settings=settings, token="secret"
    )
    assert pushed == "address" and uploaded["settings"] == settings
    assert uploaded["repo"] == "someone/model" and uploaded["token"] == "secret"
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(
        uploaded["files"]
    )


def test_other_image_size_resizes_every_table(models, tmp_path):
    path = write_official(models["pretrain"], tmp_path / "model.th")
    loaded = load_model(path, image_size=96)
    assert len(loaded.report.resized) == VISION.num_layers and loaded.config.vision.image_size == 96
    assert set(loaded.report.resized.values()) == {((52, 2), (124, 2))}
    assert "resized 52 x 2 to 124 x 2: 2 tensors" in str(loaded.report)
    with torch.no_grad():
        assert loaded.model.encode_image(torch.randn(1, 3, 96, 96)).isfinite().all()
    swin = load_model(write_official(models["xvlm"], tmp_path / "swin.th"), image_size=192)
    assert swin.config.vision.swin_window_size == 6 and len(swin.report.resized) == SWIN.num_layers
    with torch.no_grad():
        assert swin.model.encode_image(torch.randn(1, 3, 192, 192)).shape == (1, 37, 64)


def test_sine_positions_are_computed_for_another_size(tiny_config, tmp_path):
    model = build_model(tiny_config)
    save_model(model, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved", image_size=96).model
    fresh = build_model(loaded.config)
    assert torch.equal(loaded.vision.tower.pos_embed, fresh.vision.tower.pos_embed)
    assert torch.equal(loaded.vision.tower.cls_token, model.vision.tower.cls_token)


def test_frame_positions_are_copied_as_far_as_they_go(models, tmp_path):
    path = write_official(models["pretrain"], tmp_path / "model.th")
    trained = models["pretrain"].frame_positions
    longer, shorter = load_model(path, num_frames=5).model, load_model(path, num_frames=2).model
    assert (
        torch.equal(longer.frame_positions[:, :3], trained) and longer.frame_positions.shape[1] == 5
    )
    assert torch.equal(shorter.frame_positions, trained[:, :2])
    none = load_model(path, num_frames=0)
    assert none.model.frame_positions is None and "absolute_frame_pos_embed" in none.report.ignored
    added = load_model(write_official(models["retrieval"], tmp_path / "b.th"), num_frames=4)
    assert added.report.missing == ("frame_positions",)


@pytest.mark.parametrize(
    ("source", "target", "ratio"),
    [
        (27, 39, 1.060968), (27, 47, 1.090307), (27, 59, 1.125056), (27, 63, 1.134918),
        (27, 71, 1.152735), (27, 79, 1.168504),
        (27, 95, 1.195487), (47, 95, 1.060008),
    ],
)  # fmt: skip
def test_geometric_ratio(source, target, ratio):
    assert geometric_ratio(source, target) == pytest.approx(ratio, abs=1e-6)


def test_resizing_tables():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(27 * 27 + 3, 4, generator=generator)
    assert torch.equal(resize_relative_table(table, (14, 14), (14, 14)), table)
    larger = resize_relative_table(table, (14, 14), (24, 24))
    assert larger.shape == (47 * 47 + 3, 4) and torch.equal(larger[-3:], table[-3:])
    middle, old = larger[:-3].view(47, 47, 4), table[:-3].view(27, 27, 4)
    assert torch.allclose(
        middle[22:25, 22:25], old[12:15, 12:15], atol=1e-5
    )  # offsets 0 and 1 keep their places
    # A plane in the offsets is not a plane in the stretched grid, but symmetry survives.
    even = table[:-3].view(27, 27, 4) + table[:-3].view(27, 27, 4).flip(0, 1)
    stretched = resize_relative_table(even.reshape(-1, 4), (14, 14), (20, 20)).view(39, 39, 4)
    assert torch.allclose(stretched, stretched.flip(0, 1), atol=1e-5)


def test_overrides(models, tmp_path):
    path = write_official(models["retrieval"], tmp_path / "model.th")
    assert load_model(path, config={"text": {"num_heads": 4}}).config.text.num_heads == 4
    assert load_model(path, config=CONFIGS["retrieval"]).config == CONFIGS["retrieval"]
    with pytest.raises(ConfigError, match="nun_heads"):
        load_model(path, config={"text": {"nun_heads": 4}})
    with pytest.raises(ConfigError):
        load_model(path, image_size=65)


def test_a_width_that_64_does_not_divide_needs_the_number_of_heads(tmp_path):
    text = dataclasses.replace(TEXT, hidden_size=36, num_heads=3)
    model = build_model(
        make_config(text=text, fusion=dataclasses.replace(FUSION, num_heads=3), heads=("box",))
    )
    path = write_official(model, tmp_path / "model.th")
    with pytest.raises(CheckpointError, match="num_heads"):
        load_model(path)
    heads = {"num_heads": 3}
    assert load_model(path, config={"text": heads, "fusion": heads}).config.fusion.num_heads == 3


def test_the_table_reads_in_both_directions(models):
    for model in models.values():
        for name in model.state_dict():
            assert our_name(official_name(name)) == name
    assert len({ours for _, ours, _ in TABLE}) == len(TABLE)
    keys = [f"text_encoder.roberta.encoder.layer.{n}.attention.self.key.bias" for n in range(3)]
    assert num_text_layers(keys) == 3
    assert canonical("text_encoder.bert.encoder.layer.13.output.LayerNorm.gamma", Layout(12)) == (
        "cross_encoder.encoder.layer.1.output.LayerNorm.weight"
    )


def test_dtype_and_half_precision_storage(models, tmp_path):
    save_model(models["retrieval"], tmp_path / "half", dtype=torch.float16)
    assert (tmp_path / "half" / "model.safetensors").stat().st_size < 0.6 * sum(
        p.numel() * 4 for p in models["retrieval"].parameters()
    )
    loaded = load_model(tmp_path / "half").model
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    assert loaded.temperature.item() == pytest.approx(0.07, abs=1e-4)
    assert (
        load_model(tmp_path / "half", dtype=torch.bfloat16).model.temperature.dtype
        == torch.bfloat16
    )
    huge = build_model(CONFIGS["retrieval"])
    huge.temperature.data.fill_(1e6)
    with pytest.raises(CheckpointError, match="float16"):
        save_model(huge, tmp_path / "overflow", dtype=torch.float16)
    assert not (tmp_path / "overflow").exists()


def test_a_failed_save_leaves_nothing_and_keeps_what_was_there(models, tmp_path, monkeypatch):
    save_model(models["retrieval"], tmp_path / "saved")
    before = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}

    def disk_full(*_, **__):
        raise OSError(28, "No space left on device")

    for broken in ("save_file", "_sync"):
        with monkeypatch.context() as patch:
            patch.setattr(saving_module, broken, disk_full)
            for name in ("saved", "new"):
                with pytest.raises(CheckpointError) as caught:
                    save_model(models["pair"], tmp_path / name)
                assert caught.value.code == "ckpt/disk" and str(tmp_path) not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved"]
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_full_disk_is_told(models, tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (10_000, limits[1])
    )  # fails as a full disk does, in safetensors' own writing
    try:
        with pytest.raises(CheckpointError, match="room") as caught:
            save_model(models["pair"], tmp_path / "saved")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.code == "ckpt/disk" and not list(tmp_path.iterdir())


def test_conversion_takes_the_settings_along(tiny_folder, tmp_path):
    convert(tiny_folder, tmp_path / "half", dtype=torch.float16)
    settings = Settings.read(tmp_path / "half")
    assert (
        settings == Settings.read(tiny_folder)
        and settings.max_tokens == 20
        and "red" in settings.answers
    )
    convert(tmp_path / "half" / "model.safetensors", tmp_path / "again", tokenizer=tiny_folder)
    assert Settings.read(tmp_path / "again") == settings
    (tmp_path / "half" / "predictor.json").unlink()
    convert(tmp_path / "half", tmp_path / "bare")
    assert not (tmp_path / "bare" / "predictor.json").exists()


def test_saving_into_a_folder_keeps_other_files(models, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "results.json").write_text("{}")
    save_model(models["pair"], tmp_path / "saved", card="# Mine\n")
    assert (tmp_path / "saved" / "results.json").read_text() == "{}"
    assert (tmp_path / "saved" / "README.md").read_text() == "# Mine\n"
    assert same_weights(load_model(tmp_path / "saved").model, models["pair"])
    save_model(
        load_model(tmp_path / "saved").model, tmp_path / "saved"
    )  # over the very file that its weights are mapped from
    assert same_weights(load_model(tmp_path / "saved").model, models["pair"])


def test_a_failed_conversion_leaves_nothing(tmp_path):
    (tmp_path / "bad.th").write_bytes(b"no weights")
    with pytest.raises(CheckpointError):
        convert(tmp_path / "bad.th", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.th"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"heads": 3', "\ud800".encode("utf-16", "surrogatepass").decode("latin-1")],
)
def test_a_broken_config_is_refused(text, models, tmp_path):
    save_model(models["pair"], tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="JSON"):
        load_model(tmp_path / "saved")


def test_an_unknown_config_key_is_refused(models, tmp_path):
    save_model(models["pair"], tmp_path / "saved")
    values = json.loads((tmp_path / "saved" / "config.json").read_text()) | {"hidden": 3}
    (tmp_path / "saved" / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="hidden"):
        load_model(tmp_path / "saved")


def test_a_folder_without_one_weights_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="none"):
        load_model(tmp_path)
    for name in ("a.th", "b.th"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"a\.th, b\.th"):
        load_model(tmp_path)


def peak_bytes() -> int:
    """The largest resident size of this process since it was last reset."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the system does not report peak memory"
)
def test_loading_needs_little_memory(tmp_path):
    """Loading adds at most 1.2 times the file to the peak of the process."""
    config = X2VLMConfig(
        vision=VisionConfig(image_size=64, hidden_size=256, num_layers=4, num_heads=4),
        text=TextConfig(
            vocab_size=30000, hidden_size=256, num_layers=4, num_heads=4, intermediate_size=1024
        ),
        fusion=FusionConfig(num_layers=4, num_heads=4, intermediate_size=1024),
    )
    path = write_official(build_model(config), tmp_path / "model.th")
    load_model(path)  # what is imported or cached on the way is not counted
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    loaded = load_model(path)
    used = peak_bytes() - before
    assert loaded.config.text.vocab_size == 30000 and used > 0.5 * path.stat().st_size
    assert used < 1.2 * path.stat().st_size, f"{used / path.stat().st_size:.2f} times the file"


def test_two_threads_may_load_while_another_builds(models, tmp_path):
    """Building without memory is a matter of the loading thread alone."""
    from concurrent.futures import ThreadPoolExecutor

    path = write_official(models["pretrain"], tmp_path / "model.th")
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load_model, path) for _ in range(4)]
        builds = [pool.submit(build_model, CONFIGS["pretrain"]) for _ in range(4)]
        assert all(same_weights(job.result().model, models["pretrain"]) for job in loads)
        assert not any(
            parameter.is_meta for job in builds for parameter in job.result().parameters()
        )
