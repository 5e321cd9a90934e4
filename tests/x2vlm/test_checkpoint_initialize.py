"""Starting weights: which source layer lands where, what stays fresh, and what is refused."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from tests.x2vlm.test_checkpoint import (
    DECODER,
    FUSION,
    SWIN,
    TEXT,
    VISION,
    XLM_R,
    make_config,
    write_official,
)
from x2vlm.checkpoint import initialize, initialize_answer_decoder
from x2vlm.errors import CheckpointError
from x2vlm.modeling.build import build_model

BASIC = ("contrastive", "matching", "box", "masked_lm")


def bert(layers: int, text=TEXT, prefix: str = "bert.") -> dict[str, torch.Tensor]:
    """A masked-LM model under transformers' names; every weight of layer n is filled with n + 1."""
    width, inner = text.hidden_size, text.intermediate_size
    shapes = {
        "attention.self.query": (width, width), "attention.self.key": (width, width),
        "attention.self.value": (width, width),
        "attention.output.dense": (width, width), "intermediate.dense": (inner, width),
        "output.dense": (width, inner),
        "attention.output.LayerNorm": (width,), "output.LayerNorm": (width,),
    }  # fmt: skip
    tensors = {}
    for layer in range(layers):
        for name, shape in shapes.items():
            scale, shift = (
                ("gamma", "beta") if len(shape) == 1 and prefix == "bert." else ("weight", "bias")
            )
            tensors[f"{prefix}encoder.layer.{layer}.{name}.{scale}"] = torch.full(
                shape, layer + 1.0
            )
            tensors[f"{prefix}encoder.layer.{layer}.{name}.{shift}"] = torch.full(
                shape[:1], layer + 1.0
            )
    words = torch.randn(text.vocab_size, width)
    embeddings = f"{prefix}embeddings."
    tensors |= {
        f"{embeddings}word_embeddings.weight": words,
        f"{embeddings}position_embeddings.weight": torch.randn(text.max_positions, width),
        f"{embeddings}token_type_embeddings.weight": torch.randn(text.type_vocab_size, width),
        f"{embeddings}LayerNorm.weight": torch.ones(width),
        f"{embeddings}LayerNorm.bias": torch.ones(width),
        f"{embeddings}position_ids": torch.arange(text.max_positions)[None],
        f"{prefix}pooler.dense.weight": torch.ones(width, width),
    }
    if prefix == "bert.":
        tensors |= {
            "cls.predictions.bias": torch.ones(text.vocab_size),
            "cls.predictions.transform.dense.weight": torch.ones(width, width),
            "cls.predictions.transform.dense.bias": torch.ones(width),
            "cls.predictions.transform.LayerNorm.gamma": torch.ones(width),
            "cls.predictions.transform.LayerNorm.beta": torch.ones(width),
            "cls.predictions.decoder.weight": words.clone(),
            "cls.seq_relationship.bias": torch.ones(2),
        }
    else:
        tensors |= {
            "lm_head.bias": torch.ones(text.vocab_size),
            "lm_head.decoder.weight": words.clone(),
        }
    return tensors


def marks(layers) -> list[float]:
    """Which source layer each layer came from, counted from 0."""
    return [layer.fc1.weight[0, 0].item() - 1 for layer in layers]


@pytest.mark.parametrize(
    ("source", "text", "fusion", "from_text", "from_fusion"),
    [
        (4, 4, 2, [0, 1, 2, 3], [2, 3]),  # base: one to one, the upper half again
        (8, 4, 2, [1, 3, 5, 7], [5, 7]),  # large: every second layer
        (4, 2, 2, [0, 1], [2, 3]),  # X-VLM: split
    ],
)
def test_layers_from_bert(source, text, fusion, from_text, from_fusion, tmp_path):
    config = make_config(
        text=dataclasses.replace(TEXT, num_layers=text),
        fusion=dataclasses.replace(FUSION, num_layers=fusion),
        heads=BASIC,
    )
    model, tensors = build_model(config), bert(source)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    fresh = initialize(model, text=tmp_path)
    assert (
        marks(model.text_encoder.layers) == from_text
        and marks(model.fusion_encoder.layers) == from_fusion
    )
    assert torch.equal(
        model.text_encoder.embeddings.words.weight,
        tensors["bert.embeddings.word_embeddings.weight"],
    )
    assert model.text_encoder.layers[0].attention_norm.bias[0] == from_text[0] + 1
    assert (
        model.masked_lm_head.decoder.bias[0] == 1 and model.masked_lm_head.dense.weight[0, 0] == 1
    )
    left = {name for name in fresh if not name.startswith("vision.")}
    cross = {name for name, _ in model.named_parameters() if "cross_attention" in name}
    heads = {name for name, _ in model.named_parameters() if name.split(".")[0] in _HEAD_PARTS}
    assert left == cross | heads


