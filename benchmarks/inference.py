"""Speed and memory of inference as ratios: `python -m benchmarks.inference [--only NAME] [--json]`.

Random weights, two threads. Competitors take turns in one process, so that what else the machine
does cancels out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration

from benchmarks.timing import matrix_rate, median_ratio, read_bandwidth, take_turns
from x2vlm.checkpoint import save_model
from x2vlm.config import X2VLMConfig
from x2vlm.inference.generation import beam_search
from x2vlm.inference.predictor import Predictor
from x2vlm.modeling.build import build_model
from x2vlm.modeling.captioning import CaptionDecoder
from x2vlm.modeling.cpu_linear import pack_linears
from x2vlm.modeling.vqa import X2VLMForQuestionAnswering
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.presets import BASE
from x2vlm.processing import Processor

BASE_384 = BASE.replace(vision=dataclasses.replace(BASE.vision, image_size=384))
NUM_BEAMS, NEW_TOKENS, END_ID, MASK_ID = 3, 20, 3, 4
PROMPT = (2, 10, 11, 12)  # [CLS] an image of
WORDS = [
    "a",
    "the",
    "small",
    "red",
    "dog",
    "cat",
    "runs",
    "next",
    "to",
    "tree",
    "under",
    "blue",
    "sky",
    "with",
    "two",
    "kites",
]
NUM_ANSWERS, NUM_RANKED = 3128, 128


@dataclass(frozen=True)
class Measurement:
    """A measured ratio and its bar: at least `bar` where more is better, else at most."""

    name: str
    ratio: float
    bar: float
    more_is_better: bool
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.ratio >= self.bar if self.more_is_better else self.ratio <= self.bar


def caption(config: X2VLMConfig = BASE_384, rounds: int = 7) -> list[Measurement]:
    """Image to caption against BLIP-base of transformers: same image size, beams and number of new
    tokens."""
    model32 = fresh_model(config, "masked_lm")
    model16 = fresh_model(config, "masked_lm").to(torch.bfloat16)
    peer, image = blip_like(config), random_input(config)
    prompt = torch.tensor([PROMPT])
    length = {
        "num_beams": NUM_BEAMS,
        "min_new_tokens": NEW_TOKENS,
        "max_new_tokens": NEW_TOKENS,
        "do_sample": False,
    }
    ids = torch.tensor([[*PROMPT, END_ID]])  # the peer drops the last one

    seconds = take_turns(
        {
            "peer": lambda: peer.generate(pixel_values=image, input_ids=ids, **length),
            "float32": lambda: write_caption(model32, model32.encode_image(image), prompt),
            "bfloat16": lambda: write_caption(
                model16, model16.encode_image(image.bfloat16()), prompt
            ),
        },
        rounds,
    )
    return [
        Measurement(
            f"caption {name}: times faster than BLIP-base float32",
            median_ratio(seconds["peer"], seconds[name]),
            bar,
            True,
            f"{min(seconds[name]) / caption_floor(model, image):.2f} x the floor",
        )
        for name, model, bar in (("float32", model32, 1.3), ("bfloat16", model16, 3.0))
    ]


def second_phrase(config: X2VLMConfig = BASE_384, rounds: int = 7) -> list[Measurement]:
    """A phrase grounded on a scene that is encoded already, against encoding and grounding."""
    predictor = random_predictor(config)
    image = random_image(config)
    scene = predictor.encode(image)
    seconds = take_turns(
        {
            "first": lambda: predictor.ground(image, "the red dog next to the tree"),
            "second": lambda: predictor.ground(scene, "a small cat under the blue sky"),
        },
        rounds,
    )
    return [
        Measurement(
            "second phrase / first phrase with the picture",
            median_ratio(seconds["second"], seconds["first"]),
            0.2,
            False,
        )
    ]


def ranking(
    config: X2VLMConfig = BASE_384, rounds: int = 7, answers: int = NUM_ANSWERS
) -> list[Measurement]:
    """The best of a list of answers, of which 128 are scored in full, against encoding the
    image."""
    model = fresh_model(config, "answer_decoder")
    vqa, image = X2VLMForQuestionAnswering(model), random_input(config)
    question = torch.randint(5, config.text.vocab_size, (1, 9))
    answer_ids = random_answers(answers, config.text.vocab_size)
    with torch.no_grad():
        states = vqa.read_question(model.encode_image(image), question, torch.ones_like(question))

    @torch.no_grad()
    def rank():
        return vqa.rank_answers(
            states, torch.ones_like(question), answer_ids, (answer_ids != 0).long(), NUM_RANKED
        )

    seconds = take_turns(
        {"encode": torch.no_grad()(lambda: model.encode_image(image)), "rank": rank}, rounds
    )
    name = f"ranking {answers} answers / encoding the picture"
    return [Measurement(name, median_ratio(seconds["rank"], seconds["encode"]), 1.0, False)]


def explaining(config: X2VLMConfig = BASE_384, rounds: int = 15) -> list[Measurement]:
    """Match, gradients and heat maps of a text of ten words, against its match alone."""
    predictor = random_predictor(config)
    scene = predictor.encode(random_image(config))
    text = " ".join(WORDS[:10])
    seconds = take_turns(
        {
            "match": lambda: predictor.match(scene, text),
            "explain": lambda: predictor.explain(scene, text),
        },
        rounds,
    )
    return [
        Measurement(
            "explaining a text / matching it",
            median_ratio(seconds["explain"], seconds["match"]),
            3.0,
            False,
        )
    ]


MEASURE_LOADING = """
import sys
from pathlib import Path
from x2vlm import load_model
def kilobytes(field):
    return next(int(line.split()[1]) for
    line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
before = kilobytes("VmRSS")
loaded = load_model(sys.argv[1])
print(1024 * (kilobytes("VmHWM") - before))
"""


def loading(config: X2VLMConfig = BASE) -> list[Measurement]:
    """Peak memory that loading a checkpoint adds to a fresh process, file pages included, against
    the file's size (Linux)."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(build_model(config), folder)
        size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
        child = subprocess.run(
            [sys.executable, "-c", MEASURE_LOADING, folder],
            check=True,
            capture_output=True,
            text=True,
        )
    return [
        Measurement(
            "memory added by loading / file size", int(child.stdout.split()[-1]) / size, 1.2, False
        )
    ]


MEASURES: dict[str, Callable[[], list[Measurement]]] = {
    "caption": caption,
    "second_phrase": second_phrase,
    "ranking": ranking,
    "explaining": explaining,
    "loading": loading,
}


def caption_floor(model: X2VLM, image: Tensor) -> float:
    """Seconds that captioning cannot beat: the picture's operations at the measured matrix rate,
    and once a token every weight that decoding reads at the measured bandwidth."""
    dtype = next(model.parameters()).dtype
    with FlopCounterMode(display=False) as counter:
        # With gradients, since the counter sees plain products only.
        model.encode_image(image.to(dtype).requires_grad_())
    layers = [*model.text_encoder.layers.parameters(), *model.fusion_encoder.layers.parameters()]
    cross = [p for layer in model.fusion_encoder.layers for m in ("key", "value")
             for p in getattr(layer.cross_attention, m).parameters()]  # fmt: skip
    streamed = sum(p.nbytes for p in [*layers, *model.masked_lm_head.parameters()]) - sum(
        p.nbytes for p in cross
    )
    vision = model.config.vision
    operations = counter.get_total_flops() / matrix_rate(
        dtype, vision.num_tokens, vision.hidden_size
    )
    return operations + NEW_TOKENS * streamed / read_bandwidth()


@torch.no_grad()
def write_caption(model: X2VLM, image_embeds: Tensor, prompt: Tensor):
    return beam_search(
        CaptionDecoder(model, image_embeds, MASK_ID),
        prompt,
        end_id=END_ID,
        num_beams=NUM_BEAMS,
        min_length=NEW_TOKENS,
        max_new_tokens=NEW_TOKENS,
    )


def fresh_model(config: X2VLMConfig, *heads: str) -> X2VLM:
    torch.manual_seed(0)
    model = build_model(config.replace(heads=heads)).eval().requires_grad_(False)
    pack_linears(model)
    return model


def blip_like(config: X2VLMConfig) -> BlipForConditionalGeneration:
    """BLIP with the tower and text sizes of a configuration; those of BASE give BLIP-base."""
    text, vision = config.text, config.vision
    text_config = {
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "encoder_hidden_size": vision.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "bos_token_id": PROMPT[0],
        "eos_token_id": END_ID,
        "sep_token_id": END_ID,
    }
    vision_config = {
        "image_size": vision.image_size,
        "hidden_size": vision.hidden_size,
        "intermediate_size": int(vision.hidden_size * vision.mlp_ratio),
        "num_hidden_layers": vision.num_layers,
        "num_attention_heads": vision.num_heads,
    }
    return BlipForConditionalGeneration(
        BlipConfig(text_config=text_config, vision_config=vision_config)
    ).eval()


def random_predictor(config: X2VLMConfig) -> Predictor:
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizerFast(vocab={entry: index for index, entry in enumerate(entries)})
    return Predictor.from_model(
        fresh_model(config, "contrastive", "matching", "box"), Processor(config, tokenizer)
    )


def random_input(config: X2VLMConfig) -> Tensor:
    return torch.randn(1, 3, config.vision.image_size, config.vision.image_size)


def random_image(config: X2VLMConfig):
    """uint8[H, W, 3]."""
    return torch.randint(
        0, 256, (config.vision.image_size, config.vision.image_size, 3), dtype=torch.uint8
    ).numpy()


def random_answers(count: int, vocab_size: int) -> Tensor:
    """[CLS] one to three word pieces [SEP], padded: int64[count, 5]."""
    ids = torch.randint(5, vocab_size, (count, 5))
    ends = torch.randint(2, 5, (count, 1))
    places = torch.arange(5)
    ids[:, 0] = PROMPT[0]
    return ids.masked_fill(places == ends, END_ID).masked_fill(places > ends, 0)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("--only", choices=list(MEASURES), help="one measure instead of all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    measured = [
        m for name, measure in MEASURES.items() if options.only in (None, name) for m in measure()
    ]
    if options.json:
        print(
            json.dumps([dataclasses.asdict(m) | {"passed": m.passed} for m in measured], indent=2)
        )
        return 0
    for m in measured:
        sign = ">=" if m.more_is_better else "<="
        print(
            f"{m.name:48} {m.ratio:7.2f}   bar {sign} {m.bar:<4}  {'pass' if m.passed else 'MISS'} "
            f"  {m.detail}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
