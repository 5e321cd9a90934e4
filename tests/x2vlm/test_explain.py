"""Heat maps: the formula, one pass for all words, no trace left, honest numbers about boxes and
maps."""

import dataclasses
import threading

import numpy as np
import pytest
import torch

from x2vlm.errors import ParameterError, TextError
from x2vlm.inference import explain
from x2vlm.inference.predictor import Predictor
from x2vlm.options import METHODS, TARGETS, MapChoice, MapChoices
from x2vlm.settings import Settings
from x2vlm.visualize import is_flat

TEXT = "what color is the unaffable car"


@pytest.fixture(scope="module")
def scene(tiny_predictor):
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    return tiny_predictor.encode(pixels)


def fingerprint(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def count_hooks(model):
    return [
        (len(m._forward_hooks), len(m._backward_hooks), len(m._forward_pre_hooks))
        for m in model.modules()
    ]


def test_gradcam_is_the_official_formula():
    attention, gradients = torch.rand(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    expected = (attention[..., 1:] * gradients[..., 1:].relu()).mean(1)
    trace = explain.AttentionTrace((attention,), (gradients,), torch.empty(0), torch.empty(0))
    torch.testing.assert_close(explain.relevance(trace), expected)
    torch.testing.assert_close(
        explain.relevance(trace, head=1), (attention[..., 1:] * gradients[..., 1:].relu())[:, 1]
    )
    assert (explain.relevance(trace, head="max") >= explain.relevance(trace)).all()
    torch.testing.assert_close(explain.relevance(trace, "attention"), attention[..., 1:].mean(1))


def test_recorded_official_maps(shared_dir):
    from safetensors.torch import load_file

    from x2vlm.modeling.build import load_model

    folder = shared_dir / "parity" / "gradcam"
    if not folder.is_dir():
        pytest.skip("no recorded maps")
    cases = load_file(folder / "cases.safetensors")
    heads = {
        part: {"num_heads": cases["fusion0_attention"].shape[1]}
        for part in ("vision", "text", "fusion")
    }
    model = load_model(folder / "checkpoint.th", config=heads).model.requires_grad_(False)
    mask = cases["text_atts"]
    with torch.no_grad():
        text_embeds = model.encode_text(cases["text_ids"], mask)
        image_embeds = model.encode_image(cases["image"])
    trace = explain.trace_attention(
        model, text_embeds, mask, image_embeds, lambda fused: model.match_logits(fused)[:, 1]
    )
    for layer in range(3):
        expected = cases[f"fusion{layer}_gradcam"]
        heat = explain.relevance(trace, layer=layer) * mask[..., None]
        assert (heat - expected).abs().max() <= 1e-4 * expected.abs().max()
        gradients = cases[f"fusion{layer}_attention_grad"]
        assert (trace.gradients[layer] - gradients).abs().max() <= 1e-4 * gradients.abs().max()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_every_target(tiny_predictor, scene, target, method):
    first = tiny_predictor.explain(scene, TEXT, target=target, method=method)
    words = TEXT.split()
    assert [word.text for word in first.words] == words
    assert first.maps.shape == (len(words), 4, 4) and first.maps.dtype == np.float32
    assert np.isfinite(first.maps).all() and (first.maps >= 0).all() and first.maps.max() > 0
    again = tiny_predictor.explain(scene, TEXT, target=target, method=method)
    assert np.array_equal(first.maps, again.maps) and first.score == again.score


def test_results_print_their_numbers_and_not_their_maps(tiny_predictor, scene):
    printed = repr(tiny_predictor.ground(scene, TEXT, explain=True))
    assert "agreement" in printed and "array" not in printed


def test_score_is_the_models_own_answer(tiny_predictor, scene):
    match = tiny_predictor.match(scene, TEXT)[0].probability
    for method in METHODS:
        assert tiny_predictor.explain(scene, TEXT, method=method).score == pytest.approx(
            match, abs=1e-5
        )
    box = tiny_predictor.ground(scene, TEXT, explain=False)[0].box_cxcywh
    total = tiny_predictor.explain(scene, TEXT, target="box").score
    assert total == pytest.approx(
        sum(box), abs=0.5
    )  # the box is clipped to the image, the sum is not


def test_caption_tokens_score_as_in_generation(tiny_predictor, scene, tiny_model, tiny_processor):
    """One teacher-forced pass gives the log-probabilities that step-by-step decoding gives."""
    from x2vlm.inference.targets import caption_target
    from x2vlm.modeling.captioning import CaptionDecoder

    member = tiny_predictor._member("caption")
    embeds = scene.embeds(member).whole
    pieces = list(tiny_processor.tokenize(TEXT, None).ids[1:-1])
    decoder = CaptionDecoder(tiny_model, embeds, tiny_processor.mask_id)
    prompt = [tiny_processor.cls_id, *tiny_processor.pieces("a picture of")]
    expected, new = [], torch.tensor([prompt])
    with torch.no_grad():
        for piece in pieces:
            expected.append(decoder.step(new).log_softmax(-1)[0, piece].item())
            new = torch.tensor([[piece]])
        target = caption_target(member, TEXT)
        fused = tiny_model.fuse(target.text_embeds, target.attention_mask, embeds)
    assert target.objective(fused).item() == pytest.approx(sum(expected), abs=1e-3)
    assert target.score(fused) == pytest.approx(np.exp(np.mean(expected)), rel=1e-3)


def test_caption_words_depend_only_on_what_stands_before(tiny_predictor, scene):
    short = tiny_predictor.explain(scene, "a red car", target="caption")
    long = tiny_predictor.explain(scene, "a red car and two dogs", target="caption")
    np.testing.assert_allclose(short.maps, long.maps[:3], atol=1e-6)


def test_words_of_a_phrase_share_its_map_and_function_words_have_none(tiny_predictor, scene):
    found = tiny_predictor.explain(scene, "a red car and two dogs")
    assert [phrase.text for phrase in found.phrases] == ["a red car", "two dogs"]
    np.testing.assert_array_equal(found.maps[0], found.maps[2])
    assert (found.maps[3] == 0).all()
    assert not np.array_equal(found.maps[2], found.maps[5])


def test_a_phrase_is_explained_as_if_it_stood_alone(tiny_predictor, scene):
    found = tiny_predictor.explain(scene, "a red car and two dogs")
    alone = tiny_predictor.explain(scene, "two dogs", target="match")
    np.testing.assert_allclose(found.maps[5], alone.overall, atol=1e-6)
    assert found.phrases[1].match == pytest.approx(alone.score, abs=1e-5)


def test_every_word_has_the_official_map_where_it_is_asked_for(
    tiny_predictor, scene, tiny_processor
):
    found = tiny_predictor.explain(
        scene, TEXT, target="match", method="gradient", layer=1, unit="word"
    )
    member = tiny_predictor._member("match")
    ids = torch.tensor([tiny_processor.tokenize(TEXT).ids])
    mask = torch.ones_like(ids)
    embeds = member.model.encode_text(ids, mask)
    trace = explain.trace_attention(
        member.model,
        embeds,
        mask,
        scene.embeds(member).whole,
        lambda fused: member.model.match_logits(fused)[:, 1],
    )
    expected = explain.relevance(trace, layer=1)[0, 1].view(4, 4)  # the first word behind [CLS]
    np.testing.assert_allclose(found.maps[0], expected, atol=1e-7)


def test_settings_choose_what_is_explained(tiny_model, tiny_processor, scene):
    stored = MapChoices(query=MapChoice("box", "attention", 1, "max"))
    predictor = Predictor.from_model(tiny_model, tiny_processor, Settings(maps=stored))
    found = predictor.explain(scene, "a red car")
    assert (found.target, found.method, found.layer, found.head) == ("box", "attention", 1, "max")


def test_layout_shows_masks_to_nobody():
    ids, sees, positions = explain.left_to_right_layout([2, 7], [10, 11, 12], 4)
    assert ids.tolist() == [[2, 7, 10, 11, 4, 4, 4]] and positions.tolist() == [
        [0, 1, 2, 3, 2, 3, 4]
    ]
    assert sees[0, :, 4:].sum() == 3 and sees[0, range(4, 7), range(4, 7)].all()
    assert sees[0, 5].tolist() == [True, True, True, False, False, True, False]


def test_all_words_come_from_one_forward_and_one_backward(
    tiny_predictor, scene, tiny_model, monkeypatch
):
    calls = {"forward": 0, "backward": 0}
    fusion, grad = type(tiny_model.fusion_encoder).forward, torch.autograd.grad

    def forward(self, *args, **kwargs):
        calls["forward"] += 1
        return fusion(self, *args, **kwargs)

    def backward(*args, **kwargs):
        calls["backward"] += 1
        return grad(*args, **kwargs)

    monkeypatch.setattr(type(tiny_model.fusion_encoder), "forward", forward)
    monkeypatch.setattr(torch.autograd, "grad", backward)
    for target in ("match", "caption", "box"):
        calls.update(forward=0, backward=0)
        assert len(tiny_predictor.explain(scene, TEXT, target=target).maps) == 6
        assert calls == {"forward": 1, "backward": 1}
    calls.update(forward=0, backward=0)
    tiny_predictor.explain(scene, TEXT, target="answer", answer="red")
    assert calls == {"forward": 1, "backward": 1}
    calls.update(forward=0, backward=0)
    assert len(tiny_predictor.ground(scene, ["red car", "a dog", "sky"])) == 3
    assert calls == {"forward": 1, "backward": 1}


def test_explaining_leaves_no_trace(tiny_predictor, scene, tiny_model):
    before = fingerprint(tiny_model)
    hooks = count_hooks(tiny_model)
    for method in METHODS:
        for target in TARGETS:
            tiny_predictor.explain(scene, TEXT, method=method, target=target)
    after = fingerprint(tiny_model)
    assert (
        all(torch.equal(before[name], after[name]) for name in before)
        and before.keys() == after.keys()
    )
    assert not any(
        parameter.requires_grad or parameter.grad is not None
        for parameter in tiny_model.parameters()
    )
    assert not tiny_model.training
    assert hooks == count_hooks(tiny_model)
    embeds = scene.embeds(tiny_predictor._member("match"))
    assert not embeds.whole.requires_grad and embeds.whole.grad is None


def test_two_threads_explain_as_one_after_the_other(tiny_predictor, scene):
    jobs = [(text, method) for text in ("a red car", "two dogs and a man") for method in METHODS]
    expected = [tiny_predictor.explain(scene, text, method=method).maps for text, method in jobs]
    found = [None] * len(jobs) * 4

    def work(i):
        text, method = jobs[i % len(jobs)]
        found[i] = tiny_predictor.explain(scene, text, method=method).maps

    for start in range(0, len(found), 4):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(start, start + 4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    for i, maps in enumerate(found):
        np.testing.assert_allclose(maps, expected[i % len(jobs)], atol=1e-6)


def test_layers_heads_and_seeds(tiny_predictor, scene):
    layers = [tiny_predictor.explain(scene, TEXT, layer=layer).maps for layer in range(3)]
    np.testing.assert_allclose(
        tiny_predictor.explain(scene, TEXT, layer="mean").maps, np.mean(layers, 0), atol=1e-7
    )
    heads = [tiny_predictor.explain(scene, TEXT, layer=1, head=head).maps for head in range(2)]
    np.testing.assert_allclose(layers[1], np.mean(heads, 0), atol=1e-7)
    np.testing.assert_allclose(
        tiny_predictor.explain(scene, TEXT, layer=1, head="max").maps[0],
        np.max(heads, 0)[0],
        atol=1e-7,
    )
    assert tiny_predictor.explain(scene, TEXT, layer=2).layer == 2
    seeds = [
        tiny_predictor.explain(scene, TEXT, method="random", seed=seed).maps for seed in (0, 1, 0)
    ]
    assert np.array_equal(seeds[0], seeds[2]) and not np.array_equal(seeds[0], seeds[1])


def test_rollout_carries_relevance_through_self_attention(tiny_model):
    """Where tokens do not see each other only the token that the head reads is relevant; else all
    are."""
    torch.manual_seed(0)
    text, image = torch.randn(1, 5, 24), torch.randn(1, 17, 32)

    def objective(fused):
        return tiny_model.match_logits(fused)[:, 1]

    alone = explain.rollout(tiny_model, text, torch.eye(5)[None], image, objective)
    together = explain.rollout(tiny_model, text, torch.ones(1, 5), image, objective)
    assert alone.shape == together.shape == (1, 5, 16)
    assert (alone[0, 0] > 0).any() and (alone[0, 1:] == 0).all()
    assert (together[0] > 0).any(1).all()


def test_bad_requests_are_refused(tiny_predictor, scene):
    bad = {
        "target": ["colour"],
        "method": ["magic"],
        "layer": [3, -1, "all", 0.5],
        "head": [2, "min"],
        "seed": [-1, None],
    }
    for change in ({name: value} for name, values in bad.items() for value in values):
        with pytest.raises(ParameterError, match="param/range"):
            tiny_predictor.explain(scene, TEXT, **change)
    with pytest.raises(TextError, match="text/empty"):
        tiny_predictor.explain(scene, "  ")


def test_punctuation_and_truncated_texts(tiny_predictor, scene):
    for nothing in ("?!...", "in the"):
        with pytest.raises(TextError, match=r"Name a thing.*text/empty"):
            tiny_predictor.explain(scene, nothing)
    for target in TARGETS:
        long = tiny_predictor.explain(scene, "red car " * 40, target=target)
        # Questions are cut at 50 words, as officially; other texts at the tokens of the model.
        kept = 50 if target == "answer" else 18
        assert long.truncated_at == kept * 4
        assert len(long.words) == len(long.maps) == kept


def test_agreement_counts_energy_and_peak():
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0], heat[3, 3] = 3, 1
    corner = explain.agreement(heat, (0, 0, 0.25, 0.25))
    assert (
        corner.pointing_hit is True
        and corner.energy_inside == pytest.approx(0.75)
        and corner.box_area == 0.0625
    )
    half = explain.agreement(heat, (0.125, 0, 1, 1))
    assert half.energy_inside == pytest.approx((1.5 + 1) / 4) and half.pointing_hit is True
    assert explain.agreement(heat, (0.5, 0.5, 1, 1)).pointing_hit is False
    flat = explain.agreement(np.full((4, 4), 0.3, np.float32), (0, 0, 0.5, 0.5))
    assert flat.pointing_hit is None and flat.energy_inside == pytest.approx(0.25)
    assert explain.agreement(np.zeros((4, 4)), (0, 0, 0.5, 0.5)).energy_inside == 0


def test_deletion_check_tells_a_map_that_matters(tiny_config, tiny_processor, scene):
    """A matching head that only looks at one patch: its own map is faithful, the opposite map is
    the reverse."""
    from x2vlm.modeling.build import build_model
    from x2vlm.settings import Settings

    torch.manual_seed(0)
    predictor = Predictor.from_model(
        build_model(tiny_config), tiny_processor, Settings(max_tokens=20)
    )
    model = predictor._member("match").model

    whole = []

    def encode_image(visual):  # whether patch 5 is as at first is the pooled token
        patches = visual.unfold(-2, 16, 16).unfold(-2, 16, 16).mean((-1, -2)).flatten(-2)[:, 0, 5]
        whole.append(patches[0])
        same = (patches - whole[0]).abs() < 1e-6
        return same.float()[:, None, None].expand(-1, 17, 32)

    model.encode_image = encode_image
    model.fuse = lambda text, mask, image, context_mask=None: image[:, :1]
    model.match_logits = lambda fused: torch.stack([-fused[:, 0, 0], fused[:, 0, 0]], -1)
    explanation = predictor.explain(scene, "a red car", method="random")
    heat = np.zeros((4, 4), np.float32)
    heat[1, 1] = 1
    right = predictor.deletion_check(
        scene, dataclasses.replace(explanation, overall=heat), steps=8, draws=3
    )
    wrong = predictor.deletion_check(
        scene, dataclasses.replace(explanation, overall=1 - heat), steps=8, draws=3
    )
    assert right.faithfulness > 0 > wrong.faithfulness
    assert len(right.fractions) == len(right.by_heat) == len(right.by_chance) == 9
    assert right.by_heat[0] == right.by_chance[0] > right.by_heat[1] == pytest.approx(0.5)
    assert right.by_heat[-1] == right.by_chance[-1]
    assert (right.verdict, wrong.verdict) == ("faithful", "not faithful")
    assert all(
        low <= mean <= high
        for low, mean, high in zip(
            right.chance_low, right.by_chance, right.chance_high, strict=True
        )
    )
    inserted = predictor.deletion_check(
        scene, dataclasses.replace(explanation, overall=heat), mode="insertion", draws=3
    )
    assert inserted.faithfulness > 0 and inserted.by_heat[-1] > inserted.by_heat[0]
    useless = dataclasses.replace(explanation, overall=np.zeros((4, 4), np.float32))
    model.match_logits = lambda fused: torch.zeros(len(fused), 2)
    assert predictor.deletion_check(scene, useless, draws=3).verdict == "cannot tell"
    other = dataclasses.replace(explanation, overall=np.zeros((5, 5), np.float32))
    with pytest.raises(ParameterError, match="param/range"):
        predictor.deletion_check(scene, other)


def test_writing_a_caption_between_changes_nothing(tiny_predictor, scene):
    first = tiny_predictor.explain(scene, TEXT).maps
    tiny_predictor.caption(scene, max_new_tokens=5)
    assert np.array_equal(first, tiny_predictor.explain(scene, TEXT).maps) and not is_flat(
        first[-1]
    )


def test_the_map_of_a_whole_text_is_the_mean_over_all_its_tokens(
    tiny_config, tiny_processor, scene
):
    from x2vlm.modeling.build import build_model

    torch.manual_seed(0)
    predictor = Predictor.from_model(build_model(tiny_config), tiny_processor)
    member, text = predictor._member("match"), "a red car"
    ids = torch.tensor([tiny_processor.tokenize(text).ids])
    embeds = predictor.encode(scene).embeds(member, None).whole
    model = member.model
    mask = torch.ones_like(ids)
    trace = explain.trace_attention(
        model,
        model.encode_text(ids, mask),
        mask,
        embeds,
        lambda fused: model.match_logits(fused)[:, 1],
    )
    expected = explain.relevance(trace)[0].mean(0).numpy()
    for found in (
        predictor.explain(scene, text),
        predictor.ground(scene, [text, "a car"])[0].explanation,
    ):
        np.testing.assert_allclose(found.overall.ravel(), expected, atol=1e-6)