_HEAD_PARTS = ("temperature", "image_projection", "text_projection", "matching_head", "box_head")


def test_xlm_r_and_bert_fusion_layers(tmp_path):
    model = build_model(make_config(text=XLM_R, heads=BASIC))
    save_file(bert(2, XLM_R, "roberta."), tmp_path / "model.safetensors")
    torch.save(bert(12), tmp_path / "bert.bin")
    fresh = initialize(model, text=tmp_path, fusion=tmp_path / "bert.bin")
    assert marks(model.text_encoder.layers) == [0, 1] and marks(model.fusion_encoder.layers) == [
        10,
        11,
    ]
    assert "masked_lm_head.decoder.weight" in fresh and not any(
        name.startswith("text_encoder.") for name in fresh
    )


def test_x2vlm_into_cclm(tmp_path):
    torch.manual_seed(0)
    source = build_model(make_config(heads=BASIC))
    torch.save(bert(2, XLM_R, "roberta."), tmp_path / "xlm.bin")
    model = build_model(make_config(text=XLM_R, heads=BASIC))
    fresh = initialize(
        model, x2vlm=write_official(source, tmp_path / "x2vlm.th"), text=tmp_path / "xlm.bin"
    )
    for part in ("vision", "fusion_encoder", "matching_head", "box_head", "image_projection"):
        ours, theirs = getattr(model, part).state_dict(), getattr(source, part).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(model.masked_lm_head.dense.weight, source.masked_lm_head.dense.weight)
    assert marks(model.text_encoder.layers) == [0, 1]
    assert fresh == ["masked_lm_head.decoder.bias", "masked_lm_head.decoder.weight"]


@pytest.fixture
def other_language(tmp_path):
    """An X2-VLM model, and one made of it with the BERT of another language."""
    torch.manual_seed(0)
    source = build_model(make_config(heads=BASIC))
    torch.save(bert(4), tmp_path / "german.bin")
    model = build_model(make_config(heads=BASIC))
    path = write_official(source, tmp_path / "x2vlm.th")
    fresh = initialize(model, x2vlm=path, text=tmp_path / "german.bin")
    return source, model, fresh


def test_another_language_keeps_the_fusion_layers(other_language):
    source, model, _ = other_language
    theirs = source.fusion_encoder.state_dict()
    ours = model.fusion_encoder.state_dict()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_another_language_keeps_what_reads_the_fusion_layers(other_language):
    source, model, _ = other_language
    assert torch.equal(model.masked_lm_head.dense.weight, source.masked_lm_head.dense.weight)
    assert torch.equal(model.matching_head[0].weight, source.matching_head[0].weight)


def test_another_language_brings_its_words_and_text_layers(other_language):
    source, model, fresh = other_language
    assert marks(model.text_encoder.layers) == [0, 1] and fresh == []
    assert model.masked_lm_head.decoder.bias[0] == 1
    words = model.text_encoder.embeddings.words.weight
    assert model.masked_lm_head.decoder.weight is words
    assert not torch.equal(words, source.text_encoder.embeddings.words.weight)


def test_beit_file_with_a_shared_table_at_another_size(tmp_path):
    source = build_model(make_config(heads=("box",))).vision.tower.state_dict()
    table = source.pop("blocks.0.attn.relative_position_bias_table")
    source.pop("blocks.1.attn.relative_position_bias_table")
    extra = {
        "rel_pos_bias.relative_position_bias_table": table,
        "head.weight": torch.ones(3, 32),
        "mask_token": torch.ones(1),
    }
    torch.save({"module": source | extra}, tmp_path / "beit.pth")
    model = build_model(
        make_config(vision=dataclasses.replace(VISION, image_size=96), heads=("box",))
    )
    fresh = initialize(model, vision=tmp_path / "beit.pth")
    assert not any(name.startswith("vision.") for name in fresh)
    assert torch.equal(
        model.vision.tower.blocks[1].attn.relative_position_bias_table[-3:], table[-3:]
    )
    assert torch.equal(
        model.vision.tower.blocks[1].mlp.fc1.weight, source["blocks.1.mlp.fc1.weight"]
    )


