"""Colours, fonts and styles. Fonts are the system's own: nothing is fetched."""

import gradio as gr

SANS = (
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Noto Sans",
    "Noto Sans CJK SC",
    "sans-serif",
)
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

THEME = gr.themes.Base(
    primary_hue="teal",
    secondary_hue="teal",
    neutral_hue="slate",
    radius_size="md",
    font=SANS,
    font_mono=MONO,
).set(
    body_background_fill="*neutral_50",
    block_shadow="none",
    block_border_width="1px",
    block_label_background_fill="transparent",
    block_label_border_width="0px",
    block_label_text_color="*neutral_500",
    block_title_text_weight="600",
    input_background_fill="white",
    input_background_fill_dark="*neutral_900",
    input_border_width="1px",
    input_border_color="*neutral_300",
    button_secondary_background_fill="white",
    button_secondary_background_fill_dark="*neutral_800",
    button_secondary_background_fill_hover="*neutral_100",
    button_secondary_border_color="*neutral_300",
    button_border_width="1px",
    button_cancel_background_fill="white",
    button_cancel_background_fill_dark="*neutral_800",
    button_cancel_text_color="*neutral_700",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_text_color="white",
    button_large_padding="10px 18px",
)

CSS = """
.gradio-container { max-width: 1480px !important; margin: 0 auto; }
#head .head { display: flex; align-items: baseline; gap: 14px; flex-wrap: wrap; }
#head .head h1 { font-size: 1.45rem; font-weight: 700; margin: 0; letter-spacing: -0.01em; }
#head .sub { color: var(--body-text-color-subdued); }
#head .model { margin-left: auto; font-size: .85rem; padding: 3px 12px; border-radius: 99px;
  border: 1px solid var(--border-color-primary); background: var(--background-fill-primary); }
#canvas { padding: 0; border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg); overflow: hidden;
  background: var(--background-fill-secondary); }
.x2-frame { position: relative; width: fit-content; max-width: 100%; margin: 0 auto; line-height: 0; cursor: crosshair; }
.x2-frame img { display: block; max-width: 100%; max-height: 48vh; min-height: min(40vh, 340px); width: auto; margin: 0;
  user-select: none; border-radius: 0; }
.x2-frame.draw { touch-action: none; }
.x2-region { position: absolute; border: 2px solid #fff; outline: 2px dashed #0f172a; pointer-events: none; }
.x2-region[hidden] { display: none; }
#words .score-token.highlighted, #caption-words .score-token.highlighted { filter: hue-rotate(170deg); }
#words .token, #caption-words .token { font-size: 1rem; padding: 3px 7px; border-radius: 6px; cursor: pointer; }
.html-container { padding: 0 !important; }
main.contain { padding-left: 18px; max-width: 1440px; margin: 0 auto; width: 100%; }
#toolbar { align-items: center; flex-wrap: nowrap; }
#toolbar #kind { min-width: 0; }
#toolbar #kind { flex: 1 1 auto; }
#toolbar button { flex: 0 0 auto; }
#examples .caption-label { display: none; }
#examples .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; gap: 8px; padding-top: 26px; }
#examples .thumbnail-item { width: 100%; height: auto; aspect-ratio: 1; }
#strip .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; gap: 8px; }
#small-multiples .grid-container { grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)) !important; gap: 8px; }
#strip .thumbnail-item, #small-multiples .thumbnail-item { width: 100%; height: auto; }
#strip, #small-multiples, #strip .grid-wrap, #small-multiples .grid-wrap { min-height: 0 !important; height: auto !important; }
#doubt { align-items: end; }
#answers h2 { display: none; }
#answers { padding-top: 28px !important; }
.captions td:nth-child(2), .matches td:nth-child(2), .findings td:nth-child(2) { width: 50%; min-width: 110px; }
.captions .bar, .matches .bar { width: 60px; }
.captions td:nth-child(4), .matches td:nth-child(3) { white-space: nowrap; }
#source .form { border: 0; background: none; }
/* below a clip there is room for its sources */
#source:not(:has([title="grant webcam access"], [title="capture photo"], [title$=" recording"])) video { max-height: 104px; }
/* an open camera takes the whole row */
#source:has([title="grant webcam access"], [title="capture photo"], [title$=" recording"]) { flex-wrap: wrap; }
#source:has([title="grant webcam access"], [title="capture photo"], [title$=" recording"]) > .column { flex: 1 0 100%; }
#source .block:has([title="grant webcam access"], [title="capture photo"], [title$=" recording"]) { height: 340px !important; }
.card small { color: var(--body-text-color-subdued); }
.chips { gap: 6px !important; }
.chips button { flex: 0 1 auto !important; border-radius: 99px !important; font-weight: 400 !important; }
.legend { display: flex; align-items: center; gap: 8px; font-size: .82rem; flex-wrap: wrap;
  font-variant-numeric: tabular-nums; }
.legend .note { margin: 0 0 0 auto; }
.ramp { display: inline-block; width: 160px; height: 12px; border-radius: 3px; }
.ramp.viridis { background: linear-gradient(90deg,#440154,#3b528b,#21918c,#5ec962,#fde725); }
.ramp.cividis { background: linear-gradient(90deg,#00224e,#434e6c,#7d7c78,#bcae6c,#fee838); }
.ramp.magma { background: linear-gradient(90deg,#000004,#51127c,#b73779,#fc8961,#fcfdbf); }
.ramp.gray { background: linear-gradient(90deg,#000,#fff); }
.twin { font-size: .92rem; line-height: 1.5; margin: 6px 0 0; }
.note { font-size: .85rem; color: var(--body-text-color-subdued); margin: 6px 0; }
.warn { font-size: .88rem; margin: 6px 0; padding: 6px 10px; border-left: 3px solid #d97706; background: #d977061a; }
.card { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg);
  background: var(--background-fill-primary); }
.card.scroll { overflow-x: auto; contain: inline-size; }
.card table { width: 100%; border-collapse: collapse; margin: 0; font-size: .92rem; border: 0; }
.card table, .card thead, .card tbody, .card tr { border: 0 !important; border-radius: 0; }
.card th { text-align: left; font-weight: 600; font-size: .8rem; color: var(--body-text-color-subdued); padding: 8px 10px;
  border: 0; border-bottom: 1px solid var(--border-color-primary); white-space: nowrap; background: none; }
.card td { padding: 9px 10px; border: 0; border-bottom: 1px solid var(--border-color-primary); vertical-align: middle; }
.card tr:last-child td { border-bottom: 0; }
.num { font-variant-numeric: tabular-nums; white-space: nowrap; }
.badge { display: inline-grid; place-items: center; width: 24px; height: 24px; border-radius: 6px; font-weight: 700;
  font-size: .82rem; color: #0f172a; background: var(--c); border: 1px solid #0f172a33; }
.verdict { display: inline-block; padding: 2px 10px; border-radius: 99px; font-size: .85rem; white-space: nowrap;
  border: 1.5px solid; font-variant-numeric: tabular-nums; }
.verdict.found { color: #065f46; background: #d1fae5; border-color: #059669; }
.verdict.unsure { color: #78350f; background: #fef3c7; border-color: #d97706; }
.verdict.absent { color: #334155; background: #f1f5f9; border-color: #64748b; border-style: dashed; }
.bar { display: inline-block; width: 90px; height: 8px; border-radius: 4px; background: var(--border-color-primary);
  margin-right: 8px; vertical-align: middle; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--primary-600); }
.answer { padding: 14px 18px; }
.answer .q { color: var(--body-text-color-subdued); margin: 0; }
.answer .a { font-size: 2rem; font-weight: 700; margin: 2px 0 0; line-height: 1.25; }
.chart { padding: 8px; }
.curve text { font-size: 12px; fill: var(--body-text-color-subdued); }
.curve .grid { stroke: var(--border-color-primary); }
.keys { display: flex; gap: 16px; font-size: .82rem; margin: 0; color: var(--body-text-color-subdued); flex-wrap: wrap; }
.keys i { display: inline-block; width: 14px; height: 4px; border-radius: 2px; margin-right: 6px; vertical-align: middle; }
.hidden-text { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.curve { width: 100%; height: auto; display: block; }
.curve [data-k] { cursor: pointer; }
.curve [data-k]:focus { outline: 3px solid var(--primary-600); }
.empty { text-align: center; color: var(--body-text-color-subdued); padding: 22px 12px; margin: 0;
  border: 1px dashed var(--border-color-primary); border-radius: var(--radius-lg); }
[lang] .l [lang] { display: none; }
html[lang^="ko"] .l [lang="ko"], html[lang^="zh"] .l [lang="zh"] { display: inline; }
html:not([lang^="ko"]):not([lang^="zh"]) .l [lang="en"] { display: inline; }
html:not([lang^="ko"]) .only-ko, html:not([lang^="zh"]) .only-zh { display: none; }
html:is([lang^="ko"], [lang^="zh"]) .only-en { display: none; }
:focus-visible { outline: 3px solid var(--primary-600) !important; outline-offset: 2px; }
#canvas:has(img[hidden]) { display: none; }
@media (max-width: 720px) {
  /* Gradio's edges are too wide for a phone, and its own `main` is out of reach here: it scopes rules to what is in it */
  #head, #main { margin-inline: -38px -20px; width: auto !important; }
  #main { display: block; }
  #lenses { margin-top: 16px; }
  #lenses, #stage { width: 100%; }
  .card th { white-space: normal; padding: 6px; }
  .card td { padding: 7px 6px; }
  .card small.num, .verdict { white-space: normal; }
  .verdict { border-radius: 14px; text-align: center; }
  .findings td:nth-child(2) { width: auto; min-width: 0; }
  #examples .grid-container { grid-template-columns: repeat(2, 52px) !important; grid-auto-rows: 52px; align-content: start; }
  #strip .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
  #main > *, #source > * { min-width: 0 !important; }
  #toolbar, #head .head { flex-wrap: wrap; }
  #head .head { padding-left: 28px; }
  button.lg, button.md, button.sm { min-height: 44px; }
  .x2-frame img { min-height: 0; max-height: 60vh; }
  #head .model { margin-left: 0; }
}
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
"""
