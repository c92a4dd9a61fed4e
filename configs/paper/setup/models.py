"""The models of each choice, in numbers, and the room that their tokens need.

Llama-3.2-11B-Vision is the text model of Llama-3.1-8B, 8 blocks between its 32 that attend to pictures, and a tower. It
reads a picture as 2 x 2 tiles of 560 pixels, 6,404 features. SmolVLM-256M-Instruct enlarges a picture to 16 tiles of
512 pixels and reads it once more as a whole: 1,088 features in the row, with marks of tiles 1,127 tokens.
"""

_LLAMA = dict(width=4096, layers=32, heads=32, kv_heads=8, head_dim=128, mlp_dim=14336, norm_eps=1e-5, rope_theta=5e5,
              rope_scaling="llama3", rope_factor=8.0, rope_low=1.0, rope_high=4.0, rope_context=8192, dtype="bfloat16")
LLAMA = dict(_LLAMA, vocab=128256)
LLAMA_VISION = dict(
    _LLAMA, name="mllama", vocab=128264, context=131072, cross=(3, 8, 13, 18, 23, 28, 33, 38), tile=560, tiles=4,
    patch=14, tower_side=40, tower_width=1280, tower_layers=32, global_layers=8, tower_heads=16, tower_mlp_dim=5120,
    intermediate=(3, 7, 15, 23, 30), image_mean=(0.48145466, 0.4578275, 0.40821073),
    image_std=(0.26862954, 0.26130258, 0.27577711))
SMOLVLM = dict(
    name="idefics3", layout="smolvlm", vocab=49280, width=576, layers=30, heads=9, kv_heads=3, head_dim=64,
    mlp_dim=1536, norm_eps=1e-5, rope_theta=1e5, tie_embeddings=False, dtype="bfloat16", shuffle=4, image_height=512,
    image_width=512, image_longest=2048, patch=16, tower_side=32, tower_width=768, tower_layers=12, tower_heads=12,
    tower_mlp_dim=3072, images=17)
HUB = {"8b": "meta-llama/Llama-3.1-8B-Instruct", "11b": "meta-llama/Llama-3.2-11B-Vision-Instruct",
       "smolvlm": "HuggingFaceTB/SmolVLM-256M-Instruct"}
NUMBERS = {"numbers": LLAMA, "11b_numbers": LLAMA_VISION, "smolvlm_numbers": SMOLVLM}
SMALL = ("smolvlm", "smolvlm_numbers")

# Tokens, and `row` of a row of SFT, which holds `examples` of them on average. Those of "8b" and "11b" were measured
# with the tokenizer of Llama 3 on 500 hands and 150 routes (300 and 100 with pictures), those of "smolvlm" with that of
# SmolLM2; with a model in numbers they are bytes, which are about three times as many.
TOKENS = {
    "8b": {"gp_l": dict(prompt=208, feedback=56, response=96, row=256, examples=1),
           "virl_l": dict(prompt=832, feedback=96, response=96, row=896, examples=2)},
    "numbers": {"gp_l": dict(prompt=576, feedback=136, response=128, row=640, examples=1),
                "virl_l": dict(prompt=2944, feedback=320, response=256, row=3072, examples=2)},
    "11b": {"gp_vl": dict(prompt=208, feedback=56, response=96, row=256, examples=1),
            "virl_vl": dict(prompt=896, feedback=96, response=96, row=1024, examples=2)},
    "11b_numbers": {"gp_vl": dict(prompt=576, feedback=136, response=128, row=640, examples=1),
                    "virl_vl": dict(prompt=3072, feedback=320, response=256, row=3200, examples=2)},
    "smolvlm": {"gp_vl": dict(prompt=1312, feedback=64, response=96, row=1408, examples=1),
                "virl_vl": dict(prompt=2048, feedback=96, response=96, row=2048, examples=1)},
    "smolvlm_numbers": {"gp_vl": dict(prompt=1600, feedback=136, response=128, row=1792, examples=1),
                        "virl_vl": dict(prompt=4160, feedback=320, response=256, row=4352, examples=1)},
    "": {"gp_l": dict(prompt=16, feedback=2, response=20, row=48, examples=1),
         "virl_l": dict(prompt=36, feedback=3, response=6, row=128, examples=2),
         "gp_vl": dict(prompt=12, feedback=1, response=24, row=36, examples=1),
         "virl_vl": dict(prompt=52, feedback=20, response=6, row=256, examples=2)}}
