"""sftrl_jax: what does SFT learn, what does RL learn, and which of it survives when the rules change?

Post-training for language and vision-language models in JAX. The rooms are stacked in floors, and imports point down:
shapes, trees, metrics, inputs, chat < models, envs, objectives, text, parallel < checkpoints, data, rollout <
training < programs < main. `study` stands beside the house and reads workdirs only.
"""

__version__ = "0.1.0"
