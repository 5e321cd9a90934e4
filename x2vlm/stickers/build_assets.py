"""Rebuild `data/sprites.png` from the Noto Color Emoji font: `python -m x2vlm.stickers.build_assets
[FONT]`.

The font comes with the Debian package fonts-noto-color-emoji (SIL Open Font License 1.1). The atlas
is a grid with `COLUMNS` columns of `TILE` x `TILE` RGBA tiles in the order of `data/concepts.json`;
each sprite is cropped to its visible pixels, scaled so that its longer side fills the tile, and
centred.
"""

import argparse
import json
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_SIZE = 109  # the only bitmap size in the font
TILE, COLUMNS = 96, 14
# loose parts below this share of the visible pixels, such as sparkles, would only widen the box
SPECK = 0.02


def clean(glyph: Image.Image) -> Image.Image:
    """The glyph with a definite edge: no faint glow, beam or steam, and no tiny loose parts."""
    pixels = np.array(glyph)
    pixels[..., 3] = ((pixels[..., 3].astype(int) - 96) * 4).clip(0, 255)
    parts, _ = ndimage.label(pixels[..., 3], structure=np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    pixels[(sizes < SPECK * sizes.sum())[parts]] = 0
    return Image.fromarray(pixels)


def cut_sprite(font: ImageFont.FreeTypeFont, code: str) -> Image.Image:
    """The emoji of one hexadecimal code point as a `TILE` x `TILE` RGBA image."""
    glyph = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(glyph).text((8, 8), chr(int(code, 16)), font=font, embedded_color=True)
    glyph = clean(glyph)
    bounds = glyph.getchannel("A").getbbox()
    if bounds is None:
        raise SystemExit(
            f"The font has no colour glyph for U+{code}; use a newer fonts-noto-color-emoji."
        )
    glyph = glyph.crop(bounds)
    scale = TILE / max(glyph.size)
    glyph = glyph.resize(
        [max(1, round(side * scale)) for side in glyph.size], Image.Resampling.LANCZOS
    )
    tile = Image.new("RGBA", (TILE, TILE))
    tile.paste(glyph, ((TILE - glyph.width) // 2, (TILE - glyph.height) // 2))
    return tile


def main() -> None:
    """Read the font named on the command line and write the atlas."""
    parser = argparse.ArgumentParser(
        description="Rebuild the sticker atlas from the Noto Color Emoji font."
    )
    parser.add_argument("font", nargs="?", type=Path, default=FONT)
    args = parser.parse_args()
    if not args.font.is_file():
        parser.error(
            "there is no such font file; install the Debian package fonts-noto-color-emoji or name "
            "the file."
        )
    data = resources.files("x2vlm.stickers") / "data"
    concepts = json.loads((data / "concepts.json").read_text(encoding="utf-8"))
    font = ImageFont.truetype(str(args.font), FONT_SIZE)
    atlas = Image.new("RGBA", (COLUMNS * TILE, -(-len(concepts) // COLUMNS) * TILE))
    for index, concept in enumerate(concepts):
        atlas.paste(
            cut_sprite(font, concept["code"]), (index % COLUMNS * TILE, index // COLUMNS * TILE)
        )
    atlas.save(str(data / "sprites.png"), optimize=True)


if __name__ == "__main__":
    main()
