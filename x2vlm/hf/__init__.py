"""Our models under the names of transformers: after `import x2vlm.hf`, `AutoModel`, `AutoProcessor`
and `pipeline` open our folders."""

from x2vlm.hf.register import register

register()