def test_official_swin_file(tmp_path):
    source = build_model(make_config(vision=SWIN, heads=("box",)))
    official = {
        name.removeprefix("vision_encoder."): tensor
        for name, tensor in torch.load(write_official(source, tmp_path / "a.th"))["model"].items()
        if name.startswith("vision_encoder.layers") or name.startswith("vision_encoder.patch_embed")
    }
    torch.save({"model": official}, tmp_path / "swin.pth")
    model = build_model(make_config(vision=SWIN, heads=("box",)))
    fresh = initialize(model, vision=tmp_path / "swin.pth")
    assert [name for name in fresh if name.startswith("vision.")] == [
        "vision.tower.norm.bias",
        "vision.tower.norm.weight",
    ]
    ours, theirs = model.vision.tower.layers[1].downsample, source.vision.tower.layers[1].downsample
    assert torch.equal(ours.reduction.weight, theirs.reduction.weight)


def test_timm_names_of_our_towers(monkeypatch):
    tower = build_model(make_config(heads=("box",))).vision.tower
    monkeypatch.setattr("x2vlm.hub.reachable", lambda: True)
    monkeypatch.setattr("timm.create_model", lambda name, pretrained, num_classes: tower)
    model = build_model(make_config(heads=("box",)))
    assert not any(
        name.startswith("vision.") for name in initialize(model, vision="beitv2_base_patch16_224")
    )
    assert torch.equal(model.vision.tower.cls_token, tower.cls_token)


def test_answer_decoder_from_the_fusion_layers():
    torch.manual_seed(0)
    fusion = dataclasses.replace(FUSION, num_layers=6)
    vision = dataclasses.replace(VISION, hidden_size=64, num_heads=2)
    for count, chosen in ((6, range(6)), (3, (1, 3, 5))):
        decoder = dataclasses.replace(DECODER, num_layers=count, max_positions=16)
        model = build_model(
            make_config(
                vision=vision, fusion=fusion, decoder=decoder, heads=("masked_lm", "answer_decoder")
            )
        )
        model.masked_lm_head.decoder.bias.data.normal_()
        assert initialize_answer_decoder(model) == []
        for layer, source in zip(model.answer_decoder.layers, chosen):
            wanted = model.fusion_encoder.layers[source].state_dict()
            assert all(
                torch.equal(value, wanted[name]) for name, value in layer.state_dict().items()
            )
        decoder, embeddings = model.answer_decoder, model.text_encoder.embeddings
        assert torch.equal(decoder.embeddings.words.weight, embeddings.words.weight)
        assert torch.equal(decoder.embeddings.positions.weight, embeddings.positions.weight[:16])
        assert decoder.head.decoder.weight is decoder.embeddings.words.weight
        assert torch.equal(decoder.head.decoder.bias, model.masked_lm_head.decoder.bias)


def test_answer_decoder_with_a_image_of_another_width_or_many_languages():
    model = build_model(make_config(heads=("masked_lm", "answer_decoder")))
    fresh = initialize_answer_decoder(model)
    assert set(fresh) == {
        f"answer_decoder.layers.{layer}.cross_attention.{part}.weight"
        for layer in range(2)
        for part in ("key", "value")
    }
    model = build_model(make_config(text=XLM_R, heads=("masked_lm", "answer_decoder")))
    fresh = initialize_answer_decoder(model)
    assert (
        "answer_decoder.embeddings.words.weight" in fresh
        and "answer_decoder.head.decoder.weight" in fresh
    )
    with pytest.raises(CheckpointError, match="answer decoder"):
        initialize_answer_decoder(build_model(make_config(heads=("box",))))


def test_sources_that_do_not_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = build_model(make_config(heads=("masked_lm",)))
    torch.save(bert(2, dataclasses.replace(TEXT, vocab_size=91)), tmp_path / "other.bin")
    torch.save({"conv.weight": torch.ones(2)}, tmp_path / "conv.bin")
    for text, code in (
        ("other.bin", "ckpt/shape"),
        ("conv.bin", "ckpt/keys"),
        ("missing.bin", "ckpt/source"),
    ):
        with pytest.raises(CheckpointError) as caught:
            initialize(model, text=tmp_path / text)
        assert caught.value.code == code and str(tmp_path) not in str(caught.value)
    with pytest.raises(CheckpointError, match="neither a local file"):
        initialize(model, vision="no_such_tower")
    with pytest.raises(CheckpointError, match=r"should hold model\.safetensors"):
        initialize(model, text=tmp_path)
