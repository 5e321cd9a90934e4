"""What the recordings say about token ids and texts: prompts, questions, answers and generated
captions. All exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tests.parity.case import Case
from x2vlm.inference.closing_beams import closing_beam_search
from x2vlm.inference.generation import beam_search
from x2vlm.modeling.captioning import CaptionDecoder
from x2vlm.modeling.causal_captioning import CausalCaptionDecoder

RUN_KEYS = {
    "batch", "num_beams", "min_length", "max_new_tokens", "length_penalty", "no_repeat_ngram_size",
    "token_ids", "text", "max_length", "min_new_tokens", "repetition_penalty",
}  # fmt: skip


def text_checks(case: Case) -> Iterator[tuple[str, Any, Any]]:
    """(name, ours, recorded) of everything in meta.json that is not a size."""
    meta = case.meta
    if "prompt" in meta:
        yield (
            "prompt_ids",
            [case.tokenizer.cls_token_id, *_pieces(case, meta["prompt"])],
            meta["prompt_ids"],
        )
    for name in ("question", "answer"):
        if f"{name}s" in meta:
            ids, mask = case[f"{name}_ids"], case[f"{name}_atts"]
            ours = _padded(
                [_with_ends(case, text) for text in meta[f"{name}s"]],
                ids.shape[1],
                case.tokenizer.pad_token_id,
            )
            yield f"{name}_ids", ours, ids.tolist()
            yield (
                f"{name}_atts",
                [[int(i != case.tokenizer.pad_token_id) for i in row] for row in ours],
                mask.tolist(),
            )
    if "train_captions" in meta:
        pad = case.tokenizer.pad_token_id
        ours = [_with_ends(case, text) for text in meta["train_captions"]]
        ids = case["train_text_ids"]
        yield "train_captions", _padded(ours, ids.shape[1], pad), ids.tolist()
    for index, run in enumerate(meta.get("runs", [])):
        unknown = sorted(set(run) - RUN_KEYS)
        if unknown:
            yield f"runs[{index}].{unknown[0]}", "unknown quantity", run[unknown[0]]
            continue
        ids = _caption(case, run)
        width = max(map(len, run["token_ids"]))
        yield f"runs[{index}].token_ids", _padded(ids, width, 0), run["token_ids"]
        texts = [
            case.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=True)
            for row in ids
        ]
        yield f"runs[{index}].text", texts, run["text"]


def _caption(case: Case, run: dict[str, Any]) -> list[list[int]]:
    embeds = case.model.encode_image(case["image"][: run["batch"]])
    prompt = torch.tensor([case.meta["prompt_ids"]] * run["batch"])
    shared = {
        "end_id": case.tokenizer.sep_token_id,
        "num_beams": run["num_beams"],
        "max_new_tokens": run["max_new_tokens"],
        "length_penalty": run["length_penalty"],
        "no_repeat_ngram_size": run["no_repeat_ngram_size"],
    }
    if "causal_lm" in case.model.config.heads:
        decoder = CausalCaptionDecoder(case.model, embeds)
        # Here `min_length` counts the prompt.
        found = closing_beam_search(decoder, prompt, min_length=run["min_new_tokens"], **shared)
    else:
        decoder = CaptionDecoder(case.model, embeds, case.tokenizer.mask_token_id)
        found = beam_search(decoder, prompt, min_length=run["min_length"], **shared)
    return [list(hypotheses[0].token_ids) for hypotheses in found]


def _pieces(case: Case, text: str) -> list[int]:
    return case.tokenizer(text, add_special_tokens=False)["input_ids"]


def _with_ends(case: Case, text: str) -> list[int]:
    return [case.tokenizer.cls_token_id, *_pieces(case, text), case.tokenizer.sep_token_id]


def _padded(rows: list[list[int]], width: int, pad: int) -> list[list[int]]:
    return [row + [pad] * (width - len(row)) for row in rows]
